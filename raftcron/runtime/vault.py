"""The cluster's key: random, made when the first secret is sealed, wrapped by what follows from the cluster secret.

AES-256-GCM with a nonce of chance for each sealing, and with the place it is sealed for as associated data, so that
what was sealed for one job or name opens for no other.  Sealing happens before the log, on the leader; what is in the
log and in snapshots is sealed.  The only file that knows the `cryptography` package.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from raftcron.core.commands import Done, KeepKey
from raftcron.core.vault import SEAL_OVERHEAD, VAULT, VaultKey, places
from raftcron.errors import ConflictError, UnavailableError
from raftcron.ports import Entropy
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

log = logging.getLogger(__name__)

KEY_BYTES = 32
SALT_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
WRAPPED_FOR = b"raftcron cluster key 1"
# scrypt, since a cluster secret may be a word that somebody has thought of: 16 MiB and some 40 ms for each guess.
COST = {"n": 1 << 14, "r": 8, "p": 1, "maxmem": 64 << 20, "dklen": KEY_BYTES}

assert NONCE_BYTES + TAG_BYTES <= SEAL_OVERHEAD


class Vault:
    """Seals and opens on one node.  `previous` is the cluster secret before it was changed, empty if it was not."""

    def __init__(
        self, *, machine: Machine, proposer: Proposer, secret: bytes, entropy: Entropy, previous: bytes = b""
    ) -> None:
        self._machine = machine
        self._proposer = proposer
        self._secrets = tuple(one for one in (secret, previous) if one or one is secret)
        self._entropy = entropy
        self._opened: tuple[bytes, AESGCM] | None = None  # the wrapping that it came out of, and the key
        self._raw = b""  # the same key, to be wrapped anew
        self._is_old = False  # it came out by the previous secret
        self._opening = asyncio.Lock()

    # ---- the key

    async def ready(self) -> None:
        """From now on this node can open, as long as the state's key stays.

        Raises ConflictError: there is no key yet, or it was wrapped under another cluster secret.
        """
        async with self._opening:
            kept = self._machine.state.vault.get(VAULT)
            if kept is None:
                raise ConflictError("nothing was ever sealed in this cluster, so there is no key")
            if self._key is None:
                self._opened = (kept.wrapped, await asyncio.to_thread(self._unwrap, kept))

    async def ready_to_seal(self) -> None:
        """As `ready`, on the leader; makes the key where there is none.  Raises UnavailableError, too."""
        while VAULT not in self._machine.state.vault:
            outcome = await self._proposer.propose(await self._wrap(self._entropy(KEY_BYTES), seen=0))
            if isinstance(outcome, Done):
                log.info("cluster_key_made")
        await self.ready()

    async def renew(self) -> None:
        """On the leader: wrap the key under the present cluster secret, where it is wrapped under the previous one."""
        if VAULT not in self._machine.state.vault:
            return
        await self.ready()
        kept = self._machine.state.vault[VAULT]
        if self._is_old:
            outcome = await self._proposer.propose(await self._wrap(self._raw, seen=kept.index))
            if isinstance(outcome, Done):
                log.warning("cluster_key_wrapped_anew next=the_previous_cluster_secret_may_go")

    @property
    def _key(self) -> AESGCM | None:
        """The key, if it is that of the present state."""
        kept = self._machine.state.vault.get(VAULT)
        if kept is None or self._opened is None or self._opened[0] != kept.wrapped:
            return None
        return self._opened[1]

    async def opener(self, wrapped: bytes, salt: bytes) -> Callable[[bytes, str], str | None] | None:
        """What opens as `open` does, by another cluster's key; None: that is wrapped under another cluster secret."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        found = await asyncio.to_thread(self._unwrapped, wrapped, salt)
        if found is None:
            return None
        key = AESGCM(found[0])

        def opened(sealed: bytes, place: str) -> str | None:
            try:
                return _opened(key, sealed, place.encode()).decode()
            except (InvalidTag, ValueError):
                return None

        return opened

    def _unwrapped(self, wrapped: bytes, salt: bytes) -> tuple[bytes, int] | None:
        """The raw key, and by which of this node's cluster secrets it came out."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        for place, secret in enumerate(self._secrets):
            try:
                return _opened(AESGCM(_stretched(secret, salt)), wrapped, WRAPPED_FOR), place
            except (InvalidTag, ValueError):
                continue
        return None

    def _unwrap(self, kept: VaultKey) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        found = self._unwrapped(kept.wrapped, kept.salt)
        if found is not None:
            self._raw, self._is_old = found[0], found[1] > 0
            return AESGCM(self._raw)
        raise ConflictError(
            "the cluster's key was wrapped under another cluster secret: set RAFTCRON_PREVIOUS_CLUSTER_SECRET or "
            "--previous-cluster-secret-file to the former one until the log says cluster_key_wrapped_anew"
        )

    async def _wrap(self, key: bytes, *, seen: int) -> KeepKey:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        salt, nonce = self._entropy(SALT_BYTES), self._entropy(NONCE_BYTES)
        outer = AESGCM(await asyncio.to_thread(_stretched, self._secrets[0], salt))
        return KeepKey(nonce + outer.encrypt(nonce, key, WRAPPED_FOR), salt, seen)

    # ---- sealing and opening

    def seal(self, text: str, place: str) -> bytes:
        """Opens for `place` alone.  UnavailableError: `ready_to_seal` was not awaited, or the key has changed since."""
        key = self._key
        if key is None:
            raise UnavailableError("the cluster's key has just changed: nothing was written; repeat the request")
        nonce = self._entropy(NONCE_BYTES)
        return nonce + key.encrypt(nonce, text.encode(), place.encode())

    def open(self, sealed: bytes, place: str) -> str | None:
        """What was sealed for this place; None: it was not, or `ready` was not awaited."""
        from cryptography.exceptions import InvalidTag

        key = self._key
        try:
            return None if key is None else _opened(key, sealed, place.encode()).decode()
        except (InvalidTag, ValueError):
            return None

    def seal_again(self, text: str, place: str, before: Any) -> bytes:
        """`before`, where that is the same text sealed: so that what did not change is equal, byte for byte."""
        if isinstance(before, bytes) and self.open(before, place) == text:
            return before
        return self.seal(text, place)

    def sealed_executor(
        self, job: str, executor: Mapping[str, Any], before: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """A job's executor object, with all that is secret by itself sealed."""
        made = dict(executor)
        if isinstance(made.get("headers"), Mapping):
            made["headers"] = dict(made["headers"])
        former = {} if before is None else {pointer: holder[key] for pointer, holder, key in places(before)}
        for pointer, holder, key in list(places(made)):
            if isinstance(holder[key], str):
                holder[key] = self.seal_again(holder[key], place_in_job(job, pointer), former.get(pointer))  # type: ignore[index]
        return made


def place_in_job(job: str, pointer: str) -> str:
    """What a secret inside a job is sealed for."""
    return f"job\n{job}\n{pointer.lower()}"


def place_of(name: str) -> str:
    """What a named secret is sealed for."""
    return f"secret\n{name}"


def _stretched(secret: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(secret, salt=salt, **COST)


def _opened(key: AESGCM, sealed: bytes, place: bytes) -> bytes:
    return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
