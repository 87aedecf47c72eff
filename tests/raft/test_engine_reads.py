"""Reads: a question is shared only by those who came before it was asked, and an index is waited for."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from raftcron.raft.reads import TIDY_WAITERS, AppliedWaiters, Reads, SharedQuestion


class Asker:
    """Keeps the numbers of the questions that were asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.question = SharedQuestion(asyncio.get_running_loop(), self.asked.append)


async def turn() -> None:
    """One turn of the loop."""
    await asyncio.sleep(0)


async def test_those_who_come_together_share_one_question() -> None:
    """It is asked in the loop's next turn, once for all of them."""
    asker = Asker()
    futures = [asker.question.join() for _ in range(3)]
    assert asker.asked == []
    await turn()
    assert asker.asked == [1]
    asker.question.answer(1, 7)
    assert [await future for future in futures] == [7, 7, 7]


async def test_whoever_comes_while_a_question_is_out_waits_for_the_next() -> None:
    """Its answer may be older than what the newcomer has been told of."""
    asker = Asker()
    early = asker.question.join()
    await turn()
    late = asker.question.join()
    await turn()
    assert asker.asked == [1]
    asker.question.answer(1, 7)
    await turn()
    assert asker.asked == [1, 2]
    asker.question.answer(2, 8)
    assert (await early, await late) == (7, 8)


async def test_an_answer_to_another_question_is_too_late() -> None:
    """Numbers tell an old answer from the one that is waited for."""
    asker = Asker()
    first = asker.question.join()
    await turn()
    asker.question.answer(1, 7)
    second = asker.question.join()
    await turn()
    asker.question.answer(1, 7)
    await turn()
    assert first.done()
    assert not second.done()
    asker.question.answer(2, 9)
    assert await second == 9


async def test_a_dropped_question_has_no_answer_and_does_not_block_the_next() -> None:
    """After a change of leader the readers ask again."""
    asker = Asker()
    future = asker.question.join()
    await turn()
    asker.question.drop()
    assert await future is None
    assert asker.question.number is None
    asker.question.join()
    await turn()
    assert asker.asked == [1, 2]


async def test_a_reader_that_went_away_disturbs_nobody() -> None:
    """Each reader has a future of its own."""
    asker = Asker()
    gone, staying = asker.question.join(), asker.question.join()
    await turn()
    gone.cancel()
    asker.question.answer(1, 7)
    assert await staying == 7


async def test_an_index_is_waited_for() -> None:
    """Each waits for its own, in whatever order they came; one that gave up is passed over."""
    waiters = AppliedWaiters(asyncio.get_running_loop())
    nine, seven, gone = waiters.add(9), waiters.add(7), waiters.add(7)
    gone.cancel()
    waiters.reached(8)
    assert (seven.done(), nine.done()) == (True, False)
    waiters.reached(9)
    assert nine.done()


async def test_who_has_given_up_is_not_kept() -> None:
    """A node that fetches a snapshot for long is asked all the while, and holds only those who wait still."""
    waiters = AppliedWaiters(asyncio.get_running_loop())
    patient = [waiters.add(9) for _ in range(700)]
    for _ in range(5_000):
        waiters.add(8).cancel()
    assert len(waiters._heap) < 2 * TIDY_WAITERS
    waiters.reached(9)
    assert all(future.done() for future in patient)


class Leader:
    """What a read knows of an engine that leads."""

    is_leader, leader, term, applied_index = True, "n1", 5, 7

    def __init__(self) -> None:
        self.commit_index = 7

    def observe_term(self, term: int) -> None:
        self.term = term


class Rounds:
    """The reads of n1, which leads among n1 to n3, with what it sends kept."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any]] = []
        self.leader = Leader()
        self.uncounted: set[str] = set()  # whose seat is another directory's
        self.reads = Reads(
            "n1",
            ["n2", "n3"],
            self.leader,
            send=self.send,
            connected=lambda _: True,
            counts=lambda peer: peer not in self.uncounted,
            may_confirm=lambda: True,
            loop=asyncio.get_running_loop(),
        )

    def send(self, peer: str, kind: str, message: Any) -> bool:
        self.sent.append((peer, kind, message))
        return True

    def echo(self, peer: str, number: int = 1) -> None:
        self.reads.kinds["echo"](peer, {"term": 5, "number": number})

    def ask(self, peer: str) -> None:
        """The first question of a life of this peer."""
        self.reads.kinds["read"](peer, {"number": 1})

    def answers(self, peer: str) -> list[Any]:
        return [message["index"] for to, kind, message in self.sent if (to, kind) == (peer, "index")]

    async def begin(self) -> asyncio.Task[int | None]:
        task = asyncio.ensure_future(self.reads.index())
        while not self.sent:
            await turn()
        return task


async def test_a_round_asks_and_counts_voters_alone() -> None:
    """A learner's echo confirms no lead."""
    rounds = Rounds()
    rounds.reads.set_voters(["n1", "n2", "n3", "n4"])
    task = await rounds.begin()
    assert [peer for peer, *_ in rounds.sent] == ["n2", "n3", "n4"]
    rounds.echo("n2")
    rounds.echo("learner")
    await turn()
    assert not task.done()
    rounds.echo("n4")
    assert await task == 7


async def test_an_echo_from_another_directory_than_the_seats_confirms_nothing() -> None:
    """Whoever has lost its seat and comes back under its name may hold nothing of what was acknowledged since."""
    rounds = Rounds()
    rounds.uncounted = {"n2"}
    task = await rounds.begin()
    rounds.echo("n2")
    await turn()
    assert not task.done()
    assert rounds.reads.passes["echo not counted (another directory)"] == 1
    rounds.uncounted = set()
    rounds.echo("n2")
    assert await task == 7


async def test_voters_may_change_while_a_round_is_out() -> None:
    """Of those that echoed only the ones count that vote now; where they are enough, the round is over."""
    rounds = Rounds()
    rounds.reads.set_voters(["n1", "n2", "n3", "n4", "n5"])
    task = await rounds.begin()
    rounds.echo("n5")
    rounds.reads.set_voters(["n1", "n2", "n3", "n4"])
    rounds.echo("n4")
    await turn()
    assert not task.done()
    rounds.reads.set_voters(["n1", "n3", "n4"])
    assert await task == 7


async def test_a_new_life_is_not_told_what_its_former_life_asked() -> None:
    """Both count their questions from 1; what committed between the two would be missing from the answer."""
    rounds = Rounds()
    rounds.reads.connected("n2")
    rounds.ask("n2")
    await turn()  # a round begins, and is not answered yet
    rounds.leader.commit_index = 8
    rounds.reads.connected("n2")
    rounds.ask("n2")
    rounds.echo("n3")
    await turn()
    await turn()
    assert rounds.answers("n2") == []
    rounds.echo("n3", number=2)
    await turn()
    assert rounds.answers("n2") == [8]


async def test_an_echo_of_another_term_or_round_confirms_nothing() -> None:
    """Of a newer term this node learns, of a former one and of a round that is over it needs nothing."""
    rounds = Rounds()
    task = await rounds.begin()
    rounds.reads.kinds["echo"]("n2", {"term": 4, "number": 1})
    rounds.echo("n2", number=2)
    rounds.reads.kinds["echo"]("n2", {"term": 6, "number": 1})
    await turn()
    assert not task.done()
    assert rounds.leader.term == 6
    assert +Counter(rounds.reads.passes) == {
        "echo not counted (newer term)": 1,
        "echo not counted (former term)": 1,
        "echo not counted (late)": 1,
    }
    task.cancel()
