"""How long a job's runs take and how late they begin, out of the rows that are kept; nothing of it is replicated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftcron.core.model import FAILED, SUCCEEDED, TIMED_OUT, Run
from raftcron.core.rows import Rows

ROWS_MAX = 50  # the newest rows of a job that are looked at, some 2 microseconds each
RAN = frozenset({SUCCEEDED, FAILED, TIMED_OUT})


def statistics(ended: Sequence[str], runs: Rows) -> dict[str, Any]:
    """`durations_ms` and `lateness_ms` of the newest rows among `ended`, oldest first, whose runs ran to an end."""
    rows = [run for run_id in ended[-ROWS_MAX:] if (run := runs.get(run_id)) is not None and run.state in RAN]
    return {
        "durations_ms": _figures([duration for run in rows if (duration := _duration_ms(run)) is not None]),
        "lateness_ms": _figures([lateness for run in rows if (lateness := lateness_ms(run)) is not None]),
    }


def lateness_ms(run: Run) -> int | None:
    """How long after it was due the first attempt that is still on record started."""
    started_at = run.attempts[0].started_at if run.attempts else None
    return None if started_at is None else started_at - run.due_at


def _duration_ms(run: Run) -> int | None:
    """Of its last attempt."""
    last = run.attempts[-1] if run.attempts else None
    return (
        None
        if last is None or last.started_at is None or last.finished_at is None
        else (last.finished_at - last.started_at)
    )


def _figures(values: Sequence[int]) -> dict[str, int] | None:
    """None where nothing has run yet.  A percentile is one of the values: no more than that share lies below it."""
    if not values:
        return None
    ordered = sorted(values)
    return {
        "count": len(values),
        "last": values[-1],
        "mean": round(sum(values) / len(values)),
        **{f"p{share}": ordered[len(ordered) * share // 100] for share in (50, 90, 99)},
        "max": ordered[-1],
    }
