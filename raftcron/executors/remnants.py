"""What a former life of the node, or a spawner that died, left running: killed by name, its end seen, and told.

Only what the run directory names is touched: the spawner and its children by pid, start time and boot id, what
descends from them, and what carries that spawner's mark in its environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import NamedTuple

from raftcron.core.commands import Finished
from raftcron.core.model import CANCELLED, FAILED, SUCCEEDED, TIMED_OUT
from raftcron.errors import FatalError
from raftcron.executors import cgroups, runfiles
from raftcron.executors.host import LINUX, Host, Processes, RunFiles
from raftcron.executors.processes import Process, descendants

log = logging.getLogger(__name__)

POLL_SECONDS = 0.01
QUIET_LOOKS = 5
PATIENCE_SECONDS = 30.0  # how long a SIGKILL may take; longer means a process stuck in the kernel

# Why an attempt was stopped, and the end that this is: its state, the kind of its error, and what it did.
_TOLD = {
    None: (FAILED, "exit", "ended"),
    "timeout": (TIMED_OUT, "timeout", "timed out"),
    "cancelled": (CANCELLED, "cancelled", "was cancelled"),
}


class Remnant(NamedTuple):
    """One attempt that the run directory names.

    Of one whose file cannot be read nothing but `request_id` is known, from the file's name: it may have run.
    `exit_code` is None if nobody saw how it ended: it was killed here, or with its spawner.  Negative: that signal.
    `reason` says who stopped it (timeout, cancelled, shutdown, lease, daemon), None if it ended by itself.
    """

    request_id: str
    run_id: str
    token: int
    was_alive: bool
    exit_code: int | None
    reason: str | None


class _Child(NamedTuple):
    request_id: str
    pid: int
    start: int
    boot: str
    run_id: str
    token: int
    end: dict[str, object] | None


async def clean_up(run_directory: Path, keep_ended: bool = False, host: Host = LINUX) -> list[Remnant]:
    """Kill all that the run directory names, wait until it is gone, and empty the directory.

    `keep_ended` leaves the files of children whose end was seen: this life may not have committed it yet.

    To be awaited before the node announces its new incarnation, and with no live spawner of this process.
    FatalError if something does not die within 30 s: the node must not start code that may already run.  OSError if
    it cannot be seen what there is: that is not to say that there is nothing.
    """
    processes, files, directory = host.processes, host.files, str(run_directory)
    boot = processes.boot_id()
    children = _read_children(directory, files)
    spawners = [record for record in files.read(runfiles.spawner_path(directory))[:1] if record.get("boot") == boot]
    here = [child for child in children if child.boot == boot and child.end is None]
    named = {(int(one["pid"]), int(one["start"])) for one in spawners}
    marks = tuple(f"{one['pid']}.{one['start']}.{boot}." for one in spawners)
    alive = {child.request_id for child in here if processes.is_alive(child.pid, child.start)}

    for pid, start in named:  # stopped first: nothing that lies in its pipe is started any more
        processes.kill_exactly(Process(pid, "?", 0, 0, 0, start), signal.SIGSTOP)
    named |= {(child.pid, child.start) for child in here}
    groups = [path for one in spawners if isinstance(path := one.get("cgroup"), str) and cgroups.is_ours(path)]
    if spawners or here:
        await _kill(processes, named, marks, groups)
    for path in groups:
        cgroups.remove(path)

    remnants = []
    for child in children:
        end = child.end or {}
        exit_code, reason = end.get("exit"), end.get("reason")
        remnants.append(
            Remnant(
                child.request_id,
                child.run_id,
                child.token,
                child.request_id in alive,
                exit_code if isinstance(exit_code, int) else None,
                reason if isinstance(reason, str) else None,
            )
        )
    ended = {child.request_id + runfiles.CHILD_SUFFIX for child in children if child.end is not None}
    for name in files.names(directory):
        if not (keep_ended and name in ended):
            path = runfiles.path_of(directory, name)
            try:
                files.remove(path)
            except OSError as error:  # it names nothing that lives; what it has told must not be lost for that
                log.warning("run_file_stays path=%s error=%s", path, error)
    return remnants


def seen_end(remnant: Remnant) -> Finished | None:
    """A command's end that the spawner saw and that its daemon did not live to report, if it is so.

    What was told to end for its node's sake (shutdown, lease, daemon) is left to the announcement, which calls it lost.
    """
    exit_code = remnant.exit_code
    if exit_code is None or remnant.reason not in _TOLD:
        return None
    code = exit_code if exit_code >= 0 else 128 - exit_code
    if remnant.reason is None and code == 0:
        return Finished(run=remnant.run_id, fencing_token=remnant.token, state=SUCCEEDED, exit_code=0)
    state, kind, how = _TOLD[remnant.reason]
    return Finished(
        run=remnant.run_id,
        fencing_token=remnant.token,
        state=state,
        exit_code=code,
        error=f"it {how} before its node ended; the output is gone",
        error_kind=kind,
    )


async def _kill(processes: Processes, named: set[tuple[int, int]], marks: tuple[str, ...], groups: list[str]) -> None:
    """SIGKILL to all of them and their families, until some looks in a row find none.

    One look is no proof: nobody holds the dead back for us, so what forks and ends at once may be missed, unless it has
    a control group.
    """
    looked, quiet = 0.0, 0
    while quiet < QUIET_LOOKS:
        for path in groups:
            cgroups.kill(path)
        family = _family(processes, named, marks)
        quiet = quiet + 1 if not family and all(map(cgroups.is_empty, groups)) else 0
        for process in family:
            processes.kill_exactly(process)
        if family and looked >= PATIENCE_SECONDS:
            pids = ", ".join(str(process.pid) for process in family)
            raise FatalError(
                f"process {pids}, left by a former life of this node, does not die of SIGKILL within "
                f"{PATIENCE_SECONDS:.0f} s; see /proc/<pid>/stack, and restart the machine if it stays"
            )
        named |= {(process.pid, process.start) for process in family}  # their orphans have no parent to be found by
        await asyncio.sleep(POLL_SECONDS)
        looked += POLL_SECONDS


def _family(processes: Processes, named: set[tuple[int, int]], marks: tuple[str, ...]) -> list[Process]:
    """What is named and alive, what descends from it or belongs to its session, and what carries the mark."""
    found = processes.table()
    roots = {process.pid for process in found.values() if (process.pid, process.start) in named}
    sessions = {pid for pid in roots if found[pid].session == pid}
    for process in found.values():
        if process.pid in roots or process.is_dead:
            continue
        mark = processes.mark_of(process.pid) if marks else None
        if process.session in sessions or (mark is not None and mark.startswith(marks)):
            roots.add(process.pid)
    family = [found[pid] for pid in roots] + list(descendants(found, roots))
    return [process for process in family if not process.is_dead and process.pid != os.getpid()]


def _read_children(directory: str, files: RunFiles) -> list[_Child]:
    """One a file: what has none never ran.  By itself a file that was cut off would say so too, but so may damage."""
    children = []
    for name in files.names(directory):
        if name == runfiles.SPAWNER_FILE:
            continue
        path, request_id = runfiles.path_of(directory, name), name.removesuffix(runfiles.CHILD_SUFFIX)
        try:
            records = files.read(path)
            first = records[0]
            child = _Child(
                request_id,
                int(first["pid"]),
                int(first["start"]),
                str(first["boot"]),
                str(first["run_id"]),
                int(first["token"]),
                records[1] if len(records) > 1 else None,
            )
        except (OSError, IndexError, KeyError, TypeError, ValueError) as error:
            log.warning("run_file_unreadable path=%s error=%r", path, error)
            child = _Child(request_id, 0, 0, "", "", 0, None)  # its spawner's mark and control group find it
        children.append(child)
    return children
