"""Tokens in replicated state: made, replaced, revoked, and who a text proves to be."""

from __future__ import annotations

from raftcron.core import access
from raftcron.core import commands as c
from raftcron.core.access import known, token_hash, token_text
from tests.unit.machine import Machine

TEXT = token_text("ci", "s3cret")


def create(name: str = "ci", text: str = TEXT, role: str = "read", *, replaces: bool = False) -> c.CreateToken:
    return c.CreateToken(name, token_hash(text), role, "", "somebody", replaces)


def begun() -> Machine:
    machine = Machine()
    machine.lead()
    return machine


def test_a_token_proves_its_name_and_nothing_else_does() -> None:
    """The whole text counts; only its hash is kept."""
    machine = begun()
    machine.done(create())
    who = known(machine.state.tokens, TEXT)
    assert who is not None
    assert (who.name, who.role, who.made_at) == ("ci", "read", 2)
    assert who.has_role("read")
    assert not who.has_role("operate")
    others = ("", "rct.", "rct.ci", "rct.ci.", "rct.ci.s3cre", "ci.s3cret", TEXT + " ", TEXT.upper(), "rct.xx.s3cret")
    assert [known(machine.state.tokens, text) for text in others] == [None] * len(others)
    assert known(machine.state.tokens, "rct.ci." + "é" * 300) is None
    assert all(b"s3cret" not in body for body in machine.log)


def test_a_name_is_taken_once_and_free_after_a_revocation() -> None:
    """Another token of the same name is another token."""
    machine = begun()
    machine.done(create())
    assert machine.refused(create(text="rct.ci.other")) == "exists"
    machine.done(c.DeleteToken("ci"))
    assert machine.refused(c.DeleteToken("ci")) == "not_found"
    assert known(machine.state.tokens, TEXT) is None
    machine.done(create(text="rct.ci.other"))
    assert known(machine.state.tokens, TEXT) is None


def test_an_operator_replaces_a_lost_token() -> None:
    """Where `replaces` says so the former one is worth nothing from then on."""
    machine = begun()
    machine.done(create(role="admin"))
    machine.done(create(text="rct.ci.other", role="admin", replaces=True))
    assert known(machine.state.tokens, TEXT) is None
    assert known(machine.state.tokens, "rct.ci.other") is not None


def test_tokens_are_bounded_and_their_words_checked() -> None:
    """No role, hash, prefix or name that makes no sense; none called as who brings no token."""
    machine = begun()
    assert machine.refused(create(role="root")) == "invalid"
    assert machine.refused(create(name="anonymous")) == "invalid"
    assert machine.refused(create(name="a/b")) == "invalid"
    assert machine.refused(c.CreateToken("a", b"short", "read", "", "")) == "invalid"
    assert machine.refused(c.CreateToken("a", bytes(32), "read", "-", "")) == "invalid"
    for number in range(access.TOKENS_MAX):
        machine.done(create(name=f"t{number}"))
    assert machine.refused(create()) == "too_many"
    machine.done(create(name="t1", replaces=True))


def test_a_prefix_is_what_names_begin_with() -> None:
    """An empty one is everything."""
    machine = begun()
    machine.done(c.CreateToken("ci", token_hash(TEXT), "operate", "team-a.", ""))
    who = known(machine.state.tokens, TEXT)
    assert who is not None
    assert who.may_name("team-a.backup")
    assert not who.may_name("team-b.backup")
    assert access.EVERYBODY.may_name("anything")
