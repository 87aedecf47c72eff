"""TLS between peers: a node's certificate and the channel of one connection; bytes only, no sockets.

TLS 1.3 alone, since every node runs a release that has it.  Both sides show a certificate of the cluster's own CA, and
the certificate names its node: a subject alternative name `DNS:n1` for the node n1, letter for letter (no wildcards,
no common name).  Any certificate of that CA would do to be *some* node; the name keeps one node's stolen key from
speaking for the others.  The cluster secret is proved inside the channel as it is without TLS (handshake.py).

The channel stands above TCP and not in its place, as asyncio's own would: that a connection ended, or was refused, is
seen at the socket with TLS and without, a stranger counts as one from its first byte on, and the simulation needs no
TLS of its own.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftcron.errors import ConfigurationError
from raftcron.raft.handshake import TLS_ADVICE, HandshakeError

logger = logging.getLogger(__name__)

_READ_BYTES = 1 << 16
_MAX_SHOWN_CHARS = 200  # of what another node's certificate may have us log


@dataclass(frozen=True)
class PeerTls:
    """Where a node's certificate (with its chain, if any), its key and the cluster's CA are: PEM files."""

    certificate: Path
    key: Path
    ca: Path


class ChannelError(HandshakeError):
    """TLS failed; `parting` is its own last word, not to be sealed any more."""


class Channel:
    """TLS on one connection.  After each `take` what `outgoing` gives has to be sent."""

    def __init__(self, context: ssl.SSLContext, *, is_dialling: bool) -> None:
        self.is_open = False  # both sides have shown what they must
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=not is_dialling)

    def take(self, data: bytes) -> bytes:
        """What the other side says with these bytes, as far as they go.  Raises ChannelError."""
        self._incoming.write(data)
        said: list[bytes] = []
        try:
            if not self.is_open:
                self._object.do_handshake()
                self.is_open = True
            while self._incoming.pending or self._object.pending():
                part = self._object.read(_READ_BYTES)
                if not part:
                    raise ChannelError("it ended TLS")
                said.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            said_last = self.outgoing() or (_ALERT if _is_no_tls(error) else b"")
            raise ChannelError(_explain(error), said_last) from error
        return b"".join(said)

    def seal(self, data: bytes) -> bytes:
        """What has to be sent to say `data`, once the channel is open."""
        self._object.write(data)
        return self.outgoing()

    def outgoing(self) -> bytes:
        """What has to be sent now."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def names(self) -> list[str]:
        """The nodes that the other side's certificate is for."""
        certificate: Any = self._object.getpeercert() or {}
        return [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]

    def mismatch(self, name: str) -> str | None:
        """Why the other side cannot be the node `name`, or None."""
        names = self.names()
        if name in names:
            return None
        return f"its certificate is for {_shown(names)}, and not for {name!r}: {_advice(name)}"


class Credentials:
    """A node's certificate, key and CA, as the files have them now.

    They are read when a connection begins and a file has changed since.  What cannot be used is logged, and the
    former ones stay in use; connections that live keep theirs.
    """

    def __init__(self, tls: PeerTls, name: str) -> None:
        """Raises ConfigurationError: which file, what is wrong with it, what to do."""
        self._tls = tls
        self._name = name
        self._seen = stamps_of((tls.certificate, tls.key, tls.ca))
        self._contexts = _load(tls, name)
        self._complaint = ""  # as last logged

    def channel(self, *, is_dialling: bool) -> Channel:
        """The beginning of a channel."""
        self._refresh()
        listening, dialling = self._contexts
        return Channel(dialling if is_dialling else listening, is_dialling=is_dialling)

    def _refresh(self) -> None:
        stamps = stamps_of((self._tls.certificate, self._tls.key, self._tls.ca))
        if stamps == self._seen:
            return
        try:
            self._contexts = _load(self._tls, self._name)
        except _UnreadableError as error:  # it may only lack descriptors: the next connection tries again
            self._keep(error)
        except ConfigurationError as error:
            self._seen = stamps
            self._keep(error)
        else:
            self._seen, self._complaint = stamps, ""
            logger.info("peer_certificate_read certificate=%s", self._tls.certificate)

    def _keep(self, error: ConfigurationError) -> None:
        if error.detail != self._complaint:
            self._complaint = error.detail
            logger.error("peer_certificate_kept: the files have changed, the former ones stay in use: %s", error)


class _UnreadableError(ConfigurationError):
    """A file cannot be opened."""


def stamps_of(paths: Iterable[Path]) -> list[tuple[int, int, int] | None]:
    """What differs once a file does; looked at before the files are read, so that no change is missed."""
    stamps: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return stamps


def _load(tls: PeerTls, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts for listening and dialling, tried on each other: what peers would refuse is found here."""
    listening, dialling = (_context(tls, role) for role in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    listener, dialler = Channel(listening, is_dialling=False), Channel(dialling, is_dialling=True)
    try:
        for _ in range(4):
            dialler.take(listener.outgoing())
            listener.take(dialler.outgoing())
    except ChannelError as error:
        cause = error.__cause__
        told = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else error.reason
        raise ConfigurationError(
            f"--peer-cert {tls.certificate}: peers would refuse it: {told}. It must be made by the CA in --peer-ca "
            f"{tls.ca}, be in date, and serve for both TLS servers and clients"
        ) from error
    if name not in (names := listener.names()):
        raise ConfigurationError(
            f"--peer-cert {tls.certificate}: it is for {_shown(names)}, and this node is {name!r}: {_advice(name)}"
        )
    return listening, dialling


def _context(tls: PeerTls, role: int) -> ssl.SSLContext:
    for flag, path in (("--peer-cert", tls.certificate), ("--peer-key", tls.key), ("--peer-ca", tls.ca)):
        try:
            path.open("rb").close()  # OpenSSL does not say which file is missing
        except OSError as error:
            raise _UnreadableError(f"{flag} {path}: cannot be read: {error.strerror or error}") from error
    context = ssl.SSLContext(role)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a node's name is compared instead, whatever its address is
    context.verify_mode = ssl.CERT_REQUIRED
    if role == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # each connection shows its certificate anew
    try:
        context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise ConfigurationError(f"--peer-ca {tls.ca}: holds no certificate in PEM: {error.reason or error}") from error
    except OSError as error:
        raise _UnreadableError(f"--peer-ca {tls.ca}: cannot be read: {error.strerror or error}") from error
    try:
        context.load_cert_chain(tls.certificate, tls.key, _refuse_password)
    except ValueError as error:
        raise ConfigurationError(f"--peer-key {tls.key}: {error}") from error
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--peer-cert {tls.certificate} and --peer-key {tls.key}: {error.reason or error}: they must be PEM files, "
            "and the key the one that the certificate was made for"
        ) from error
    except OSError as error:
        told = f"--peer-cert {tls.certificate} and --peer-key {tls.key}: cannot be read: {error.strerror or error}"
        raise _UnreadableError(told) from error
    return context


def _refuse_password() -> str:
    raise ValueError("it is encrypted, and a node has nobody to ask for the password: give it a key without one")


def _advice(name: str) -> str:
    return f"give {name} a certificate with the subject alternative name DNS:{name}"


def _shown(names: list[str]) -> str:
    return f"{', '.join(repr(name) for name in names) or 'no node at all':.{_MAX_SHOWN_CHARS}}"


_ALERT = b"\x15\x03\x03\x00\x02\x02\x46"  # fatal, protocol_version: OpenSSL says nothing to what is no TLS
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER")


def _explain(error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}: is it of the CA in --peer-ca, and in date?"
    if "ALERT" in reason:
        return f"it ends TLS with {reason.lower()}: what does its own log say of this node's certificate?"
    if "DID_NOT_RETURN_A_CERTIFICATE" in reason:
        return "it shows no certificate: a peer needs one of the cluster's CA (--peer-cert, --peer-key)"
    if _is_no_tls(error):
        return f"it speaks no TLS, and this node takes nothing else: {TLS_ADVICE}"
    return f"TLS fails: {reason.lower()}"


def _is_no_tls(error: ssl.SSLError) -> bool:
    return any(sign in (error.reason or "") for sign in _NO_TLS)
