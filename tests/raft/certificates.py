"""Certificates made for one test run, with the commands that docs/peer-tls.md gives."""

from __future__ import annotations

import subprocess
from pathlib import Path

from raftcron.raft.tls import PeerTls

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """A CA of its own directory, and the certificates that it makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        openssl("req", "-x509", *KEY, "-subj", "/CN=raftcron", "-days", "3650", "-out", self.ca, "-keyout", self._key)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def _key(self) -> Path:
        return self.folder / "ca.key"

    def issue(self, *names: str, days: int = 365, usage: str | None = None, file: str | None = None) -> PeerTls:
        """A certificate for these nodes, in files that are called like the first of them."""
        found = PeerTls(*(self.folder / f"{file or names[0]}.{suffix}" for suffix in ("crt", "key")), self.ca)
        request = self.folder / "request"
        alternatives = ["-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)] if names else []
        extended = ["-addext", f"extendedKeyUsage={usage}"] if usage else []
        openssl("req", *KEY, "-subj", "/CN=node", *alternatives, *extended, "-out", request, "-keyout", found.key)
        issuer = ["-CA", self.ca, "-CAkey", self._key]
        span = ["-days", str(days), "-copy_extensions", "copy"]
        openssl("x509", "-req", "-in", request, *issuer, *span, "-out", found.certificate)
        return found


def openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
