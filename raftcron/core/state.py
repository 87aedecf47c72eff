"""All that the log has made: jobs, runs, nodes, keys and counters, with read-only questions and the digest.

Only `core.apply` changes it.  One object on three floors, each a noun and a room of its own: records.py, which rows are
kept (history.py), where active runs stand (queues.py).  They are classes that build on each other and not parts of one
another, since `apply` goes through them several times a run.

Records, counters and orders are what a snapshot carries (image.py); the rest is derived.  An index of runs whose order
the records do not tell: a line in ORDERS and `restore`.  With it, with a new kind of record, and with a new field of
one (behind all others, with a default), IMAGE_VERSION rises: an older release refuses what it would lose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raftcron.core.model import ENDED, Job, Key, Run
from raftcron.core.queues import Queues
from raftcron.core.rows import Line, end_of

DIGESTS_KEPT = 1024  # pairs of (index, digest) that a node can be asked for, of each kind
KEYS_KEPT = 200_000  # idempotency keys; about 200 bytes each
KEY_YOUTH_MS = 120_000  # a key younger than this never leaves for want of room
KEY_LIFE_MS = 24 * 3600 * 1000
ORDER_SLICE = 2_000  # ids, some 2 ms of work for whoever takes them in

ORDERS = ("orphans", "tails", "queued", "held", "waiting", "on_node", "taken_over", "history", "ordinary", "failures")


class State(Queues):
    """The state after `index` entries of the log."""

    # ---- idempotency keys

    @property
    def keys_are_full(self) -> bool:
        """Whether a further key could only be kept at the cost of one that is too young to leave."""
        if len(self.keys) < KEYS_KEPT:
            return False
        return next(iter(self.keys.values())).at + KEY_YOUTH_MS > self.cluster_time

    def keep_key(self, key: Key) -> None:
        """Remember an idempotency key; keys older than a day of cluster time leave, and the oldest beyond the bound."""
        known = self.keys.pop(key.scope, None)
        if known is not None:
            self.forget(known)
        self.keys[key.scope] = key
        self.touch(key)
        while self.keys:
            oldest = next(iter(self.keys.values()))
            if len(self.keys) <= KEYS_KEPT and oldest.at + KEY_LIFE_MS > self.cluster_time:
                break
            del self.keys[oldest.scope]
            self.forget(oldest)

    # ---- the whole, for image.py alone

    def containers(self) -> list[Any]:
        """All that it holds, for whoever lets go of a million records slice by slice."""
        nested = (self.runs, self.ordinary, self.failures)
        return [*vars(self).values(), *(part for one in nested for part in one.containers())]

    def order(self, name: str) -> Iterable[tuple[str | int, list[str]]]:
        """One of ORDERS as lists of run ids, by node or uid; of the history only what the order of rows does not tell.

        Those that belong to nothing come ORDER_SLICE at a time.
        """
        if name == "on_node":
            return ((node, list(runs)) for node, runs in self.on_node.items())
        if name == "history":
            rows_of = ((job.uid, self.history.get(job.uid, ())) for job in self.jobs.values())
            return ((uid, list(rows)) for uid, rows in rows_of if not self._is_in_order(rows))
        held = getattr(self, name)
        ids = held.ids(self.runs) if isinstance(held, Line) else list(held)
        return (("", ids[at : at + ORDER_SLICE]) for at in range(0, len(ids), ORDER_SLICE))

    def restore_run(self, run: Run, job: Job | None) -> None:
        """The next row, into what the order of rows tells."""
        if run.split is not None:
            self.divided[run.id] = run.split.names
        if run.state not in ENDED:
            self._note_active(run)
        elif job is not None and run.part is None:
            rows = self.history.get(run.uid)
            if rows is not None:
                rows.append(run.id)
            elif job.last_run != run.id:
                last = None if job.last_run is None else self.runs.get(job.last_run)
                is_behind = last is not None and last.state in ENDED and last.log_index < run.log_index
                self.history[run.uid] = [job.last_run, run.id] if is_behind and job.last_run else [run.id]
        if not self._is_last(run) and (packed := self.runs.packed(run.id)) is not None:
            self.history_bytes += end_of(packed)[0]
        self.tails_bytes += len(run.output_tail)

    def restore(self, name: str, key: str | int, ids: list[str]) -> None:
        """The next list of one of ORDERS; all rows are there.  KeyError: one that should be is not."""
        if name == "history":
            self.history[int(key)] = ids
        elif name in ("orphans", "tails", "ordinary", "failures"):
            getattr(self, name).extend(ids)
        else:
            if name == "on_node":
                self.on_node[str(key)] = {}  # also where nothing runs now
            for run_id in ids:
                self._index(self.runs[run_id])
