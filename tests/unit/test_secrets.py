"""Where a job holds secrets, what is kept of them by a write, and what an attempt gets in their place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raftcron.core import commands as c
from raftcron.core import vault as rules
from raftcron.errors import ConflictError
from raftcron.executors.registry import Registry
from raftcron.ports import Ending
from raftcron.runtime.machine import Machine
from raftcron.runtime.resolver import Resolver, SecretError
from raftcron.runtime.vault import Vault, place_in_job, place_of
from tests.unit.machine import Machine as Hand

HTTP: dict[str, Any] = {"type": "http", "url": "http://127.0.0.1/x"}
SEALED: dict[str, Any] = {**HTTP, "secret": b"s", "headers": {"Authorization": b"a", "X-Team": "db"}}


# ---- places ---------------------------------------------------------------------------------------------------------


def test_what_is_secret_by_itself_is_found_and_hidden() -> None:
    """The signing secret and three headers, in any case of letters."""
    executor = {
        **HTTP,
        "secret": "s",
        "headers": {"authorization": "a", "COOKIE": "b", "X-Api-Key": "c", "X-Team": "d"},
    }
    assert rules.pointers(executor) == ["/secret", "/headers/authorization", "/headers/COOKIE", "/headers/X-Api-Key"]
    assert rules.without(executor) == {**HTTP, "headers": {"X-Team": "d"}}
    assert rules.without(HTTP) is HTTP


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (HTTP, {**HTTP, "secret": b"s", "headers": {"Authorization": b"a"}}),
        ({**HTTP, "headers": {"X": "x"}}, {**HTTP, "secret": b"s", "headers": {"X": "x", "Authorization": b"a"}}),
        ({**HTTP, "secret": None}, {**HTTP, "headers": {"Authorization": b"a"}}),
        ({**HTTP, "headers": {"authorization": None}}, {**HTTP, "secret": b"s", "headers": {}}),
        ({**HTTP, "headers": {"AUTHORIZATION": "new"}}, {**HTTP, "secret": b"s", "headers": {"AUTHORIZATION": "new"}}),
        ({**HTTP, "headers": None, "secret": "n"}, {**HTTP, "headers": None, "secret": "n"}),
        ({"type": "shell", "command": "x"}, {"type": "shell", "command": "x"}),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_left_out_is_kept_and_null_removes(written: dict[str, Any], kept: dict[str, Any]) -> None:
    """A PUT of what was got changes nothing; another type of executor takes nothing over."""
    before = dict(written)
    assert rules.carried(written, SEALED) == kept
    assert written == before


def test_an_executor_judges_no_sealed_value() -> None:
    """What is sealed was judged when it was written."""
    assert rules.plain(SEALED) == {**HTTP, "headers": {"X-Team": "db"}}
    assert rules.has_plain({**HTTP, "secret": "s"})
    assert not rules.has_plain(SEALED)
    assert not rules.has_plain(None)


def test_references_are_names_and_nothing_else() -> None:
    """`${secret:-x}` is plain shell; a slash or a dot in front is no name."""
    texts = [
        "${secret:a}${secret:b.c-d_1}",
        "${secret:-x} ${secret:../x} ${secret:.x} ${secret:} $secret:a",
        {"x": ["${secret:e}"]},
    ]
    assert rules.references(texts) == {"a", "b.c-d_1", "e"}


# ---- the vault ------------------------------------------------------------------------------------------------------


class Pen:
    """Proposes at once."""

    def __init__(self, hand: Hand) -> None:
        self.hand = hand

    async def propose(self, command: c.Command, origin: Any = None) -> Any:
        return self.hand.write(command)


class Held(Machine):
    """A machine whose state is that of a hand on its log."""

    def __init__(self, hand: Hand) -> None:
        self.state = hand.state


def vault_of(hand: Hand, secret: bytes = b"secret", previous: bytes = b"") -> Vault:
    return Vault(machine=Held(hand), proposer=Pen(hand), secret=secret, previous=previous, entropy=os.urandom)  # type: ignore[arg-type]


def begun() -> Hand:
    hand = Hand()
    hand.lead()
    return hand


async def test_a_sealed_text_opens_on_every_node_of_the_secret_and_for_its_place() -> None:
    """Nonces differ, places bind, nothing of the text is in the log."""
    hand = begun()
    vault = vault_of(hand)
    await vault.ready_to_seal()
    first, second = vault.seal("hunter2", place_of("a")), vault.seal("hunter2", place_of("a"))
    assert first != second
    other = vault_of(hand)
    assert other.open(first, place_of("a")) is None, "it has not read the key yet"
    await other.ready()
    assert other.open(first, place_of("a")) == "hunter2"
    assert other.open(first, place_of("b")) is None
    assert other.open(first[:-1], place_of("a")) is None
    assert other.open(b"", place_of("a")) is None
    assert vault.seal_again("hunter2", place_of("a"), first) == first
    assert vault.seal_again("other", place_of("a"), first) != first
    assert len(hand.state.vault) == 1


async def test_another_cluster_secret_opens_nothing_and_says_what_to_do() -> None:
    """Nor is a new key made in the place of the one that there is."""
    hand = begun()
    await vault_of(hand).ready_to_seal()
    with pytest.raises(ConflictError, match="PREVIOUS_CLUSTER_SECRET"):
        await vault_of(hand, b"other").ready_to_seal()


async def test_after_a_change_of_the_cluster_secret_the_key_is_wrapped_anew() -> None:
    """Once; then the former secret may go, and what was sealed opens as before."""
    hand = begun()
    vault = vault_of(hand)
    await vault.ready_to_seal()
    sealed = vault.seal("hunter2", place_of("a"))
    changed = vault_of(hand, b"new", b"secret")
    await changed.renew()
    entries = len(hand.log)
    await changed.renew()
    assert len(hand.log) == entries
    after = vault_of(hand, b"new")
    await after.ready()
    assert after.open(sealed, place_of("a")) == "hunter2"
    with pytest.raises(ConflictError):
        await vault_of(hand).ready()


# ---- resolving ------------------------------------------------------------------------------------------------------


async def resolver(hand: Hand, directory: Path | None = None) -> tuple[Resolver, Vault]:
    vault = vault_of(hand)
    await vault.ready_to_seal()
    registry = Registry()
    return (
        Resolver(
            node="n1",
            machine=Held(hand),
            vault=vault,
            directory=directory,
            judge=lambda spec: [fault.pointer for fault in registry.validate(spec)],
        ),
        vault,
    )


def keep(hand: Hand, vault: Vault, name: str, text: str) -> None:
    hand.done(c.PutSecret(name, vault.seal(text, place_of(name)), 0))


async def test_every_place_gets_its_secret(tmp_path: Path) -> None:
    """Sealed values, and references in url, headers, body and env; the node's directory comes first."""
    hand = begun()
    found, vault = await resolver(hand, tmp_path)
    for name in ("a", "b"):
        keep(hand, vault, name, f"kept-{name}")
    (tmp_path / "b").write_text("own-b\n")
    sealed = vault.seal("Bearer ${secret:a}", place_in_job("j", "/headers/Authorization"))
    executor = {
        **HTTP,
        "url": "http://127.0.0.1/${secret:a}?k=${secret:b}",
        "headers": {"Authorization": sealed, "X": "1"},
        "body": "${secret:a}${secret:a}",
    }
    resolved = await found.resolve("j", executor)
    assert resolved.executor == {
        **HTTP,
        "url": "http://127.0.0.1/kept-a?k=own-b",
        "headers": {"Authorization": "Bearer kept-a", "X": "1"},
        "body": "kept-akept-a",
    }
    env = await found.resolve("j", {"type": "shell", "command": "x", "env": {"K": "${secret:a}", "P": "${HOME}"}})
    assert env.executor["env"] == {"K": "kept-a", "P": "${HOME}"}


async def test_what_a_run_shows_of_a_secret_is_blotted_out() -> None:
    """In its error and in its output."""
    hand = begun()
    found, vault = await resolver(hand)
    keep(hand, vault, "a", "hunter2")
    resolved = await found.resolve("j", {**HTTP, "body": "${secret:a}"})
    ending = resolved.hide(Ending("failed", error="bad hunter2!", output_tail=b"it is hunter2\n"))
    assert (ending.error, ending.output_tail) == ("bad [secret]!", b"it is [secret]\n")


@pytest.mark.parametrize(
    ("executor", "said"),
    [
        ({**HTTP, "body": "${secret:none}"}, "the secret 'none' is neither in"),
        ({**HTTP, "headers": {"X": "${secret:lines}"}}, "/headers/X of the job's executor is not valid"),
        ({**HTTP, "url": "http://127.0.0.1/${secret:lines}"}, "/url of the job's executor is not valid"),
        ({**HTTP, "secret": b"of another place" * 4}, "/secret of the job's executor was not sealed for this place"),
        ({**HTTP, "body": "${secret:binary}"}, "is not UTF-8"),
        ({**HTTP, "body": "${secret:large}"}, "more than 65536 bytes"),
        ({**HTTP, "body": "${secret:folder}"}, "cannot be read"),
    ],
)
async def test_what_cannot_be_had_is_named_and_not_shown(tmp_path: Path, executor: dict[str, Any], said: str) -> None:
    """Which one, where it was looked for, what to do; never a value."""
    hand = begun()
    found, vault = await resolver(hand, tmp_path)
    keep(hand, vault, "lines", "hunter\r\n2")
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SecretError) as raised:
        await found.resolve("j", executor)
    assert said in raised.value.detail
    assert "hunter" not in raised.value.detail
    assert "n1" in raised.value.detail or "secret" in raised.value.detail


async def test_without_any_key_a_sealed_value_says_so() -> None:
    """A restored job, say, whose cluster has another key."""
    hand = begun()
    found = Resolver(node="n1", machine=Held(hand), vault=vault_of(hand), directory=None, judge=lambda spec: [])
    with pytest.raises(SecretError, match="no key"):
        await found.resolve("j", {**HTTP, "secret": b"x" * 40})


def test_secrets_in_the_state_are_bounded_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only beside a key, of a size, under a name, at the revision that was seen."""
    hand = begun()
    assert hand.refused(c.PutSecret("a", b"x", 0)) == "conflict"
    hand.done(c.KeepKey(b"wrapped", b"salt"))
    assert hand.refused(c.KeepKey(b"wrapped", b"salt")) == "stale"
    assert hand.refused(c.PutSecret("a/b", b"x", 0)) == "invalid"
    assert hand.refused(c.PutSecret("a", b"x" * 70_000, 0)) == "invalid"
    assert hand.done(c.PutSecret("a", b"x", 0)).status == 201
    assert hand.refused(c.PutSecret("a", b"y", 0)) == "stale"
    assert hand.done(c.PutSecret("a", b"y", hand.state.secrets["a"].revision)).status == 200
    monkeypatch.setattr("raftcron.core.apply.secrets.SECRETS_MAX", 1)
    assert hand.refused(c.PutSecret("b", b"x", 0)) == "too_many"
    hand.done(c.DeleteSecret("a"))
    assert hand.refused(c.DeleteSecret("a")) == "not_found"
