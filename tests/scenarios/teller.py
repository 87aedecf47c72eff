"""Does what a story says on a scene, and says what is seen; the language is described in story.py."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from raftcron.core.commands import Drain
from raftcron.core.instant import rfc3339
from raftcron.core.ledger import owed
from raftcron.core.model import CAUSE_SCHEDULE, ON_A_NODE, Job, Key, Run
from raftcron.errors import RaftcronError
from raftcron.ports import Attempt, Ending
from raftcron.runtime.conservation import Conservation
from raftcron.runtime.groups import Groups
from raftcron.runtime.requests import Requests, span_of
from raftcron.runtime.statistics import statistics
from raftcron.runtime.why import why
from raftcron.runtime.writes import Precondition
from raftcron.testing.scripted_executor import Script
from tests.scenarios import trouble
from tests.scenarios.commands import DEAF, CommandExecutor
from tests.scenarios.kinds import UNREACHABLE, Answer, KindsExecutor
from tests.scenarios.scene import Actor, Scene
from tests.scenarios.trouble import Late
from tests.scenarios.words import StoryError, at, figures, instant, read
from tests.simulation.switch import replaced

ANY = Precondition()
FIGURES = {"took": "durations_ms", "late": "lateness_ms"}
ENDINGS = {
    "fails": Ending("failed", exit_code=1, error_kind="exit"),
    "times out": Ending("timed_out", error_kind="timeout"),
    "breaks": Ending("failed", proven=False, error_kind="broken"),
    "succeeds": Ending("succeeded", exit_code=0),
}


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
            (r"run (\S+)( allow)?(?: key (\S+))?(?: args (.*))?", self.run),
            (r"finish (\S+) (\S+) (succeeded|failed)( late)?", self.finish),
            (r"hear (\S+) (\S+)", self.hear),
            (r"cancel (\S+) (\S+)", self.cancel),
            (r"group (\S+) (\d+)", self.group),
            (r"backfill (\S+) (\S+)s (\S+)s( dry)?", self.backfill),
            (r"retry (\S+) (\S+)", self.retry),
            (r"drain (\S+)", self.drain),
            (r"wait (\S+)s", self.wait),
            (r"(\S+) takes (\S+)s(?: and (fails|times out|breaks))?", self.takes),
            (r"(\S+) answers (\d+)(?: (.*))?", self.answers),
            (r"(\S+) is unreachable", self.is_unreachable),
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
            (r"(cut|heal)(?: (\S+))?", self.cut),
            (r"apply (\S+) (\d+)", self.apply),
            (r"(freeze|thaw) (\S+)", self.freeze),
            (r"hold (\S+)", self.hold),
            (r"release (\S+)", self.release),
            (r"forget (\S+)s", self.forget),
            (r"runs (\S+)", self.runs),
            (r"job (\S+)", self.job),
            (r"catch-up", self.catch_up),
            (r"starts (\S+)", self.starts),
            (r"stops (\S+)", self.stops),
            (r"signals (\S+)", self.signals),
            (r"args (\S+)", self.args),
            (r"calls (\S+)", self.calls),
            (r"errors (\S+)", self.errors),
            (r"output (\S+)", self.output),
            (r"statistics (\S+)", self.statistics),
            (r"conservation", self.conservation),
            (r"why (\S+) (\S+)s", self.why),
            (r"time", self.time),
            (r"receiver (away|back)", self.receiver),
            (r"alerts (\S+)", self.alerts),
        ]
        self.stopping: list[asyncio.Task[None]] = []
        self.lives = dict.fromkeys(scene.names, 1)
        self.late: dict[str, Late] = {}  # by node: its log, while what it writes is on its way
        self.asked: list[asyncio.Task[list[str] | None]] = []  # requests that wait for such a node
        self.has_forgotten = False  # planners have a fault, which only the watch is to find out
        self.faults = ExitStack()

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.close()

    async def do(self, command: str) -> list[str]:
        """What is seen of one command; a refusal is its code, and what of the body is wrong."""
        for pattern, deed in self.deeds:
            match = re.fullmatch(pattern, command)
            if match is not None:
                return await answered(deed(*match.groups()))
        raise StoryError("there is no such command")

    def check(self) -> None:
        """Conservation, counted from the calendar, and one digest wherever the log has come as far."""
        digests: dict[int, int] = {}
        for actor in self.scene.names.values():
            assert actor.fatal is None, actor.fatal
            state = actor.machine.state
            assert digests.setdefault(state.index, state.digest) == state.digest
            for job in state.jobs.values():
                count = owed(job, state.policies[job.uid], state.calendars, state.editions_since)
                is_told = self.has_forgotten or count in (None, job.fired + job.skipped)
                assert is_told, (job.name, count, job.fired, job.skipped)

    # ---- what is done

    @property
    def service(self) -> Any:
        return self.scene.leader.service

    @property
    def requests(self) -> Requests:
        leader = self.scene.leader
        return Requests(machine=leader.machine, time=leader.time, service=leader.service)

    async def put(self, name: str, fields: str) -> None:
        body = {"executor": {"type": "noop"}, "history": {"runs": 100}, **read(fields)}
        await self.service.put_job(name, body, ANY, None)

    async def edit(self, name: str, fields: str) -> None:
        await self.service.patch_job(name, read(fields), ANY, None)

    async def delete(self, name: str, cancel: str | None) -> None:
        await self.service.delete_job(name, cancel_running=cancel is not None, precondition=ANY, key=None)

    async def pause(self, name: str, note: str | None, until: str | None) -> None:
        body = {"note": note or "", "until": until and rfc3339(instant(until))}
        await self.service.pause_job(name, body, ANY, None)

    async def resume(self, name: str, catch_up: str | None) -> None:
        await self.service.resume_job(name, {"catch_up": True} if catch_up else None, ANY, None)

    async def skip(self, name: str, count: str) -> None:
        await self.service.skip_next(name, {"count": int(count)}, ANY, None)

    async def run(self, name: str, allow: str | None, key: str | None, args: str | None) -> list[str] | None:
        body = ({"overlap": "allow"} if allow else {}) | ({} if args is None else {"args": read(args)})
        scope = None if key is None else Key(f"POST {name} {key}", repr(body).encode(), 0, 0, 0)
        asking = asyncio.ensure_future(self._run(name, body, scope))
        if self.scene.leader.name in self.late:
            self.asked.append(asking)
            await asyncio.sleep(0)
            return None
        return await asking

    async def _run(self, name: str, body: dict[str, Any], scope: Key | None) -> list[str] | None:
        done = await self.requests.run(name, body or None, scope)
        return None if scope is None else [f"{'again' if done.replayed else 'new'} {self._label_of(done.subject)}"]

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

    async def backfill(self, name: str, begin: str, through: str, dry: str | None) -> list[str] | None:
        ends = {word: rfc3339(instant(second)) for word, second in (("from", begin), ("to", through))}
        span = span_of({**ends, "dry_run": dry is not None}, self.scene.leader.now_ms())
        filled = await self.requests.backfill(name, span, None)
        if dry is None:
            return None
        return [f"would run {', '.join(map(at, filled.times)) or 'nothing'}"]

    async def retry(self, name: str, label: str) -> None:
        await self.requests.rerun(self.row(name, label).id, None, None)

    async def drain(self, node: str) -> None:
        await self.scene.leader.proposer.propose(Drain(node, True))

    async def wait(self, seconds: str) -> None:
        await self.scene.seconds(float(seconds))

    async def takes(self, name: str, seconds: str, ending: str | None) -> None:
        self._script(name, Script(float(seconds), ENDINGS[ending or "succeeds"]))

    async def answers(self, name: str, status: str, text: str | None) -> None:
        self._script(name, Answer(status=int(status), text=text or ""))

    async def is_unreachable(self, name: str) -> None:
        self._script(name, UNREACHABLE)

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
        self.scene.die(self.node(node).name)

    async def stop(self, node: str, grace: str) -> None:
        self.stopping.append(asyncio.ensure_future(self.scene.stop(self.node(node).name, float(grace))))

    async def clock(self, node: str, seconds: str) -> None:
        self.node(node).clock.wall_offset = float(seconds)

    async def accept(self) -> None:
        self.scene.leader.clocks.accept()

    async def elect(self, node: str) -> None:
        self.scene.elect(self.node(node).name)

    async def reborn(self, node: str) -> None:
        self.lives[node] += 1
        self.scene.reborn(node, self.lives[node])

    async def cut(self, word: str, node: str | None) -> None:
        """A node alone, or each from all others.  A leader that is alone leads no more."""
        cluster = self.scene.cluster
        if node is None:
            (cluster.cut if word == "cut" else cluster.heal)()
        elif word == "heal":
            trouble.heal(self.node(node))
        else:
            if cluster.leader == node:
                cluster.depose()
            trouble.cut_off(self.node(node))

    async def apply(self, node: str, count: str) -> None:
        actor = self.node(node)
        trouble.apply_until(actor, actor.log.applied_index + int(count))

    async def freeze(self, word: str, node: str) -> None:
        (trouble.freeze if word == "freeze" else trouble.thaw)(self.scene, self.node(node))

    async def hold(self, node: str) -> None:
        actor = self.node(node)
        late: Any = Late(actor.log)
        actor.proposer._log = self.late[node] = late

    async def release(self, node: str) -> list[str]:
        """What whoever asked was told."""
        if node not in self.late:
            raise StoryError("what it writes is not held")
        self.late.pop(node).arrive()
        self.node(node).proposer._log = self.node(node).log
        asked, self.asked = self.asked, []
        return [line for asking in asked for line in await answered(asking) or ["done"]]

    async def forget(self, second: str) -> None:
        self.has_forgotten = True
        self.faults.enter_context(replaced([trouble.forgets(instant(second))]))

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
        job = self.job_of(name)
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
        return [
            f"{self._label_of(attempt.run_id)} attempt {attempt.attempt} on {attempt.node}"
            for attempt in self._attempts(name)
        ] or ["none"]

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
        state, timeline = leader.machine.state, leader.machine.timeline
        answer = await why(state, timeline, self.job_of(name), instant(second), leader.now_ms())
        words = answer.verdict + (f" ({answer.reason})" if answer.reason else "")
        if answer.row is not None and answer.row.blocked_by is not None:
            words += f", blocked by {self._label_of(answer.row.blocked_by)}"
        return [words]

    async def args(self, name: str) -> list[str]:
        return [
            f"{self._label_of(attempt.run_id)} attempt {attempt.attempt}: {json.dumps(attempt.args)}"
            for attempt in self._attempts(name)
        ] or ["none"]

    async def calls(self, name: str) -> list[str]:
        return [
            f"{line} {body}".rstrip()
            for actor in self.scene.actors
            if isinstance(actor.executor, KindsExecutor)
            for job, line, body in actor.executor.calls
            if job == name
        ] or ["none"]

    async def errors(self, name: str) -> list[str]:
        return [f"{self.label(run)} {run.error}" for run in self.rows(name) if run.error is not None] or ["none"]

    async def output(self, name: str) -> list[str]:
        """The last line of what is kept of it."""
        return [
            f"{self.label(run)} {run.output_tail.decode().splitlines()[-1]}"
            for run in self.rows(name)
            if run.output_tail
        ] or ["none"]

    async def statistics(self, name: str) -> list[str]:
        state = self.scene.leader.machine.state
        found = statistics(state.ended_of(self.job_of(name).uid), state.runs)
        return [f"{word}: {figures(found[field])}" for word, field in FIGURES.items()]

    async def conservation(self) -> list[str]:
        """As each follower finds it that looks at all jobs now."""
        lines = []
        for actor in self.scene.names.values():
            if actor.name != self.scene.cluster.leader:
                watch = Conservation(machine=actor.machine, time=actor.time, is_on_duty=lambda: True)
                await watch.step(len(actor.machine.state.jobs))
                counts = f"{watch.checked} recounted, {watch.left_out} left out"
                lines.append(f"{actor.name}: {counts}, difference {watch.difference}, overdue {watch.overdue}")
        return lines

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

    def node(self, name: str) -> Actor:
        if name not in self.scene.names:
            raise StoryError(f"no node {name} lives; there are {', '.join(self.scene.names)}")
        return self.scene.names[name]

    def job_of(self, name: str) -> Job:
        jobs = self.scene.leader.machine.state.jobs
        if name not in jobs:
            raise StoryError(f"there is no job {name}; there are {', '.join(jobs) or 'none'}")
        return jobs[name]

    def row(self, name: str, label: str) -> Run:
        rows = {self.label(row): row for row in self.rows(name)}
        if label not in rows:
            raise StoryError(f"there is no run {label} of job {name}; there are {', '.join(rows) or 'none'}")
        return rows[label]

    def _attempts(self, name: str) -> list[Attempt]:
        """What executors of all nodes were told of a job, in order."""
        found = [attempt for actor in self.scene.actors for attempt in actor.executor.started if attempt.job == name]
        return sorted(found, key=lambda attempt: attempt.fencing_token)

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


async def answered(asking: Awaitable[list[str] | None]) -> list[str]:
    """What is seen of a deed; of one that is refused the code, and what of the body is wrong."""
    try:
        return await asking or []
    except RaftcronError as error:
        return [f"refused: {error.code}", *(f"  {fault.pointer}: {fault.message}" for fault in error.faults)]
