"""Every transition of a run: which state, since when, by which entry of the log, on which node (semantics 3).

A record holds each of them once, where it is needed anyway: the decision and the end in the run, starts in its
attempts, all others in its moves.
"""

from __future__ import annotations

from raftcron.core.model import QUEUED, RUNNING, Move, Run


def transitions(run: Run) -> list[Move]:
    """In the order of the log.  Of a run with very many attempts the oldest are no longer kept."""
    found = [Move(RUNNING, one.started_at or 0, one.started_index or 0, one.node) for one in run.attempts]
    found.extend(run.moves)
    found.sort(key=_index)
    if run.finished_index is None:
        return [_decision(run), *found]
    end = Move(run.state, run.finished_at or 0, run.finished_index, run.node)
    return [end] if run.finished_index == run.log_index else [_decision(run), *found, end]


def _decision(run: Run) -> Move:
    return Move(QUEUED, run.queued_at, run.log_index, None)


def _index(move: Move) -> int:
    return move.index
