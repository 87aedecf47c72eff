"""The run protocol rule by rule (semantics 5.2 to 5.8): what shows that each rule is needed, and that it is kept.

`RULES` names them as the explicit model of the protocol did from which they were written.  A rule has a course of
events of its own here, in which a checker fires as soon as the rule is switched off and none does as long as it holds;
or it is one of mutants.py, or has a story in tests/scenarios.  What a spawner keeps is in spawner_scenes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from raftcron.core.apply import admission, leadership
from raftcron.core.commands import Announce, Decide, Expire, Lose, Start, Token
from raftcron.core.model import ASSIGNED, AT_LEAST_ONCE, AT_MOST_ONCE, RUNNING
from raftcron.executors import spawner
from raftcron.executors.custody import Custody
from raftcron.ports import Attempt
from raftcron.raft import leadership as raft_leadership
from raftcron.raft import reads, seam
from raftcron.runtime import assigner, leases, machine, presence, worker
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks, sim_processes
from raftcron.testing.sim_node import Life
from tests.simulation import off_protocol as off
from tests.simulation import off_spawner, spawner_scenes
from tests.simulation.mutants import LONG, NO_FALLBACK
from tests.simulation.off_runs import any_epoch, heartbeats_without_a_round
from tests.simulation.stage import LATE, SHORT, Stage, Step
from tests.simulation.switch import Replacement, handled, replaced

WORK_SECONDS = 12.0  # of an attempt: longer than any lease here
START_SECONDS = 4.0
TWICE = {sim_checks.ONE_ATTEMPT, sim_checks.I2, sim_checks.I6, sim_checks.I9}


class Scene(NamedTuple):
    """A course of events with one run; `place` is its placement, `seconds` those of its user code."""

    play: Callable[[Stage], None]
    place: str = "leader"
    seconds: float = WORK_SECONDS
    times: LeaseTimes = SHORT
    start_deadline: str = "1m"
    delivery: str = AT_LEAST_ONCE
    is_spawned: bool = False  # user code is a process that a spawner starts, instead of a part of the node's own


class Shown(NamedTuple):
    """A rule is needed: without it one of `checkers` fires in `scene`.

    `given` holds with it and without it: what slows the shipped code down, or a rule that stands in front of this one.
    """

    text: str
    scene: Scene
    without: list[Replacement]
    checkers: set[str]
    given: list[Replacement] = []
    seed: int = 0


class Elsewhere(NamedTuple):
    """A rule is a mutant of mutants.py, or has a test, file::name."""

    text: str
    where: str


# ---- courses of events -------------------------------------------------------------------------------------------


def _begun(stage: Stage) -> Step:
    """The run's user code has begun."""
    stage.until(lambda: bool(stage.starts), 8.0, "nothing started")
    return stage.steps[-1]


def leader_cut_off_at_work(stage: Stage) -> None:
    """A leader at work is cut off for longer than a lease; another one leads, and the run begins again."""
    _begun(stage)
    stage.cluster.run(0.4)
    stage.cut(stage.leader().name)
    stage.cluster.run(9.0)


def executor_heard_no_more_with_late_answers(stage: Stage) -> None:
    """What a leader answers arrives late at a node at work, which is then heard no more."""
    node = _begun(stage).node
    assert node is not None
    leader = stage.leader().name
    stage.cluster.network.slow[leader, node] = 1.35
    stage.cluster.run(3.8)
    stage.cluster.network.cut(node, leader)
    stage.cluster.run(7.0)


def executor_cut_off_at_work(stage: Stage) -> None:
    """A node at work is cut off for longer than a lease."""
    node = _begun(stage).node
    assert node is not None
    stage.cluster.run(0.3)
    stage.cut(node)
    stage.cluster.run(7.0)


def executor_comes_back_as_it_is_given_up(stage: Stage) -> None:
    """A node that has not heard yet that it may start is cut off, and back right when it is about to be given up."""
    node = stage.until_step("Start").node
    assert node is not None
    stage.lose(node)
    leader = stage.leader()
    stage.until(lambda: bool(leader.node.scheduler._losing), 8.0, "nobody was given up")
    stage.cluster.network.heal()
    stage.cluster.run(6.0)


def run_ends_unheard(stage: Stage) -> None:
    """A run on a leader ends while that is cut off; a worker looks at the state again, which says that it runs."""
    _begun(stage)
    stage.cut(stage.leader().name)
    stage.cluster.run(3.0)


def executor_restarts_at_work(stage: Stage) -> None:
    """A node at work is killed and starts anew at once, within its lease."""
    node = _begun(stage).node
    assert node is not None
    stage.cluster.run(0.3)
    stage.cluster.kill(node)
    stage.cluster.boot(node)
    stage.cluster.run(3.0)


def executor_stalls_when_assigned(stage: Stage) -> None:
    """A node stands still between an assignment and its question, beyond the start deadline, within its lease."""
    step = stage.until_step("Decide", state=ASSIGNED)
    assert step.node is not None
    stage.life(step.node).loop.pause(2.0)
    stage.cluster.run(6.0)


def executor_stalls_when_started(stage: Stage) -> None:
    """A node stands still between the entry that starts its run and the start, beyond the start deadline."""
    step = stage.until_step("Start")
    assert step.node is not None
    stage.life(step.node).loop.pause(4.0)
    stage.cluster.run(6.0)


def question_under_an_older_token(stage: Stage) -> None:
    """Somebody asks to start under a token that is not the run's newest."""
    step = stage.until_step("Decide", state=ASSIGNED)
    stage.propose(stage.leader(), Start([Token(step.run, step.token - 1)]))
    stage.cluster.run(3.0)


def announcement_that_comes_late(stage: Stage) -> None:
    """What a node's former life announced comes again while its present one is at work."""
    for name in stage.others(stage.leader().name):
        stage.cluster.kill(name)
        stage.cluster.boot(name)
        stage.cluster.run(1.2)
    node = _begun(stage).node
    leader = stage.leader()
    assert node is not None
    known = leader.machine.state.nodes[node]
    stage.propose(leader, Announce(node, known.incarnation - 1, known.http, known.raft, "", known.slots, known.slots))
    stage.cluster.run(6.0)


def disk_set_back_by_one_life(stage: Stage) -> None:
    """A node at work dies and comes back on a copy of its disk from before it began: its number is the same again."""
    cluster, copies = stage.cluster, {}
    for name in stage.others(stage.leader().name):
        cluster.kill(name)
        copies[name] = cluster.disks[name].copy()
        cluster.boot(name)
        cluster.run(1.2)
    node = _begun(stage).node
    assert node in copies, "the leader has begun it"
    cluster.kill(node)
    cluster.disks[node].set_back(copies[node])
    cluster.checks.set_back.add(node)
    cluster.may_fail.add(node)
    cluster.boot(node)
    cluster.run(2.0)
    if node in cluster.lives:
        cluster.checks.fail(sim_checks.FATAL, f"{node} goes on with an old copy of its disk")
    cluster.run(4.0)


def executor_hears_its_licence_before_it_hears_that_it_was_given_up(stage: Stage) -> None:
    """A node whose licences come too late waits at its gate, is cut off, given up, and back; it applies slowly then."""
    _wait_at_the_gate_and_lag(stage)
    stage.until_step("Lose")
    stage.cluster.network.heal()
    stage.cluster.run(6.0)


def executor_hears_its_licence_before_it_hears_who_leads(stage: Stage) -> None:
    """The same, and who gives it up leads only since it is cut off; it applies at once all that comes of that."""
    node, leader = _wait_at_the_gate_and_lag(stage), stage.leader()
    life, last, slows = stage.life(node), leader.machine.applied_index, stage.cluster.applied
    [third] = stage.others(node, leader.name)

    def applied(one: Life) -> None:
        slows(one)
        if one is life and one.machine.applied_index == last:
            seam.APPLY_ENTRIES = 1_000

    stage.cluster.applied = applied
    leader.loop.create_task(leader.log.transfer(third))
    stage.until_step("Lose")
    stage.cluster.network.heal()
    stage.cluster.run(6.0)


def _wait_at_the_gate_and_lag(stage: Stage) -> str:
    """A node waits at its gate, is cut off, and lacks some entries, each of which will hold it up; which one."""
    node, leader = stage.until_step("Decide", state=ASSIGNED).node, stage.leader()
    assert node is not None
    life, run = stage.life(node), stage.run()
    stage.cluster.network.slow[leader.name, node] = 2.6
    stage.until_step("Start")
    stage.until(lambda: life.machine.state.runs[run.id].state == RUNNING, 4.0, "it did not hear of its start")
    stage.lose(node)
    for _ in range(6):
        stage.propose(leader, Start([Token(run.id, 0)]))
    stage.cluster.run(0.01)
    stage.cluster.applied = lambda one: one.loop.pause(0.25) if one is life else None
    return node


def leader_killed_as_it_falls_due(stage: Stage) -> None:
    """A leader dies right before the time at which the run falls due."""
    stage.cluster.run(4.999 - stage.cluster.now)
    stage.cluster.kill(stage.leader().name)
    stage.cluster.run(4.0)


def executor_waits_for_its_licence_as_it_is_given_up(stage: Stage) -> None:
    """A node whose licences come too late waits at its gate, is cut off, given up, and back with a licence."""
    node, leader = stage.until_step("Decide", state=ASSIGNED).node, stage.leader()
    assert node is not None
    network, life, run = stage.cluster.network, stage.life(node), stage.run()
    network.slow[leader.name, node] = 2.6
    stage.until_step("Start")
    stage.until(lambda: life.machine.state.runs[run.id].state == RUNNING, 4.0, "it did not hear of its start")
    stage.lose(node)
    stage.until_step("Lose")
    network.heal()
    stage.cluster.run(6.0)


def executor_dies_as_another_one_leads(stage: Stage) -> None:
    """A node dies as soon as it is given a run, and then the lead goes to the third one."""
    step = stage.until_step("Decide", state=ASSIGNED)
    assert step.node is not None
    stage.cluster.kill(step.node)
    [third] = stage.others(step.node, step.leader)
    leader = stage.life(step.leader)
    leader.loop.create_task(leader.log.transfer(third))
    _expect_start(stage)


def executor_is_late_by_the_leaders_clock_alone(stage: Stage) -> None:
    """A node whose clock is behind stands still before its question, beyond the start deadline."""
    for name in stage.others(stage.leader().name):
        stage.cluster.clocks[name].set(-2.0)
    node = stage.until_step("Decide", state=ASSIGNED).node
    assert node is not None
    stage.life(node).loop.pause(2.3)
    stage.cluster.run(6.0)


def executors_restart_while_it_is_decided(stage: Stage) -> None:
    """All nodes but the leader live anew between the decision to give one of them a run and its entry."""
    stage.cluster.run(5.3 - stage.cluster.now)
    for name in stage.others(stage.leader().name):
        stage.cluster.kill(name)
        stage.cluster.boot(name)
        stage.cluster.run(0.5)
    assert not stage.steps
    stage.until(lambda: bool(stage.steps), 3.0, "nothing is decided")
    _expect_start(stage)


def _expect_start(stage: Stage) -> None:
    """The run waits for nothing, and nodes are there: it starts, with the time that a change of leader takes (I8)."""
    end = stage.cluster.now + START_SECONDS
    while not stage.starts and stage.cluster.now < end:
        stage.cluster.run(0.05)
    if not stage.starts:
        stage.cluster.checks.fail(sim_checks.I8, f"nothing has started {START_SECONDS} s later: {stage.steps}")
    stage.cluster.run(1.0)


def leader_hears_late_that_it_led(stage: Stage) -> None:
    """A leader has begun a run and asks whether it leads; it is told much later, when another one leads since long."""
    stage.until(lambda: bool(stage.steps), 8.0, "nothing was decided")
    leader, network = stage.leader(), stage.cluster.network
    others = stage.others(leader.name)
    for other in others:
        network.slow[other, leader.name] = 4.6
    stage.cluster.run(0.5)
    stage.until(lambda: leader.log._reads._rounds.number is not None, 2.0, "it asks nobody")
    stage.cluster.run(0.05)
    for other in others:
        network.cut(leader.name, other)
    assert not stage.starts
    stage.cluster.run(9.0)


# ---- the table -----------------------------------------------------------------------------------------------------

AT_WORK = Scene(leader_cut_off_at_work)
AWAY = partial(Scene, place="any")
SPAWNED = partial(Scene, place="any", is_spawned=True)

RULES: dict[str, Shown | Elsewhere] = {
    # 5.2
    "plan_after_applied": Shown(
        "a new leader plans only after it has applied its leadership entry",
        Scene(leader_killed_as_it_falls_due),
        [(raft_leadership.Leadership, "begin", off.begin_and_plan_at_once)],
        {sim_checks.EPOCH},
        [(machine, "apply", any_epoch)],
    ),
    "epoch_check": Elsewhere("apply refuses a command of another epoch", "an entry of any epoch counts"),
    "void": Shown(
        "a leadership entry voids what has not started",
        AWAY(executor_dies_as_another_one_leads, times=LONG),
        [(leadership, "unassign", off.nothing)],
        {sim_checks.I8},
        [(assigner.Assigner, "take_back", off.none_before_the_lease)],
    ),
    "snapshot_unknown": Elsewhere(
        "what is pending when a snapshot is installed is unknown", "not written is said of what a snapshot holds"
    ),
    "not_written_waits": Elsewhere(
        "'not written' only past a newer leadership entry",
        '"not written" at a step-down, before a newer leadership entry has applied',
    ),
    "start_deadline": Shown(
        "`start` is refused past the start deadline",
        AWAY(executor_is_late_by_the_leaders_clock_alone, start_deadline="2s", times=LONG),
        [handled(Start, off.start_past_its_deadline)],
        {sim_checks.IN_TIME},
        [off.slowly(Expire)],
    ),
    "expire_assigned": Shown(
        "past the start deadline an assigned run that has not started ends too",
        AWAY(executor_stalls_when_assigned, start_deadline="1s", times=LONG),
        [handled(Expire, off.expire_but_assigned)],
        {sim_checks.LIVENESS},
    ),
    # 5.4
    "gate_state": Shown(
        "the gate looks at the newest state",
        AWAY(executor_waits_for_its_licence_as_it_is_given_up, delivery=AT_MOST_ONCE),
        [(worker.Worker, "gate", off.gate_of_what_was_seen)],
        TWICE,
        [(worker, "SWEEP_SECONDS", 10.0)],
    ),
    "gate_inc": Elsewhere("only of its own incarnation", "a restart starts it again"),
    "gate_started": Shown(
        "no token that this process has started",
        Scene(run_ends_unheard, seconds=0.3),
        [(worker.Worker, "_look", off.look_at_what_has_started)],
        TWICE,
    ),
    "gate_refused": Elsewhere("no token that this process has refused", "a refused token starts after all"),
    "gate_lease": Elsewhere("only under a heartbeat's answer that still holds", "the start gate is open"),
    "gate_epoch": Shown(
        "that names the epoch it has applied",
        AWAY(executor_hears_its_licence_before_it_hears_who_leads),
        [(worker.Worker, "_is_valid", off.valid_in_any_epoch)],
        TWICE,
        [
            (seam, "APPLY_ENTRIES", 1),
            (worker, "GATE_WAIT_SECONDS", 9.0),
            (worker.Worker, "_is_valid", off.valid_whatever_has_applied),
        ],
    ),
    "gate_index": Shown(
        "and it has applied the index named there",
        AWAY(executor_hears_its_licence_before_it_hears_that_it_was_given_up),
        [(worker.Worker, "_is_valid", off.valid_whatever_has_applied)],
        TWICE,
        [(seam, "APPLY_ENTRIES", 1)],
    ),
    "gate_deadline": Shown(
        "by its own clock the start deadline has not passed",
        AWAY(executor_stalls_when_started, start_deadline="2s", times=LONG),
        [(worker, "start_deadline", off.no_deadline)],
        {LATE},
    ),
    # 5.5
    "assign_inc": Shown(
        "no assignment to another incarnation than the state's",
        AWAY(executors_restart_while_it_is_decided),
        [(admission, "begin", off.begin_in_any_life)],
        {sim_checks.I8},
        [off.slowly(Decide)],
    ),
    # 5.6
    "sent": Shown(
        "a worker counts from when it sent the heartbeat",
        AWAY(executor_heard_no_more_with_late_answers),
        [(presence.Presence, "_take", off.counted_from_the_answer)],
        TWICE,
    ),
    "leader_lease": Shown(
        "a leader waits for one lease before it gives up a node",
        AWAY(executor_cut_off_at_work),
        [(leases.LeaseKeeper, "seconds_left", off.given_up_early)],
        TWICE,
    ),
    "new_leader_lease": Shown(
        "a new leader waits for one lease from its leadership entry",
        AT_WORK,
        [(leases.LeaseKeeper, "seconds_left", off.given_up_by_a_new_leader)],
        TWICE,
    ),
    "quorum_round": Shown(
        "heartbeats are answered after a round of a majority",
        AT_WORK,
        [(leases.LeaseKeeper, "__init__", heartbeats_without_a_round)],
        TWICE,
        [NO_FALLBACK],
    ),
    "own_round": Shown(
        "a leader's own ones too",
        AT_WORK,
        [(presence.Presence, "_answer_own", off.own_at_once)],
        TWICE,
        [NO_FALLBACK],
    ),
    "round_after": Shown(
        "a round that began after the heartbeat arrived",
        Scene(leader_hears_late_that_it_led),
        [(reads.SharedQuestion, "join", off.join_what_is_out)],
        TWICE,
        [NO_FALLBACK, (worker.Worker, "_attempt", off.attempt_a_little_later)],
    ),
    "margin": Shown(
        "a worker stops a margin earlier: a kill takes its time",
        AWAY(executor_cut_off_at_work),
        [(presence.Presence, "_take", off.without_margin)],
        TWICE,
    ),
    "answer_after_lost": Shown(
        "who is about to be given up is answered only when that entry has applied",
        AWAY(executor_comes_back_as_it_is_given_up),
        [(leases.LeaseKeeper, "losing", off.answered_all_the_same)],
        TWICE,
        [off.slowly(Lose)],
    ),
    # 5.7
    "self_stop": Shown(
        "a worker whose lease ends stops its runs",
        AWAY(executor_cut_off_at_work),
        [(worker.Worker, "_lease_ended", off.nothing)],
        TWICE,
    ),
    "spawner_kills": Shown(
        "the spawner kills by itself at lease minus margin",
        SPAWNED(spawner_scenes.daemon_stopped_at_work),
        off_spawner.KILLS_NOTHING,
        TWICE,
    ),
    "spawner_refuses": Shown(
        "the spawner refuses a start from then on",
        SPAWNED(spawner_scenes.machine_frozen_with_a_start_in_its_pipe),
        [(Custody, "refusal", off_spawner.refused_never)],
        TWICE,
    ),
    "exec_lease": Shown(
        "a request carries the end of the lease that it was checked under",
        SPAWNED(spawner_scenes.start_that_comes_late),
        [(Custody, "refusal", off_spawner.refused_by_what_is_held)],
        TWICE,
        [(sim_processes._Link, "write", off_spawner.write_the_first_start_late)],
    ),
    # 5.8
    "pipe_kill": Shown(
        "the spawner kills its children when its daemon ends",
        SPAWNED(spawner_scenes.daemon_killed_at_work),
        [(Custody, "clear", off_spawner.outlives_its_daemon)],
        TWICE,
        off_spawner.KILLS_NOTHING,
    ),
    "start_kill": Shown(
        "a starting node first kills what its run directory names",
        SPAWNED(spawner_scenes.daemon_restarted_at_work),
        [(spawner, "clean_up", off_spawner.clean_up_but_children)],
        TWICE,
    ),
    "kill_spawner": Shown(
        "and the old spawner before",
        SPAWNED(spawner_scenes.daemon_restarted_with_a_start_in_the_pipe),
        [(spawner, "clean_up", off_spawner.clean_up_but_spawner)],
        TWICE,
    ),
    "verify_dead": Shown(
        "a daemon that loses its spawner sees its children gone before it reports",
        SPAWNED(spawner_scenes.spawner_killed_at_work),
        [(spawner.Spawner, "_account_for_lost", off_spawner.lost_at_once)],
        TWICE,
    ),
    "lost_by_inc": Shown(
        "runs of a former incarnation are lost at once",
        AWAY(executor_restarts_at_work),
        [(leadership, "end_attempt", off.nothing)],
        {sim_checks.LIVENESS},
    ),
    # section 1 and the invariants
    "inc_order": Shown(
        "an incarnation below the state's is refused",
        AWAY(announcement_that_comes_late),
        [handled(Announce, off.announce_in_any_order)],
        TWICE | {sim_checks.FATAL},
    ),
    "inc_life": Shown(
        "an equal incarnation of another process is not taken in, and starts nothing",
        AWAY(disk_set_back_by_one_life),
        [(presence.Presence, "is_announced", property(off.announced_by_its_number))],
        TWICE | {sim_checks.FATAL},
    ),
    "watermark": Elsewhere("nothing is decided at or below the watermark", "the watermark is not looked at"),
    "token_check": Elsewhere("a report under an old token changes nothing", "a report under an old token counts"),
    "start_check": Shown(
        "`start` only under the run's newest token",
        AWAY(question_under_an_older_token),
        [handled(Start, off.start_under_any_token)],
        {sim_checks.I3, sim_checks.I6},
    ),
}


def play(name: str, *, is_kept: bool) -> str | None:
    """Which checker fires in the rule's course of events, with it or without it."""
    rule = RULES[name]
    assert isinstance(rule, Shown)
    scene = rule.scene

    def code(attempt: Attempt) -> tuple[float, bool]:
        return (scene.seconds if attempt.attempt == 1 else 1.0), False

    job = {
        "schedule": "@every 4s",
        "max_runs": 1,
        "delivery": scene.delivery,
        "placement": {"on": scene.place},
        "start_deadline": scene.start_deadline,
    }
    with replaced([*rule.given, *([] if is_kept else rule.without)]):
        try:
            with Stage(rule.seed, job, code=code, times=scene.times, is_spawned=scene.is_spawned) as stage:
                scene.play(stage)
                stage.heal()
                stage.settle()
        except sim_checks.Violation as violation:
            return violation.checker
    return None
