"""The journal through any history: whatever is written, and however lives end, what comes back is no older than synced.

`journal_model.Model` says what may come back.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.raft.journal_model import Model
from tests.raft.memory_disk import Died, MemoryDisk


class AnyHistory(RuleBasedStateMachine):
    """Entries, cuts, votes, snapshots, timers, shortages, deaths in any call and power cuts, in any order."""

    @initialize(segment_bytes=st.sampled_from([100, 400, 1 << 20]))
    def begin(self, segment_bytes: int) -> None:
        self.disk = MemoryDisk()
        self.model = Model(self.disk, segment_bytes)
        self.model.open()

    def attempt(self, action: Callable[[], object]) -> None:
        """A process that dies meanwhile starts again."""
        try:
            action()
        except Died:
            self.model.recover(None if self.survives else self.reaches_disk)

    survives = True

    def reaches_disk(self) -> bool:
        return next(self.pages, False)

    @rule(calls=st.integers(0, 12), pages=st.lists(st.booleans(), max_size=12), survives=st.booleans())
    def die_soon(self, calls: int, pages: list[bool], survives: bool) -> None:
        self.disk.dies_at = len(self.disk.calls) + calls
        self.pages = iter(pages)
        self.survives = survives

    @rule(command=st.binary(max_size=60), newer=st.booleans())
    def add(self, command: bytes, newer: bool) -> None:
        self.attempt(lambda: self.model.add(command, newer))

    @precondition(lambda self: self.model.can_cut())
    @rule(share=st.floats(0, 1, exclude_max=True))
    def cut(self, share: float) -> None:
        self.attempt(lambda: self.model.cut(share))

    @rule(step=st.integers(1, 3), voted_for=st.sampled_from([None, "n1", "n2"]))
    def vote(self, step: int, voted_for: str | None) -> None:
        self.attempt(lambda: self.model.vote(step, voted_for))

    @rule()
    def join(self) -> None:
        self.attempt(self.model.join)

    @rule()
    def sync(self) -> None:
        self.attempt(self.model.sync)

    @rule()
    def commit(self) -> None:
        self.attempt(self.model.commit_all)

    @precondition(lambda self: self.model.can_compact())
    @rule(snapshot=st.floats(0, 1), kept=st.floats(0, 1))
    def compact(self, snapshot: float, kept: float) -> None:
        self.attempt(lambda: self.model.compact(snapshot, kept))

    @rule(ahead=st.integers(0, 5))
    def reset(self, ahead: int) -> None:
        self.attempt(lambda: self.model.reset(ahead))

    @rule()
    def second(self) -> None:
        self.attempt(self.model.second)

    @rule()
    def shortage(self) -> None:
        self.model.shortage()

    @rule()
    def close(self) -> None:
        self.attempt(self.model.close)

    @rule(pages=st.lists(st.booleans(), max_size=12))
    def cut_power(self, pages: list[bool]) -> None:
        kept = iter(pages)
        self.model.recover(lambda: next(kept, False))

    @invariant()
    def holds(self) -> None:
        self.model.check()


AnyHistory.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None, derandomize=True)
TestAnyHistory = AnyHistory.TestCase


def _script(seed: int) -> Callable[[Model], None]:
    """A life of many small segments: the same for the same seed, whatever happens to it."""

    def play(model: Model) -> None:
        chance = random.Random(seed)
        steps: dict[str, Callable[[], object]] = {
            "add": lambda: model.add(chance.randbytes(chance.randrange(40)), chance.random() < 0.1),
            "sync": model.sync,
            "commit": model.commit_all,
            "cut": lambda: model.can_cut() and model.cut(chance.random()),
            "vote": lambda: model.vote(chance.randint(1, 2), chance.choice([None, "n1"])),
            "compact": lambda: model.can_compact() and model.compact(chance.random(), chance.random()),
            "reset": lambda: model.reset(chance.randrange(4)),
            "second": model.second,
            "shortage": model.shortage,
            "close": model.close,
        }
        weights = [30, 8, 5, 6, 3, 8, 1, 3, 2, 1]
        model.open()
        model.join()
        for step in chance.choices(list(steps), weights, k=150):
            steps[step]()
            model.check()

    return play


@pytest.mark.parametrize("seed", range(16))
def test_power_cut_in_every_call(seed: int) -> None:
    """The process dies in each call of the disk, the power with it or not, and again while the journal is opened.

    Any pages, names and removals have reached the disk: nothing that was synced is lost, and life goes on.
    """
    play = _script(seed)
    whole = MemoryDisk()
    play(Model(whole, 300))
    assert {"create", "remove", "sync_directory"} <= set(whole.calls)
    for stop in range(len(whole.calls)):
        chance = random.Random(stop)
        disk = MemoryDisk()
        disk.page_bytes = chance.choice([16, 64, 4096])
        share = chance.choice([0.0, 0.5, 0.9, 1.0])
        model = Model(disk, 300)
        disk.dies_at = stop
        with pytest.raises(Died):
            play(model)
        for _ in range(2):
            if chance.random() < 0.4:
                disk.kill()
            else:
                disk.cut_power(lambda chance=chance, share=share: chance.random() < share)
            disk.dies_at = len(disk.calls) + chance.randrange(8)
            try:
                model.open()
                break
            except Died:
                pass
        model.recover(lambda chance=chance, share=share: chance.random() < share)
        model.add(b"on it goes")
        model.commit_all()
        model.compact(1.0, 1.0)
        model.close()
        assert model.state.log[-1][0] in {b"on it goes", b""}
