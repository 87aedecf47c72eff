"""How two peers prove the cluster secret to each other, and how each later frame is sealed; bytes only, no sockets.

    dialler -> listener   opening    magic 8s | dialler's name 1+64 | listener's name 1+64 | nonce 32
    listener -> dialler   challenge  status u8 | nonce 32
    dialler -> listener   proof      HMAC(key, "dialler" | opening | challenge)
    listener -> dialler   verdict    status u8 | HMAC(key, "listener" | opening | challenge)

All of fixed size: nothing that a stranger names decides how much is read.  The dialler proves itself first, so that a
listener gives nothing to guess the secret by to whoever connects.  The role in each proof keeps one from being sent
back as the other, the names keep a connection to one node from being handed to another, the nonces keep an old one
from being played again.

Each direction then has a key of its own, and each frame carries a 16 byte keyed BLAKE2b of its number and its bytes:
nobody on the way can put in, change, repeat or leave out a frame.  Frames are not secret; that is for TLS (tls.py).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Generator
from typing import NamedTuple

MAX_NAME_BYTES = 64
NONCE_BYTES = 32
TAG_BYTES = 16

_MAGIC = b"RAFTCRN1"
_OPENING = struct.Struct("<8sB64sB64s32s")
_CHALLENGE = struct.Struct("<B32s")
_VERDICT = struct.Struct("<B32s")
_PROOF_BYTES = 32
OPENING_BYTES = _OPENING.size

_OK, _UNPROVEN, _OTHER_NODE, _NO_TLS = range(4)
_TLS_HELLO, _TLS_ALERT = b"\x16\x03", b"\x15"  # how TLS begins, and how it answers to what is none

_ADVICE = "is RAFTCRON_CLUSTER_SECRET the same on all nodes?"
TLS_ADVICE = "give all nodes --peer-cert, --peer-key and --peer-ca, or none"


class HandshakeError(Exception):
    """The other side is not who it should be.  `parting` is what to send it before closing.

    `cause` is the reason without what the other side chose of it: by that it is known whether it was told before.
    """

    def __init__(self, reason: str, parting: bytes = b"", cause: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.parting = parting
        self.cause = cause or reason


class Unproven(HandshakeError):
    """The other side does not know the secret, or says that we do not."""


class Session(NamedTuple):
    """Who proved to be at the other end, and the keys of the two directions."""

    peer: str
    send_key: bytes
    receive_key: bytes


class Step(NamedTuple):
    """What to send now, and how many bytes to wait for then."""

    send: bytes
    wait_for: int


Handshake = Generator[Step, bytes, Session]  # .send() it exactly the bytes it waits for; ends by returning a Session


def derive_key(secret: bytes) -> bytes:
    return hmac.digest(b"raftcron peers 1", secret, "sha256")


def _encode_name(name: str) -> tuple[int, bytes]:
    data = name.encode()
    if not 0 < len(data) <= MAX_NAME_BYTES:
        raise ValueError(f"a node name has 1 to {MAX_NAME_BYTES} bytes in UTF-8, and {name!r} has {len(data)}")
    return len(data), data


def _decode_name(length: int, data: bytes) -> str:
    if not 0 < length <= MAX_NAME_BYTES or any(data[length:]):
        raise HandshakeError("its opening holds no node name")
    try:
        name = str(data[:length], "utf-8")
    except UnicodeDecodeError:
        name = ""
    if not name.isprintable() or not name:  # it is going to be logged
        raise HandshakeError("its opening holds no node name")
    return name


class _Proofs:
    """All that both sides compute from the key and the bytes exchanged."""

    def __init__(self, key: bytes, opening: bytes, challenge: bytes) -> None:
        self._key = key
        self._transcript = opening + challenge

    def of(self, role: bytes) -> bytes:
        return hmac.digest(self._key, role + b"\0" + self._transcript, "sha256")


def dial(key: bytes, name: str, peer: str, nonce: bytes) -> Handshake:
    """The dialling side: `name` is this node, `peer` whom it expects at the address."""
    opening = _OPENING.pack(_MAGIC, *_encode_name(name), *_encode_name(peer), nonce)
    status = yield Step(opening, 1)
    if status == _TLS_ALERT:
        raise HandshakeError(f"it takes nothing but TLS: {TLS_ADVICE}")
    if status[0] == _OTHER_NODE:
        raise HandshakeError(f"it says that it is not {peer}: look at the addresses of the peers")
    if status[0] != _OK:
        raise HandshakeError(f"it answers with status {status[0]}, which this release does not know")
    challenge = status + (yield Step(b"", _CHALLENGE.size - len(status)))
    proofs = _Proofs(key, opening, challenge)
    verdict = yield Step(proofs.of(b"dialler"), _VERDICT.size)
    outcome, proof = _VERDICT.unpack(verdict)
    if outcome != _OK:
        raise Unproven(f"it does not take our proof of the cluster secret: {_ADVICE}")
    if not hmac.compare_digest(proof, proofs.of(b"listener")):
        raise Unproven(f"it does not prove the cluster secret: {_ADVICE}")
    return Session(peer, proofs.of(b"to listener"), proofs.of(b"to dialler"))


def listen(key: bytes, name: str, nonce: bytes) -> Handshake:
    """The listening side: `name` is this node; the session tells who dialled."""
    magic = yield Step(b"", len(_MAGIC))  # by itself: what is something else is seen at once
    if magic.startswith(_TLS_HELLO):
        answer = _CHALLENGE.pack(_NO_TLS, bytes(NONCE_BYTES))  # enough for TLS to see that this is none
        raise HandshakeError(f"it speaks TLS, and this node has no certificate: {TLS_ADVICE}", answer)
    if magic != _MAGIC:
        raise HandshakeError("it does not speak this protocol, or another version of it")
    opening = magic + (yield Step(b"", OPENING_BYTES - len(magic)))
    _, from_length, from_name, to_length, to_name, _ = _OPENING.unpack(opening)
    peer = _decode_name(from_length, from_name)
    if (expected := _decode_name(to_length, to_name)) != name:
        parting = _CHALLENGE.pack(_OTHER_NODE, bytes(NONCE_BYTES))
        raise HandshakeError(f"it expects {expected!r} at this address, and this is {name!r}", parting, "other node")
    challenge = _CHALLENGE.pack(_OK, nonce)
    proof = yield Step(challenge, _PROOF_BYTES)
    proofs = _Proofs(key, opening, challenge)
    if not hmac.compare_digest(proof, proofs.of(b"dialler")):
        raise Unproven(f"it does not prove the cluster secret: {_ADVICE}", _VERDICT.pack(_UNPROVEN, bytes(32)))
    yield Step(_VERDICT.pack(_OK, proofs.of(b"listener")), 0)
    return Session(peer, proofs.of(b"to dialler"), proofs.of(b"to listener"))


class Seal:
    """Tags for the frames of one direction, in their order."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hashlib.blake2b(key=key, digest_size=TAG_BYTES)
        self._number = 0

    def tag(self, body: bytes | bytearray) -> bytes:
        """The tag of the next frame."""
        digest = self._keyed.copy()
        digest.update(self._number.to_bytes(8, "little"))
        digest.update(body)
        self._number += 1
        return digest.digest()
