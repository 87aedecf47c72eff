"""No bound of the code is forgotten on docs/limits.md: it is told there, or stands here with the reason why not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BOUND = re.compile(r"MAX_\w+|\w+_MAX(_\w+)?|\w+_KEPT")  # names of constants that bound what can grow

PACKAGES = {  # whose bounds are none of a cluster's user
    "raftcron.raft.": "internal: of messages between nodes, and of files that a node writes for itself",
    "raftcron.cli.": "of the command line: its own help and messages name them",
    "raftcron.client.": "of the client in its own process",
    "raftcron.testing.": "of simulations",
    "raftcron.wire.": "internal: of messages between nodes",
}
NOT_TOLD = {
    "raftcron.api.output.ATTEMPT_MAX": "a parameter's range; an attempt beyond it does not exist",
    "raftcron.api.output.PROBLEM_BYTES_MAX": "internal: what another node's error takes",
    "raftcron.api.query.INDEX_MAX": "a parameter's range, beyond every index",
    "raftcron.config.sources.MAX_CONFIG_BYTES": "of a node's settings, which its refusal names",
    "raftcron.config.sources.MAX_SECRET_BYTES": "of a node's settings, which its refusal names",
    "raftcron.core.alerts.BEHIND_MAX": "internal: targets with a mark of their own in one entry",
    "raftcron.core.apply.jobs.WRITES_MAX": "internal: jobs of one entry, into which requests are cut",
    "raftcron.core.apply.restore.CHUNK_ROWS_MAX": "internal: rows of one entry, into which archives are cut",
    "raftcron.core.archive.BLOCK_BYTES_MAX": "internal: of a block that raftcron itself has written",
    "raftcron.core.archive.CHUNKS_MAX": "internal: entries of an archive, whose size is told",
    "raftcron.core.archive.STAGED_BYTES_MAX": "that of an archive, which is told",
    "raftcron.core.audit.TEXT_MAX": "internal: texts of an item are cut, nothing is refused",
    "raftcron.core.exclusion.MASKS_KEPT": "internal: a cache",
    "raftcron.core.instant.MAX_DURATION_MS": "a text's range, named with its fault; a job's is told",
    "raftcron.core.instant.MAX_MS": "the end of the calendar",
    "raftcron.core.schedule.MAX_CATCH_UP_JUMP_S": "no bound: which jumps of a clock count as daylight saving",
    "raftcron.core.state.DIGESTS_KEPT": "internal: digests that nodes compare",
    "raftcron.core.timeline.MEMO_KEPT": "internal: a cache",
    "raftcron.core.walk.MAX_WALL_S": "the end of the calendar",
    "raftcron.executors.frames.FRAME_BYTES_MAX": "internal: of a message to a process of the same node",
    "raftcron.runtime.alerts.SENDING_MAX": "internal: how many are sent at once; the others wait",
    "raftcron.runtime.assigner.RETURN_WAIT_MAX_MS": "a wait, told in docs/executors.md",
    "raftcron.runtime.backup.OWED_MAX": "internal: decisions of one entry",
    "raftcron.runtime.bootstrap.REQUEST_BYTES_MAX": "internal: of a file that the command line writes",
    "raftcron.runtime.clocks.READS_MAX": "internal: looks at a clock",
    "raftcron.runtime.comparison.SAID_KEPT": "internal: digests that nodes compare",
    "raftcron.runtime.conservation.PARTS_MAX": "internal: of what a follower recounts",
    "raftcron.runtime.conservation.SUSPECTS_MAX": "internal: of what a follower recounts",
    "raftcron.runtime.events.FRAME_BYTES_MAX": "internal: of a file that a node writes for itself",
    "raftcron.runtime.presence.SENT_KEPT": "internal: heartbeats",
    "raftcron.runtime.scheduler.NOTE_MAX": "internal: of a note that the scheduler itself writes",
    "raftcron.runtime.statistics.ROWS_MAX": "internal: the rows that a job's statistics look at; docs/history.md",
    "raftcron.runtime.writes.LOOKS_MAX": "internal: tries, until a write answers 409",
    "raftcron.runtime.writes.PARTS_MAX": "internal: entries that decide what is owed, until a write answers 409",
}


def told() -> set[str]:
    """The constants that api/limits.py names."""
    tree = ast.parse((ROOT / "raftcron/api/limits.py").read_text())
    modules = {
        name.asname or name.name: f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    return {
        f"{modules[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    }


def bounds() -> set[str]:
    """The constants of raftcron whose names say that they bound something."""
    found: set[str] = set()
    for path in (ROOT / "raftcron").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            names = (target.id for target in targets if isinstance(target, ast.Name))
            found |= {f"{module}.{name}" for name in names if BOUND.fullmatch(name)}
    return found


def test_every_bound_is_told_or_has_a_reason() -> None:
    """Whoever adds one puts it into raftcron/api/limits.py, or here."""
    mine = {bound for bound in bounds() if not bound.startswith(tuple(PACKAGES))}
    assert mine - told() == NOT_TOLD.keys()
