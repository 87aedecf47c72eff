"""The run protocol rule by rule (semantics 5.2 to 5.8): what shows that each rule is needed, and that it is kept.

`RULES` names them as the explicit model of the protocol did from which they were written.  A rule has a course of
events of its own here, in which a checker fires as soon as the rule is switched off and none does as long as it holds;
or it is one of mutants.py; or the spawner keeps it, which no simulation has, and a test with real processes names it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from raftcron.core.apply import leadership
from raftcron.core.commands import Announce, Expire, Start, Token
from raftcron.core.model import ASSIGNED, AT_LEAST_ONCE
from raftcron.ports import Attempt
from raftcron.runtime import leases, presence, scheduler, worker
from raftcron.runtime.leases import LeaseTimes
from raftcron.testing import sim_checks
from tests.simulation import off_protocol as off
from tests.simulation.mutants import LONG, NO_FALLBACK
from tests.simulation.off_runs import heartbeats_without_a_round
from tests.simulation.stage import LATE, SHORT, Stage, Step
from tests.simulation.switch import Replacement, handled, replaced

WORK_SECONDS = 12.0  # of an attempt: longer than any lease here
TWICE = {sim_checks.ONE_ATTEMPT, sim_checks.I2, sim_checks.I6, sim_checks.I9}


class Scene(NamedTuple):
    """A course of events with one run; `place` is its placement, `seconds` those of its user code."""

    play: Callable[[Stage], None]
    place: str = "leader"
    seconds: float = WORK_SECONDS
    times: LeaseTimes = SHORT
    start_deadline: str = "1m"


class Shown(NamedTuple):
    """A rule is needed: without it one of `checkers` fires in `scene`.  `given` holds with it and without it."""

    text: str
    scene: Scene
    without: list[Replacement]
    checkers: set[str]
    given: list[Replacement] = []
    seed: int = 0


class Elsewhere(NamedTuple):
    """A rule is a mutant of mutants.py, or kept by what no simulation has: then it is a test, file::name."""

    text: str
    where: str


class Silent(NamedTuple):
    """A second line: in the model no checker fires without it alone, and here none is tried; `instead` is the first."""

    text: str
    instead: str


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


# ---- the table -----------------------------------------------------------------------------------------------------

AT_WORK = Scene(leader_cut_off_at_work)
AWAY = partial(Scene, place="any")

RULES: dict[str, Shown | Elsewhere | Silent] = {
    # 5.2
    "plan_after_applied": Silent(
        "a new leader plans only after it has applied its leadership entry",
        "the watermark: what is decided stays decided",
    ),
    "epoch_check": Elsewhere("apply refuses a command of another epoch", "an entry of any epoch counts"),
    "void": Silent(
        "a leadership entry voids what has not started", "a leader, which takes back what a silent node was given"
    ),
    "snapshot_unknown": Elsewhere(
        "what is pending when a snapshot is installed is unknown", "not written is said of what a snapshot holds"
    ),
    "not_written_waits": Elsewhere("'not written' only past a newer leadership entry", "unknown is called not written"),
    "start_deadline": Silent(
        "`start` is refused past the start deadline", "the gate, which asks as well (`gate_deadline`)"
    ),
    "expire_assigned": Shown(
        "past the start deadline an assigned run that has not started ends too",
        AWAY(executor_stalls_when_assigned, start_deadline="1s", times=LONG),
        [handled(Expire, off.expire_but_assigned)],
        {sim_checks.LIVENESS},
    ),
    # 5.4
    "gate_state": Silent("the gate looks at the newest state", "tokens, since a run that has gone on has a higher one"),
    "gate_inc": Elsewhere("only of its own incarnation", "a restart starts it again"),
    "gate_started": Shown(
        "no token that this process has started",
        Scene(run_ends_unheard, seconds=0.3),
        [(worker.Worker, "_look", off.look_at_what_has_started)],
        TWICE,
    ),
    "gate_refused": Elsewhere("no token that this process has refused", "a refused token starts after all"),
    "gate_lease": Elsewhere("only under a heartbeat's answer that still holds", "the start gate is open"),
    "gate_epoch": Elsewhere(
        "that names the epoch it has applied",
        "tests/scenarios/test_attack.py::test_a_licence_of_another_epoch_opens_nothing",
    ),
    "gate_index": Elsewhere(
        "and it has applied the index named there",
        "tests/scenarios/test_attack.py::test_a_licence_that_names_an_index_not_yet_applied_opens_nothing",
    ),
    "gate_deadline": Shown(
        "by its own clock the start deadline has not passed",
        AWAY(executor_stalls_when_started, start_deadline="2s", times=LONG),
        [(worker, "start_deadline", off.no_deadline)],
        {LATE},
    ),
    # 5.5
    "assign_inc": Silent("no assignment to another incarnation than the state's", "`gate_inc` and `expire_assigned`"),
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
    "round_after": Elsewhere(
        "a round that began after the heartbeat arrived",
        "tests/raft/test_engine_reads.py::test_whoever_comes_while_a_question_is_out_waits_for_the_next",
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
        [(scheduler.Scheduler, "_propose", off.lose_slowly)],
    ),
    # 5.7
    "self_stop": Shown(
        "a worker whose lease ends stops its runs",
        AWAY(executor_cut_off_at_work),
        [(worker.Worker, "_lease_ended", off.nothing)],
        TWICE,
    ),
    "spawner_kills": Elsewhere(
        "the spawner kills by itself at lease minus margin",
        "tests/executors/test_node_death.py::test_a_stopped_daemon_cannot_keep_a_child_alive",
    ),
    "spawner_refuses": Elsewhere(
        "the spawner refuses a start from then on",
        "tests/executors/test_spawner.py::test_a_request_that_waited_in_the_pipe_of_a_stopped_spawner_is_refused",
    ),
    "exec_lease": Elsewhere(
        "a request carries the end of the lease that it was checked under",
        "tests/executors/test_spawner.py::test_a_start_past_its_licence_is_refused_whatever_newer_deadline_is_held",
    ),
    # 5.8
    "pipe_kill": Elsewhere(
        "the spawner kills its children when its daemon ends",
        "tests/executors/test_node_death.py::test_children_die_with_a_killed_daemon",
    ),
    "start_kill": Elsewhere(
        "a starting node first kills what its run directory names",
        "tests/executors/test_node_death.py::test_clean_up_after_daemon_and_spawner_were_killed",
    ),
    "kill_spawner": Elsewhere(
        "and the old spawner before",
        "tests/executors/test_node_death.py::test_clean_up_kills_an_old_spawner_that_is_stopped",
    ),
    "verify_dead": Elsewhere(
        "a daemon that loses its spawner sees its children gone before it reports",
        "tests/executors/test_spawner.py::test_a_spawner_that_is_stopped_is_found_and_replaced",
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
        "delivery": AT_LEAST_ONCE,
        "placement": {"on": scene.place},
        "start_deadline": scene.start_deadline,
    }
    with replaced([*rule.given, *([] if is_kept else rule.without)]):
        try:
            with Stage(rule.seed, job, code=code, times=scene.times) as stage:
                scene.play(stage)
                stage.heal()
                stage.settle()
        except sim_checks.Violation as violation:
            return violation.checker
    return None
