"""What the ends of runs start: jobs that are `after` others (semantics 11), judged within the entry of the end.

A run ends for good once, so each child fires at most once for it, whatever entry it was that ended it.
"""

from __future__ import annotations

from hashlib import blake2b

from raftcron.core import chains
from raftcron.core.apply import admission
from raftcron.core.apply.context import Context
from raftcron.core.model import CAUSE_CHAIN, Job, Policy, Run
from raftcron.core.state import State


def follow(state: State, context: Context) -> None:
    """Start what follows on the runs that have ended in this entry, in the order of their ends.

    A parent that the entry has deleted starts nothing any more, and ends pass a paused child by; after the end of a
    pause, which may be written later, they start it, and its run is held until then.
    """
    ended, state.ended = state.ended, []
    for run in ended:
        parent = state.by_uid.get(run.uid)
        for uid in () if parent is None else sorted(state.children.get(parent.name, ())):
            child = state.by_uid[uid]
            if not child.paused or child.is_pause_over(context.at):
                _notice(state, context, child, run)


def _notice(state: State, context: Context, child: Job, run: Run) -> None:
    """A parent's run has ended: of `join: all`, the newest end of each parent since the child's last run counts."""
    policy = state.policy(child.uid)
    is_asked_for = any(parent == run.job and chains.counts(on, run.state) for parent, on in policy.after)
    if policy.join == "any" or len(policy.after) == 1:
        if is_asked_for:
            _fire(state, context, child, policy, run)
        return
    joined = dict(child.joined)
    before = joined.pop(run.job, None)
    if is_asked_for:
        joined[run.job] = run.id
    elif before is None:
        return
    is_whole = len(joined) == len(policy.after)
    child.joined = () if is_whole else tuple(joined.items())
    state.count_job(child)
    if is_whole:
        _fire(state, context, child, policy, run)


def _fire(state: State, context: Context, child: Job, policy: Policy, parent: Run) -> None:
    """The child's run, under an id that follows from the parent's run; queued, for the leader to place."""
    run_id = f"{child.uid:x}-c{blake2b(parent.id.encode(), digest_size=12, person=b'chain').hexdigest()}"
    if run_id in state.runs:
        return
    at = context.at
    run = admission.new_run(state, context, child, policy, run_id, CAUSE_CHAIN, at, at)
    run.follows = parent.id
    admission.admit(state, context, child, policy, run, None, allow_overlap=False)
