"""Secrets as replicated state keeps them, where a job holds some, and references to them.  No cryptography here.

What is sealed was sealed before the log (runtime/vault.py), so applying it needs neither chance nor the key.  In a
definition a sealed secret is a binary value where the contract has a string, which no JSON body can hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

SECRETS_MAX = 1_000
SECRET_BYTES_MAX = 64 << 10
SEAL_OVERHEAD = 64  # bytes, at most, that sealing adds

VAULT: Final = "vault"
FIELD: Final = "secret"
HEADERS: Final = "headers"
RESOLVED: Final = ("url", "body", HEADERS, "env")  # fields of an executor object in which references count
SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "x-api-key"})

REFERENCE = re.compile(r"\$\{secret:([A-Za-z0-9][A-Za-z0-9._-]{0,127})\}")


class Secret(Struct, array_like=True, gc=False):
    """A named secret; nobody is shown it again."""

    name: str
    sealed: bytes
    revision: int
    created_at: int
    updated_at: int
    digest: int = 0


class VaultKey(Struct, array_like=True, gc=False):
    """The cluster's key, wrapped by what follows from the cluster secret and `salt`."""

    name: str
    wrapped: bytes
    salt: bytes
    index: int  # log index at which it was wrapped like this
    digest: int = 0


def places(executor: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Where this executor object holds what is secret by itself: pointer, object and key."""
    if FIELD in executor:
        yield f"/{FIELD}", executor, FIELD
    headers = executor.get(HEADERS)
    if isinstance(headers, Mapping):
        for name in headers:
            if isinstance(name, str) and name.lower() in SECRET_HEADERS:
                yield f"/{HEADERS}/{name}", headers, name


def pointers(executor: Mapping[str, Any]) -> list[str]:
    """Where it holds some, as JSON pointers below the executor object."""
    return [pointer for pointer, holder, key in places(executor) if holder[key] is not None]


def without(executor: Mapping[str, Any]) -> Mapping[str, Any]:
    """The executor object as anybody may see it."""
    hidden = list(places(executor))
    if not hidden:
        return executor
    shown = {key: value for key, value in executor.items() if key != FIELD}
    if isinstance(shown.get(HEADERS), Mapping):
        shown[HEADERS] = {
            name: value for name, value in shown[HEADERS].items() if str(name).lower() not in SECRET_HEADERS
        }
    return shown


def plain(executor: Mapping[str, Any]) -> Mapping[str, Any]:
    """The executor object without what is sealed: as its executor may judge it."""
    sealed = {pointer for pointer, holder, key in places(executor) if isinstance(holder[key], bytes)}
    if not sealed:
        return executor
    kept = {key: value for key, value in executor.items() if f"/{key}" not in sealed}
    if isinstance(kept.get(HEADERS), Mapping):
        kept[HEADERS] = {name: value for name, value in kept[HEADERS].items() if f"/{HEADERS}/{name}" not in sealed}
    return kept


def has_plain(executor: Any) -> bool:
    """Whether something is to be sealed in what was written of an executor object."""
    return isinstance(executor, Mapping) and any(isinstance(holder[key], str) for _, holder, key in places(executor))


def carried(executor: Any, before: Mapping[str, Any] | None) -> Any:
    """A written executor object with the secrets that it leaves out and `before` has; null removes one."""
    if not isinstance(executor, Mapping):
        return executor
    kept = dict(executor)
    headers = kept.get(HEADERS)
    if isinstance(headers, Mapping):
        kept[HEADERS] = headers = dict(headers)
    if before is not None and before.get("type") == executor.get("type"):
        for _, holder, key in places(before):
            if holder is before:
                kept.setdefault(key, holder[key])
            elif HEADERS not in kept or isinstance(headers, dict):
                headers = kept.setdefault(HEADERS, {}) if headers is None else headers
                if key.lower() not in {str(name).lower() for name in headers}:
                    headers[key] = holder[key]
    for _, holder, key in list(places(kept)):
        if holder[key] is None:
            del holder[key]  # type: ignore[attr-defined]
    return kept


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Pointers of secrets that only one of them has, or that differ; one that is not sealed yet counts as another."""
    former = {pointer: holder[key] for pointer, holder, key in places(before)}
    latter = {pointer: holder[key] for pointer, holder, key in places(after)}
    return [pointer for pointer in {**former, **latter} if former.get(pointer) != latter.get(pointer)]


def is_secretive(executor: Mapping[str, Any]) -> bool:
    """Whether an attempt needs something that is kept secret."""
    return bool(pointers(executor)) or any(field in executor and references(executor[field]) for field in RESOLVED)


def references(value: Any) -> set[str]:
    """The names of all secrets that texts anywhere in this value refer to."""
    if isinstance(value, str):
        return set(REFERENCE.findall(value)) if "${secret:" in value else set()
    if isinstance(value, Mapping):
        return set().union(*(references(one) for one in value.values())) if value else set()
    if isinstance(value, list | tuple):
        return set().union(*(references(one) for one in value)) if value else set()
    return set()
