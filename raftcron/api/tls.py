"""TLS of the HTTP interface: what a node shows to clients and to other nodes, as the files have it now.

Files are looked at when a connection begins, and read where one has changed; what cannot be used is logged, and the
former ones stay in use.  Connections that live keep theirs.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from raftcron.errors import ConfigurationError
from raftcron.raft.tls import stamps_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files.  `client_ca`: clients have to show a certificate of it; `ca`: what other nodes' are of, None: of a
    CA that the system trusts."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    ca: Path | None = None

    @property
    def all(self) -> list[Path]:
        return [path for path in (self.certificate, self.key, self.client_ca, self.ca) if path is not None]


class _Contexts(NamedTuple):
    listening: ssl.SSLContext
    dialling: ssl.SSLContext


class HttpTls:
    """One node's TLS over HTTP."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises ConfigurationError: which file, what is wrong with it."""
        self._files = files
        self._seen = stamps_of(files.all)
        self._contexts = _load(files)
        self._complaint = ""
        self._front = _load(files).listening
        self._front.sni_callback = self._pick

    @property
    def listening(self) -> ssl.SSLContext:
        """For the server, once: each connection gets the certificate of the day."""
        return self._front

    def dialling(self) -> ssl.SSLContext:
        """For the next connection to another node."""
        self._refresh()
        return self._contexts.dialling

    def _pick(self, connection: Any, name: str | None, front: ssl.SSLContext) -> None:
        """At the beginning of a handshake, with a server name or without."""
        self._refresh()
        connection.context = self._contexts.listening

    def _refresh(self) -> None:
        stamps = stamps_of(self._files.all)
        if stamps == self._seen:
            return
        try:
            self._contexts = _load(self._files)
        except ConfigurationError as error:
            if error.detail != self._complaint:
                self._complaint = error.detail
                log.error("certificate_kept: the files have changed, the former ones stay in use: %s", error.detail)
        else:
            self._seen, self._complaint = stamps, ""
            log.info("certificate_read certificate=%s", self._files.certificate)


def _load(files: TlsFiles) -> _Contexts:
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.minimum_version = ssl.TLSVersion.TLSv1_2
    listening.num_tickets = 0  # a connection is not taken up again under a certificate that was withdrawn
    listening.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    listening.set_alpn_protocols(["http/1.1"])
    _show(listening, files)
    if files.client_ca is not None:
        _trust(listening, files.client_ca, "--tls-client-ca")
        listening.verify_mode = ssl.CERT_REQUIRED
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks names and certificates
    dialling.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.ca is None:
        dialling.load_default_certs()
    else:
        _trust(dialling, files.ca, "--tls-ca")
    if files.client_ca is not None:
        _show(dialling, files)
    return _Contexts(listening, dialling)


def _show(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        for path in (files.certificate, files.key):
            path.open("rb").close()  # OpenSSL does not say which file is missing
        context.load_cert_chain(files.certificate, files.key, _refuse_password)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--tls-cert {files.certificate} and --tls-key {files.key}: {error.reason or error}: they must be PEM "
            "files, and the key the one that the certificate was made for"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"--tls-cert {files.certificate} and --tls-key {files.key}: {error.filename or 'one'} cannot be read: "
            f"{error.strerror or error}"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"--tls-key {files.key}: {error}") from error


def _trust(context: ssl.SSLContext, ca: Path, flag: str) -> None:
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{flag} {ca}: holds no certificate in PEM: {error.reason or error}") from error
    except OSError as error:
        raise ConfigurationError(f"{flag} {ca}: cannot be read: {error.strerror or error}") from error


def _refuse_password() -> str:
    raise ValueError("it is encrypted, and a node has nobody to ask for the password: give it a key without one")
