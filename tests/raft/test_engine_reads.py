"""Reads: a question is shared only by those who came before it was asked, and an index is waited for."""

from __future__ import annotations

import asyncio

from raftcron.raft.reads import AppliedWaiters, SharedQuestion


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
