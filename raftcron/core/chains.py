"""Chains of jobs: which ends of a parent count, and why a job cannot be after another.  What ends start: core/apply.

The graph is one of names: a parent that is deleted and created again under its name is followed as before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping

from raftcron.core.instant import shown
from raftcron.core.model import CANCELLED, FAILED, LOST, SUCCEEDED, TIMED_OUT, Job
from raftcron.core.state import State
from raftcron.errors import Fault

ON_SUCCESS, ON_FAILURE = "success", "failure"
ENDS = {  # what `on` asks for -> the ends that count; a run that was skipped has no end
    ON_SUCCESS: frozenset({SUCCEEDED}),
    ON_FAILURE: frozenset({FAILED, TIMED_OUT, LOST}),
    "any": frozenset({SUCCEEDED, FAILED, TIMED_OUT, LOST, CANCELLED}),
}
CHILDREN_MAX = 100  # jobs after one: an entry with the ends of many runs starts so many times as many
WALK_MAX = 50_000  # steps from job to job that are looked at for a cycle, some 20 ms

After = tuple[tuple[str, str], ...]


def faults(state: State, name: str, after: After, kept: After = ()) -> list[Fault]:
    """Why the job `name`, which is after `kept` by now, cannot be after these."""
    return [*impossible(state, {name: after}).get(name, []), *missing(state, name, after, kept)]


def missing(state: State, name: str, after: After, kept: After = (), coming: Container[str] = ()) -> list[Fault]:
    """Parents that nobody bears the name of.

    One may come with the same request, and one that the job is after already (`kept`) was deleted, which must not
    stand in the way of an edit.
    """
    found: list[Fault] = []
    known = {parent for parent, _ in kept}
    for place, (parent, _) in enumerate(after):
        if parent not in state.jobs and parent not in known and parent not in coming and parent != name:
            # no hint at what was meant: whoever asks may not be one to see other names
            found.append(Fault(f"/after/{place}/job", f"there is no job {shown(parent)}: create it first"))
    return found


def impossible(state: State, edits: Mapping[str, After]) -> dict[str, list[Fault]]:
    """By job, what must never come true of these edits, taken together, whatever else changes.

    That is a cycle, or too many jobs after one.  A job that goes is an edit with no parents.  Empty: all is well.
    """
    found: defaultdict[str, list[Fault]] = defaultdict(list)
    graph = _Graph(state, edits)
    try:
        cycles = graph.cycles(edits)
    except _TooMany:
        cycles = []
        for name in edits:
            found[name].append(Fault("/after", f"more than {WALK_MAX:,} steps lead from it to the jobs after it"))
    for cycle in cycles:
        name = next(job for job in cycle if job in edits)  # what was there before has no cycle
        at = cycle.index(name)
        around = [*cycle[at:], *cycle[:at]]
        place = [parent for parent, _ in edits[name]].index(around[-1])
        way = " -> ".join([*around, name])
        found[name].append(
            Fault(f"/after/{place}/job", f"closes a cycle, in which each job would start the next: {way}")
        )
    for name, after in edits.items():
        for place, (parent, _) in enumerate(after):
            if len(graph.children(parent)) > CHILDREN_MAX and name not in graph.before(parent):
                message = (
                    f"{shown(parent)} has {CHILDREN_MAX} jobs after it already: put a job between, which they follow"
                )
                found[name].append(Fault(f"/after/{place}/job", message))
    return dict(found)


def counts(on: str, end: str) -> bool:
    """Whether a run that ended in this state is an end that `on` asks for."""
    return end in ENDS[on]


def still_joined(job: Job, before: After, after: After, join: str) -> tuple[tuple[str, str], ...]:
    """What the job keeps of what it has gathered for `join: all`, where an edit changes which jobs it is after."""
    same = set(before) & set(after) if join == "all" else set()
    names = {parent for parent, _ in same}
    return tuple(pair for pair in job.joined if pair[0] in names)


class _TooMany(Exception):
    """The walk is longer than WALK_MAX."""


class _Graph:
    """Which jobs are after which, by name, once the edits are made."""

    def __init__(self, state: State, edits: Mapping[str, After]) -> None:
        self._state = state
        self._edits = edits
        self._added: defaultdict[str, list[str]] = defaultdict(list)
        for name, after in edits.items():
            for parent, _ in after:
                self._added[parent].append(name)

    def before(self, name: str) -> list[str]:
        """The jobs that are after `name` as it is."""
        return [self._state.by_uid[uid].name for uid in sorted(self._state.children.get(name, ()))]

    def children(self, name: str) -> list[str]:
        """The jobs that will be."""
        return [child for child in self.before(name) if child not in self._edits] + self._added.get(name, [])

    def cycles(self, names: Iterable[str]) -> list[list[str]]:
        """Ways round that lead through these, each as the names in order; every job is looked at once.

        Raises _TooMany.
        """
        found: list[list[str]] = []
        done: set[str] = set()
        steps = 0
        for name in names:
            if name in done:
                continue
            path = {name: iter(self.children(name))}
            while path:
                parent = next(reversed(path))
                child = next(path[parent], None)
                steps += 1
                if steps > WALK_MAX:
                    raise _TooMany
                if child is None:
                    del path[parent]
                    done.add(parent)
                elif child in path:
                    around = list(path)
                    found.append(around[around.index(child) :])
                elif child not in done:
                    path[child] = iter(self.children(child))
        return found
