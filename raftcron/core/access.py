"""Who may ask: tokens as replicated state keeps them, their roles, and what a caller is known as.

A token is `rct.NAME.SECRET`; only the SHA-256 of the whole text is kept.  The secret has 256 bits of chance, so a plain
hash is enough: there is nothing to guess.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from typing import Final, NamedTuple

from msgspec import Struct

READ: Final = "read"
OPERATE: Final = "operate"
ADMIN: Final = "admin"
ROLES: Final = (READ, OPERATE, ADMIN)  # each may do what those before it may

TOKENS_MAX = 1_000
TOKEN_BYTES_MAX = 256  # of a token's text
SECRET_BYTES = 32
HASH_BYTES = 32
ANONYMOUS = "anonymous"  # who asks a node that wants no token; no token has this name
_PREFIX = "rct."
_NOBODY = bytes(HASH_BYTES)


class AccessToken(Struct, array_like=True, gc=False):
    """A token; `prefix` is what the names of the jobs begin with that it is good for, empty for all."""

    name: str
    hash: bytes
    role: str
    prefix: str
    created_at: int
    created_by: str
    made_at: int  # log index: another token of the same name has another
    digest: int = 0


class Principal(NamedTuple):
    """Who asks: a token's name (or ANONYMOUS, or `node:NAME` for what an operator does on a node's own machine)."""

    name: str
    role: str
    prefix: str = ""
    made_at: int = 0  # log index of the token

    def has_role(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)

    def may_name(self, name: str) -> bool:
        """Whether what has this name is within the prefix."""
        return name.startswith(self.prefix)


EVERYBODY: Final = Principal(ANONYMOUS, ADMIN)


def token_text(name: str, secret: str) -> str:
    """The text that a client shows; `secret` holds no dot."""
    return f"{_PREFIX}{name}.{secret}"


def token_hash(text: str) -> bytes:
    """What the state keeps of a token's text."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def name_in(text: str) -> str | None:
    """The name that a token's text carries; None: it is not of that form."""
    name, dot, secret = text.removeprefix(_PREFIX).rpartition(".")
    return name if dot and name and secret and text.startswith(_PREFIX) and len(text) <= TOKEN_BYTES_MAX else None


def principal_of(token: AccessToken) -> Principal:
    return Principal(token.name, token.role, token.prefix, token.made_at)


def still_known(tokens: dict[str, AccessToken], who: Principal) -> bool:
    """Whether the token that proved somebody at first has not been revoked since."""
    if not who.made_at:
        return True  # nobody's token: an open node, or its operator
    token = tokens.get(who.name)
    return token is not None and token.made_at == who.made_at


def known(tokens: dict[str, AccessToken], text: str) -> Principal | None:
    """Whom a token's text proves, in a time that does not tell how near a wrong one is."""
    name = name_in(text)
    token = None if name is None else tokens.get(name)
    is_right = compare_digest(_NOBODY if token is None else token.hash, token_hash(text))
    return principal_of(token) if token is not None and is_right else None
