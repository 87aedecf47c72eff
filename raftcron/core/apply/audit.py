"""The audit trail: the one place where a write that took effect is recorded."""

from __future__ import annotations

from raftcron.core.apply.context import Context, remember
from raftcron.core.audit import AUDIT_KEPT, CHAIN, UNRECORDED, AuditChain, AuditItem, clean, link, summary_of
from raftcron.core.commands import Command, Done, Note, Origin, Outcome
from raftcron.core.state import State


def record(state: State, context: Context, origin: Origin, command: Command, done: Done) -> None:
    """The next item of the chain; the oldest leaves beyond the bound."""
    if isinstance(command, UNRECORDED):
        return
    chain = state.audit_chain.get(CHAIN)
    if chain is None:
        chain = state.audit_chain[CHAIN] = AuditChain(CHAIN)
    item = AuditItem(
        index=context.log_index,
        at=context.at,
        principal=clean(origin.principal),
        node=clean(origin.node),
        remote=clean(origin.remote),
        method=clean(origin.method),
        path=clean(origin.path),
        summary=summary_of(command, done),
        hash=b"",
    )
    item.hash = chain.head = link(chain.head, item)
    chain.count += 1
    state.audit[item.index] = item
    state.touch(item)
    while len(state.audit) > AUDIT_KEPT:
        oldest = state.audit.pop(next(iter(state.audit)))
        chain.dropped, chain.before = chain.dropped + 1, oldest.hash
        state.forget(oldest)
    state.touch(chain)


def note(state: State, context: Context, command: Note) -> Outcome:
    """Nothing changes; that it was said is recorded."""
    return remember(state, context, command.key, command.text, command.status)
