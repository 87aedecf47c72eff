"""Runs that have not ended: what waits, for what, in which order; what runs, where, and what room that takes."""

from __future__ import annotations

from raftcron.core.history import History
from raftcron.core.model import (
    CAUSE_BACKFILL,
    CAUSE_MANUAL,
    ENDED,
    ON_A_NODE,
    QUEUED,
    RUNNING,
    STARTED,
    UNLIMITED,
    Job,
    Run,
    Split,
)
from raftcron.core.placement import Lane, is_process, lane_of

_NO_CAP = 1 << 30


class Queues(History):
    """Records and their history, and each active run where its state has it stand."""

    def __init__(self) -> None:
        super().__init__()
        self.on_node: dict[str, dict[str, Run]] = {}  # assigned, running or cancelling
        self.processes: dict[str, int] = {}  # of those, how many are processes
        self.taken_over: dict[str, Run] = {}  # started, and with their targets instead of a node (apply/remote.py)
        self.group_running: dict[str, int] = {}  # of both, how many count under which group
        self.turns: dict[int, dict[str, Run]] = {}  # uid -> runs that wait for others of their job, oldest first
        self.backfills: dict[int, dict[str, Run]] = {}  # uid -> those of a backfill, which come after all other turns
        self.held: dict[str, Run] = {}  # queued runs that may not start: it is not their turn, or their job is paused
        self.queued: dict[str, Run] = {}  # those that may
        self.lanes: dict[Lane, dict[str, Run]] = {}  # the same by what they wait for; none is empty
        self._lane_of: dict[str, Lane] = {}
        self.waiting: dict[str, Run] = {}  # for a retry's back-off, or for their jitter
        self.backfills_due: set[int] = set()  # jobs whose backfills may have their turn when the entry is done

    # ---- questions

    def is_process(self, node: str, process: str | None) -> bool:
        """Whether a run takes one of this node's process slots; `process` is its policy's."""
        record = self.nodes.get(node)
        return record is not None and is_process(record, process)

    def has_slot(self, node: str, *, process: str | None) -> bool:
        """Whether one more run fits on this node; on one that is drained none does."""
        record = self.nodes.get(node)
        if record is None or record.drained or len(self.on_node.get(node, ())) >= record.slots:
            return False
        return not is_process(record, process) or self.processes.get(node, 0) < record.process_slots

    def load(self, node: str) -> float:
        """The share of a node's slots that is taken, 0 to 1."""
        record = self.nodes.get(node)
        return 1.0 if record is None else len(self.on_node.get(node, ())) / max(1, record.slots)

    def group_room(self, name: str | None) -> int:
        """How many more runs may be on nodes under a group's cap; a group that is gone caps nothing."""
        group = None if name is None else self.groups.get(name)
        return _NO_CAP if group is None else group.max_running - self.group_running.get(group.name, 0)

    def is_held(self, run: Run) -> bool:
        """Whether a pause holds this queued run; what was asked for by hand goes on (semantics 6)."""
        job = self.by_uid.get(run.uid)
        return job is not None and job.paused and run.cause != CAUSE_MANUAL

    def has_room(self, uid: int) -> bool:
        """Whether one more run of this job may go on beside those that do (semantics 7)."""
        most = self.policies[uid].max_running
        if most == UNLIMITED:
            return True
        waiting = len(self.turns.get(uid, ())) + len(self.backfills.get(uid, ()))
        return len(self.active.get(uid, ())) - waiting < most

    def may_start(self, run: Run) -> bool:
        """Whether a queued run may be given a place: it is its turn among those of its job, and no pause holds it."""
        return not run.waits_turn and not self.is_held(run)

    def lane_of(self, run: Run) -> Lane | None:
        """What a queued run waits for; None if it is not in the queue."""
        return self._lane_of.get(run.id)

    def active_with_parts(self, uid: int) -> list[Run]:
        """A job's runs that have not ended, each with its parts behind it."""
        found: list[Run] = []
        for run in self.active.get(uid, {}).values():
            found.append(run)
            if run.split is not None:
                found.extend(self.active_parts.get(run.id, {}).values())
        return found

    # ---- changes: for core.apply alone

    def add_run(self, run: Run) -> None:
        """A new row, active or ended already."""
        self.runs.put(run)
        self._touched[id(run)] = run
        self.note(run)
        if run.state in ENDED:
            self._end(run)  # which may drop it at once
            return
        self._note_active(run)
        self._index(run)

    def move(self, run: Run, state: str, node: str | None = None, group: str | None = None) -> None:
        """Change an active run's state and keep the indexes true.

        For states on a node also its node, and the group under whose cap it counts from then on.
        """
        self._unindex(run)
        if run.answer_by is not None and state not in STARTED:
            run.answer_by = run.heard_at = None
        run.state = state
        if state not in ON_A_NODE:
            run.group, run.is_process = None, False
        self._touched[id(run)] = run
        self.note(run)
        if state in ENDED:
            if run.part is None:
                active = self.active[run.uid]
                del active[run.id]
                if not active:
                    del self.active[run.uid]
            else:
                parts = self.active_parts[run.part.parent]
                del parts[run.id]
                if not parts:
                    del self.active_parts[run.part.parent]
            if run.waits_turn:
                self._leave_turns(run)
            self._end(run)
        else:
            if state not in ON_A_NODE:
                run.node = None
            elif node is not None:
                run.node, run.group = node, group
            self._index(run)

    def hand_over(self, run: Run, answer_by: int) -> None:
        """A started run is its target's from now on: no node's slot is taken, and no node's loss ends it."""
        self._unindex(run)
        run.answer_by, run.is_process = answer_by, False
        self._index(run)
        self._touched[id(run)] = run
        self.note(run)

    def divide(self, run: Run, split: Split) -> None:
        """A queued run becomes a parent: from now on its parts, which are added next, do its work."""
        self._unindex(run)
        run.state, run.split = RUNNING, split
        self.divided[run.id] = split.names
        self._touched[id(run)] = run
        self.note(run)

    def release(self, run: Run) -> None:
        """A run that waits for its back-off or its jitter is queued, and may start."""
        del self.waiting[run.id]
        run.state, run.not_before = QUEUED, 0
        self._index(run)
        self._touched[id(run)] = run
        self.note(run)

    def give_turn(self, run: Run) -> None:
        """A queued run no longer waits for others of its job."""
        self._unindex(run)
        self._leave_turns(run)
        run.blocked_by = None
        self._index(run)
        self._touched[id(run)] = run
        self.note(run)

    def take_turn(self, run: Run) -> None:
        """A queued run of a backfill waits for others of its job again, in its old place among those that do."""
        self._unindex(run)
        run.waits_turn = True
        active = self.active[run.uid].values()
        self.backfills[run.uid] = {one.id: one for one in active if one.waits_turn and one.cause == CAUSE_BACKFILL}
        self._index(run)
        self._touched[id(run)] = run
        self.note(run)

    def hold(self, job: Job) -> None:
        """The job's pause has begun or ended: what is queued may start no longer, or again."""
        for run in self.active_with_parts(job.uid):
            if run.state == QUEUED:
                self._unindex(run)
                self._index(run)
                self.note(run)

    def queue_anew(self, job: Job) -> None:
        """The job's definition has changed: its queued runs may wait for something else."""
        for run in self.active_with_parts(job.uid):
            lane = self._lane_of.get(run.id)
            if lane is not None and lane != self._lane(run):
                self._unindex(run)
                self._index(run)

    # ---- details

    def _note_active(self, run: Run) -> None:
        if run.part is not None:
            self.active_parts.setdefault(run.part.parent, {})[run.id] = run
            return
        active = self.active.get(run.uid)
        if active is None:
            self.active[run.uid] = {run.id: run}
        else:
            active[run.id] = run
        if run.waits_turn:
            self._line_of(run).setdefault(run.uid, {})[run.id] = run

    def _index(self, run: Run) -> None:
        state = run.state
        if run.split is not None:
            return  # its parts wait and run
        if run.group is not None:
            self.group_running[run.group] = self.group_running.get(run.group, 0) + 1
        if run.answer_by is not None:
            self.taken_over[run.id] = run
        elif state in ON_A_NODE:
            node = run.node or ""
            self.on_node.setdefault(node, {})[run.id] = run
            if run.is_process:
                self.processes[node] = self.processes.get(node, 0) + 1
        elif state == QUEUED and not run.not_before:
            if not self.may_start(run):
                self.held[run.id] = run
                return
            lane = self._lane_of[run.id] = self._lane(run)
            self.queued[run.id] = run
            runs = self.lanes.get(lane)
            if runs is None:
                self.lanes[lane] = {run.id: run}
            else:
                runs[run.id] = run
        else:
            self.waiting[run.id] = run

    def _unindex(self, run: Run) -> None:
        state = run.state
        if run.split is not None:
            return
        if run.group is not None:
            self._leave_group(run.group)
        if run.answer_by is not None:
            del self.taken_over[run.id]
        elif state in ON_A_NODE:
            node = run.node or ""
            del self.on_node[node][run.id]
            if run.is_process:
                self.processes[node] -= 1
        elif state == QUEUED and not run.not_before:
            if self.held.pop(run.id, None) is not None:
                return
            del self.queued[run.id]
            lane = self._lane_of.pop(run.id)
            runs = self.lanes[lane]
            del runs[run.id]
            if not runs:
                del self.lanes[lane]
        else:
            del self.waiting[run.id]

    def _leave_turns(self, run: Run) -> None:
        run.waits_turn = False
        line = self._line_of(run)
        turns = line[run.uid]
        del turns[run.id]
        if not turns:
            del line[run.uid]

    def _line_of(self, run: Run) -> dict[int, dict[str, Run]]:
        return self.backfills if run.cause == CAUSE_BACKFILL else self.turns

    def _lane(self, run: Run) -> Lane:
        return lane_of(self.policies[run.uid], run)

    def _leave_group(self, name: str) -> None:
        count = self.group_running[name] - 1
        if count:
            self.group_running[name] = count
        else:
            del self.group_running[name]
