"""Stories of a cluster as plain text: what is done, `----`, what is seen; times are seconds since the story began.

    job a {"schedule": "@every 10s"}    create or replace it        a takes 5s [and fails] | fails | times out | breaks
    wait 12s                            let time pass               a hangs | lingers (25 s when it is stopped)
    run a [allow] | cancel a 10s
    pause a ["note" until 30s]          resume a [catch_up]         delete a [cancel_running]
    kill n1 | elect n2 | reborn n1      cut | heal                  edit a {"overlap": {"policy": "allow"}}
    group g 2                           a cap of two runs at once   drain n2                 no new runs there
    backfill a -60s 0s                  retry a 10s                 a is deaf                (a command: to SIGTERM)
    run a [allow] key k                 new or again?               stop n1 20s              SIGTERM, with that grace
    a is taken over                     its target says 202         finish a 10s failed [late] | hear a 10s
    clock n1 30s                        its clock is so wrong       accept-time
    runs a                              all rows, oldest first      job a                    counters
    starts a | stops a                  what executors were told    catch-up                 how much is owed
    signals a                           what commands were sent     why a 10s                the verdict on a time
    time                                who leads, what time it trusts, whether it decides
    receiver away | receiver back       alerts are not taken    alerts a                 what was told of it

A story begins with comment lines, the first of which says what is true, and perhaps `stage {"slots": 2}`; with
`"commands": true` what runs is a command of the shipped spawner, with `"alerts": true` nodes tell what happens.  After
each block the times owed are counted anew from the calendar, and all nodes that live stand at one digest.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raftcron.core.commands import Drain
from raftcron.core.instant import rfc3339
from raftcron.core.ledger import owed
from raftcron.core.model import CAUSE_SCHEDULE, ON_A_NODE, Key, Run
from raftcron.errors import RaftcronError
from raftcron.ports import Ending
from raftcron.runtime.groups import Groups
from raftcron.runtime.requests import Requests, Span
from raftcron.runtime.why import why
from raftcron.runtime.writes import Precondition
from raftcron.testing.scripted_executor import Script
from tests.scenarios.commands import DEAF, CommandExecutor
from tests.scenarios.scene import START_MS, Scene, play
from tests.simulation.switch import Replacement, replaced

STORIES = Path(__file__).with_name("stories")
BEGIN_MS = START_MS + 2_000  # both nodes are announced by then
ANY = Precondition()
ENDINGS = {
    "fails": Ending("failed", exit_code=1, error_kind="exit"),
    "times out": Ending("timed_out", error_kind="timeout"),
    "breaks": Ending("failed", proven=False, error_kind="broken"),
    "succeeds": Ending("succeeded", exit_code=0),
}


@dataclass
class Block:
    """Some commands and what is seen after them; `line` is where they begin."""

    line: int
    commands: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


def blocks_of(text: str) -> Iterator[Block]:
    """The blocks of a story, which empty lines part."""
    block, is_seen = Block(1), False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if not line.strip():
            if block.commands:
                yield block
            block, is_seen = Block(number + 1), False
        elif line.strip() == "----":
            is_seen = True
        elif is_seen:
            block.seen.append(line.rstrip())
        elif not line.startswith(("#", "stage ")):
            block.commands.append(line.strip())


def tell(path: Path) -> str:
    """Play a story; its text with what was really seen, which equals the file if all is well."""
    text = path.read_text()
    [*stages] = re.findall(r"^stage (.*)$", text, re.MULTILINE)
    told: list[str] = []

    async def act(scene: Scene) -> None:
        await scene.seconds(0.5)
        teller = Teller(scene)
        for block in blocks_of(text):
            seen: list[str] = []
            for command in block.commands:
                seen += await teller.do(command)
            teller.check()
            told.append("\n".join([*block.commands, *(["----", *seen] if seen else [])]))

    play(act, **(json.loads(stages[0]) if stages else {}))
    head = [line for line in text.splitlines() if line.startswith(("#", "stage "))]
    return "\n".join(head) + "\n\n" + "\n\n".join(told) + "\n"


def goes_otherwise(replacements: list[Replacement], story: str) -> bool:
    """Whether a story goes otherwise than it is told, or cannot be told, with something else in the place of names."""
    path = STORIES / f"{story}.txt"
    with replaced(replacements):
        try:
            told = tell(path)
        except AssertionError:  # of the teller: conservation, or nodes that differ
            return True
    return told != path.read_text()


class Teller:
    """Does what a story says on a scene, and says what is seen."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.deeds: list[tuple[str, Callable[..., Awaitable[list[str] | None]]]] = [
            (r"job (\S+) (\{.*\})", self.put),
            (r"edit (\S+) (\{.*\})", self.edit),
            (r"delete (\S+)( cancel_running)?", self.delete),
            (r"pause (\S+)(?: \"(.*)\")?(?: until (\S+)s)?", self.pause),
            (r"resume (\S+)( catch_up)?", self.resume),
            (r"skip (\S+) (\d+)", self.skip),
            (r"run (\S+)( allow)?(?: key (\S+))?", self.run),
            (r"finish (\S+) (\S+) (succeeded|failed)( late)?", self.finish),
            (r"hear (\S+) (\S+)", self.hear),
            (r"cancel (\S+) (\S+)", self.cancel),
            (r"group (\S+) (\d+)", self.group),
            (r"backfill (\S+) (\S+)s (\S+)s", self.backfill),
            (r"retry (\S+) (\S+)", self.retry),
            (r"drain (\S+)", self.drain),
            (r"wait (\S+)s", self.wait),
            (r"(\S+) takes (\S+)s(?: and (fails|times out|breaks))?", self.takes),
            (r"(\S+) hangs", self.hangs),
            (r"(\S+) is deaf", self.is_deaf),
            (r"(\S+) is taken over", self.is_taken_over),
            (r"(\S+) lingers", self.lingers),
            (r"(\S+) (fails|times out|breaks|succeeds)", self.ends),
            (r"kill (\S+)", self.kill),
            (r"stop (\S+) (\S+)s", self.stop),
            (r"clock (\S+) (\S+)s", self.clock),
            (r"accept-time", self.accept),
            (r"elect (\S+)", self.elect),
            (r"reborn (\S+)", self.reborn),
            (r"(cut|heal)", self.quorum),
            (r"runs (\S+)", self.runs),
            (r"job (\S+)", self.job),
            (r"catch-up", self.catch_up),
            (r"starts (\S+)", self.starts),
            (r"stops (\S+)", self.stops),
            (r"signals (\S+)", self.signals),
            (r"why (\S+) (\S+)s", self.why),
            (r"time", self.time),
            (r"receiver (away|back)", self.receiver),
            (r"alerts (\S+)", self.alerts),
        ]
        self.stopping: list[asyncio.Task[None]] = []
        self.lives = dict.fromkeys(scene.names, 1)

    async def do(self, command: str) -> list[str]:
        """What is seen of one command; a refusal is its code, and what of the body is wrong."""
        for pattern, deed in self.deeds:
            match = re.fullmatch(pattern, command)
            if match is not None:
                try:
                    return await deed(*match.groups()) or []
                except RaftcronError as error:
                    faults = [f"  {fault.pointer}: {fault.message}" for fault in error.faults]
                    return [f"refused: {error.code}", *faults]
        raise AssertionError(f"no such command: {command}")

    def check(self) -> None:
        """Conservation, counted from the calendar, and one digest wherever the log has come as far."""
        digests: dict[int, int] = {}
        for actor in self.scene.names.values():
            assert actor.fatal is None, actor.fatal
            state = actor.machine.state
            assert digests.setdefault(state.index, state.digest) == state.digest
            for job in state.jobs.values():
                count = owed(job, state.policies[job.uid], state.calendars, state.editions_since)
                assert count in (None, job.fired + job.skipped), (job.name, count, job.fired, job.skipped)

    # ---- what is done

    @property
    def service(self) -> Any:
        return self.scene.leader.service

    @property
    def requests(self) -> Requests:
        leader = self.scene.leader
        return Requests(machine=leader.machine, time=leader.time, service=leader.service)

    async def put(self, name: str, fields: str) -> None:
        body = {"executor": {"type": "noop"}, "history": {"runs": 100}, **json.loads(fields)}
        await self.service.put_job(name, body, ANY, None)

    async def edit(self, name: str, fields: str) -> None:
        await self.service.patch_job(name, json.loads(fields), ANY, None)

    async def delete(self, name: str, cancel: str | None) -> None:
        await self.service.delete_job(name, cancel_running=cancel is not None, precondition=ANY, key=None)

    async def pause(self, name: str, note: str | None, until: str | None) -> None:
        body = {"note": note or "", "until": until and rfc3339(BEGIN_MS + int(float(until) * 1000))}
        await self.service.pause_job(name, body, ANY, None)

    async def resume(self, name: str, catch_up: str | None) -> None:
        await self.service.resume_job(name, {"catch_up": True} if catch_up else None, ANY, None)

    async def skip(self, name: str, count: str) -> None:
        await self.service.skip_next(name, {"count": int(count)}, ANY, None)

    async def run(self, name: str, allow: str | None, key: str | None) -> list[str] | None:
        body = {"overlap": "allow"} if allow else None
        scope = None if key is None else Key(f"POST {name} {key}", repr(body).encode(), 0, 0, 0)
        done = await self.requests.run(name, body, scope)
        if key is None:
            return None
        return [f"{'again' if done.replayed else 'new'} {self._label_of(done.subject)}"]

    async def finish(self, name: str, label: str, state: str, late: str | None) -> None:
        """`late`: with the token of the attempt before the newest."""
        run = self.row(name, label)
        token = run.fencing_token - 1 if late else run.fencing_token
        await self.requests.conclude(run.id, {"token": str(token), "state": state}, None)

    async def hear(self, name: str, label: str) -> None:
        run = self.row(name, label)
        await self.requests.hear(run.id, {"token": str(run.fencing_token)}, None)

    async def cancel(self, name: str, label: str) -> None:
        await self.requests.cancel(self.row(name, label).id, None)

    async def group(self, name: str, most: str) -> None:
        groups = Groups(machine=self.scene.leader.machine, writes=self.service)
        await groups.put(name, {"max_running": int(most)}, ANY, None)

    async def backfill(self, name: str, begin: str, through: str) -> None:
        span = Span(*(BEGIN_MS + int(float(text) * 1000) for text in (begin, through)), is_dry=False)
        await self.requests.backfill(name, span, None)

    async def retry(self, name: str, label: str) -> None:
        await self.requests.rerun(self.row(name, label).id, None, None)

    async def drain(self, node: str) -> None:
        await self.scene.leader.proposer.propose(Drain(node, True))

    async def wait(self, seconds: str) -> None:
        await self.scene.seconds(float(seconds))

    async def takes(self, name: str, seconds: str, ending: str | None) -> None:
        self._script(name, Script(float(seconds), ENDINGS[ending or "succeeds"]))

    async def hangs(self, name: str) -> None:
        self._script(name, Script(None))

    async def lingers(self, name: str) -> None:
        self._script(name, Script(None, stop_seconds=25.0))

    async def is_deaf(self, name: str) -> None:
        self._script(name, DEAF)

    async def is_taken_over(self, name: str) -> None:
        self._script(name, Script(0.0, Ending("taken_over", status_code=202)))

    async def ends(self, name: str, ending: str) -> None:
        self._script(name, Script(0.0, ENDINGS[ending]))

    def _script(self, name: str, script: Script) -> None:
        for actor in self.scene.names.values():
            actor.executor.scripts[name] = script

    async def kill(self, node: str) -> None:
        self.scene.die(node)

    async def stop(self, node: str, grace: str) -> None:
        self.stopping.append(asyncio.ensure_future(self.scene.stop(node, float(grace))))

    async def clock(self, node: str, seconds: str) -> None:
        self.scene.names[node].clock.wall_offset = float(seconds)

    async def accept(self) -> None:
        self.scene.leader.clocks.accept()

    async def elect(self, node: str) -> None:
        self.scene.elect(node)

    async def reborn(self, node: str) -> None:
        self.lives[node] += 1
        self.scene.reborn(node, self.lives[node])

    async def quorum(self, word: str) -> None:
        (self.scene.cluster.cut if word == "cut" else self.scene.cluster.heal)()

    async def receiver(self, word: str) -> None:
        assert self.scene.receiver is not None
        self.scene.receiver.is_away = word == "away"

    # ---- what is seen

    def rows(self, name: str) -> list[Run]:
        """Rows of a job, also of one that is gone, in the order of their scheduled times."""
        state = self.scene.leader.machine.state
        rows = [run for run in state.runs.values() if run.job == name]
        return sorted(rows, key=lambda run: (run.first or run.scheduled_time, run.log_index, run.id))

    async def runs(self, name: str) -> list[str]:
        return [self.line(run) for run in self.rows(name)] or ["none"]

    async def job(self, name: str) -> list[str]:
        job = self.scene.leader.machine.state.jobs[name]
        words = f"fired {job.fired} skipped {job.skipped}"
        ends = ("succeeded", "failed", "timed_out", "cancelled", "lost")
        words += "".join(f" {word} {getattr(job, word)}" for word in ends if getattr(job, word))
        if job.paused:
            words += f" paused {job.pause_note!r}" + (f" until {at(job.pause_until)}" if job.pause_until else "")
        return [words]

    async def catch_up(self) -> list[str]:
        figures = {(actor.catch_up.owed, actor.catch_up.started) for actor in self.scene.names.values()}
        return [f"owed {owed} started {started}" for owed, started in sorted(figures)]

    async def starts(self, name: str) -> list[str]:
        found = [
            (attempt.fencing_token, f"{self._label_of(attempt.run_id)} attempt {attempt.attempt} on {actor.name}")
            for actor in self.scene.actors
            for attempt in actor.executor.started
            if attempt.job == name
        ]
        return [text for _, text in sorted(found)] or ["none"]

    async def stops(self, name: str) -> list[str]:
        return [
            f"{self._label_of(attempt.run_id)} on {actor.name}: {reason}"
            for actor in self.scene.actors
            for attempt, reason in actor.executor.stopped
            if attempt.job == name
        ] or ["none"]

    async def signals(self, name: str) -> list[str]:
        return [
            f"{self._label_of(run)} on {actor.name}: {signal} at {at(ms)}"
            for actor in self.scene.actors
            if isinstance(actor.executor, CommandExecutor)
            for run, ms, signal in actor.executor.signals
            if self.scene.leader.machine.state.runs[run].job == name
        ] or ["none"]

    async def why(self, name: str, second: str) -> list[str]:
        leader = self.scene.leader
        job = leader.machine.state.jobs[name]
        when = BEGIN_MS + int(float(second) * 1000)
        answer = await why(leader.machine.state, leader.machine.timeline, job, when, leader.now_ms())
        return [answer.verdict + (f" ({answer.reason})" if answer.reason else "")]

    async def time(self) -> list[str]:
        leader = self.scene.leader
        words = f"{leader.name} leads, trusts {at(leader.now_ms())}"
        words += ", untrusted" if leader.clocks.is_untrusted else ""
        return [words + ("" if leader.time.may_decide else ", holds")]

    async def alerts(self, name: str) -> list[str]:
        assert self.scene.receiver is not None
        return [
            f"{told.body['kind']} {self._label_of(told.body['run'])} by {told.node} at {at(told.at)}"
            for told in self.scene.receiver.told
            if told.body["job"] == name
        ] or ["none"]

    def row(self, name: str, label: str) -> Run:
        [run] = [row for row in self.rows(name) if self.label(row) == label]
        return run

    def line(self, run: Run) -> str:
        """One row in words."""
        words = f"{self.label(run)} {run.state}"
        if run.reason is not None:
            words += f" ({run.reason})"
        elif run.error_kind is not None:
            words += f" ({run.error_kind})"
        if run.cause != CAUSE_SCHEDULE:
            words += f" {run.cause}"
        if run.attempt > 1:
            words += f" attempt {run.attempt}"
        if run.split is not None:
            ended = ", ".join(f"{count} {word}" for word, count in sorted(run.split.tally.items()))
            words += f" ({ended or 'none'} of {len(run.split.names)})"
        elif run.state in ON_A_NODE:
            words += f" on {run.node}"
        if run.started_at is not None:
            words += f" from {at(run.started_at)}"
        if run.finished_at is not None and run.count is None:
            words += f" to {at(run.finished_at)}" if run.started_at is not None else f" at {at(run.finished_at)}"
        if run.missed_count:
            words += f" for {run.missed_count} more"
        for word in ("blocked_by", "replaced_by"):
            other = getattr(run, word, None)
            if other is not None:
                words += f", {word.replace('_', ' ')} {self._label_of(other)}"
        if run.late_outcome is not None:
            words += f", late outcome {run.late_outcome}"
        return words

    def label(self, run: Run) -> str:
        """How a story calls a run: by its scheduled time; one by hand with a star."""
        if run.count is not None:
            return f"{at(run.first)}-{at(run.last)} x{run.count}"
        label = at(run.scheduled_time) + ("*" if run.id.startswith("m") else "")
        return label if run.part is None else label + "." + run.id.rpartition(".")[2]

    def _label_of(self, run_id: str) -> str:
        run = self.scene.leader.machine.state.runs.get(run_id)
        return run_id if run is None else self.label(run)


def at(ms: int | None) -> str:
    """An instant as seconds since the story began, to a tenth."""
    return "never" if ms is None else f"{round((ms - BEGIN_MS) / 1000, 1):g}s"
