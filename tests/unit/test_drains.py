"""Where a drained leader hands the lead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from raftcron.core.commands import Announce, Drain
from raftcron.ports import Log, Member, Standing
from raftcron.runtime.drains import leave_lead
from tests.unit.machine import cluster
from tests.unit.restored import new_machine
from tests.unit.test_listing import applied


@pytest.mark.parametrize(
    ("ending", "drained", "to"),
    [((), (), ["n2"]), (("n2",), (), ["n3"]), ((), ("n2",), ["n3"]), (("n2",), ("n3",), []), (("n2", "n3"), (), [])],
)
async def test_the_lead_goes_to_nobody_who_ends_or_is_drained(
    ending: tuple[str, ...], drained: tuple[str, ...], to: list[str]
) -> None:
    """Who ends would hand it back at once; where nobody is left it stays."""
    hand = cluster()
    for name in ("n2", "n3"):
        hand.done(Announce(name, 1, "", "", "", 10, 10))
    for name in ("n1", *drained):
        hand.done(Drain(name, True, None))
    asked: list[str] = []

    class Stub:
        def status(self) -> Any:
            return SimpleNamespace(
                members=[Member(name, "", True, None, Standing.VOTER) for name in ("n1", "n2", "n3")]
            )

        async def transfer(self, peer: str) -> None:
            asked.append(peer)

    await leave_lead("n1", applied(hand, new_machine()), cast(Log, Stub()), lambda peer: peer in ending)
    assert asked == to
