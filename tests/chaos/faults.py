"""The faults of a campaign, by name: what each does to the cluster, what must hold meanwhile, and its end.

    leader, follower, majority, all     SIGKILL; of a majority the leader dies last
    in-snapshot, in-compaction          SIGKILL while a snapshot is being written, or the log cut behind it
    wipe                                a follower starts on an empty disk, is refused, and gets its own one back
    stall, long-stall                   SIGSTOP of the leader, for less or more than a lease
    nap, long-nap                       the same of a follower
    starve                              the leader has a tenth of its time, in slices of a few milliseconds
    freeze                              SIGSTOP of both followers: the leader's proposals hang
    cut-leader, cut-follower            nothing goes from it to its peers, nor back
    mute-leader, deaf-leader            nothing goes from it, or nothing to it
    cut-pair, cut-followers             one connection is cut: leader and follower, or two followers
    clock-leader, clock-follower        its wall clock steps, far or near, and is set right later
    clock-start                         a follower dies, and starts with a clock that is wrong for a while
    clock-heirs                         a follower's clock steps and the leader dies: those left have no one time
    power-leader, power-follower,
    power-all                           what was not synced is gone; at once for all

What is asserted here holds for that fault alone; what holds for all of them is the checker's.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.chaos.log_cuts import LogCut
from tests.cluster.disks import DiskCluster
from tests.cluster.harness import eventually
from tests.cluster.network import CutCluster
from tests.cluster.wall_clocks import WallClockCluster

if TYPE_CHECKING:
    from tests.chaos.campaign import Campaign

ELECTION_SECONDS = 5.0  # at most, until the others have a leader, and a leader that is cut off knows that it is none
SLICE_SECONDS = 0.1
TRIES = 8  # a stopped process ends the system call that it is in, which may be its last of a snapshot
FILL_BYTES = 200_000
FILLS = 400  # of these; far more than four times any state here, at which a snapshot is due whatever else is so
OFTEN_BYTES = 64 << 10  # a snapshot is due after so many or a hundred entries, and so many are kept behind it, with
OFTEN = ("--snapshot-bytes", "64KiB", "--snapshot-entries", "100")
SKEW_SECONDS = 5.0  # clocks that are further apart do not agree (max_clock_skew)
LOOK_SECONDS = 1.2  # within which each node has looked at all clocks, where nothing tells of it
TOLD_SECONDS = 30.0  # within which it is told that a clock is wrong, or that no two clocks agree


class Round(NamedTuple):
    """One fault: its kind, whether it waits for runs in flight, how long it lasts, how long is quiet after it.

    `step_seconds`: by so much a wall clock is wrong meanwhile.
    """

    kind: str
    in_flight: bool
    down_seconds: float
    quiet_seconds: float
    step_seconds: float = 0.0


Strike = Callable[["Campaign", Round, str, list[str]], Awaitable[tuple[str, ...]]]


class Sort(NamedTuple):
    """`strike(campaign, round, leader, followers)` does it, ends it and gives the nodes that it befell."""

    strike: Strike
    ends_leases: bool = False


# ---- plans -----------------------------------------------------------------------------------------------------------

SHORT = ("leader",) * 8 + ("follower",) * 4 + ("majority",) * 2 + ("freeze", "stall")  # 10 leaders, 6 followers die
SHORT_CLOCKS = ("clock-leader",) * 4 + ("clock-follower",) * 2 + ("clock-start",) * 2  # as many as there are steps
LONG = (*SHORT, "all")
STEPS = [sign * seconds for sign in (1, -1) for seconds in (0.1, 6.0, 3_600.0, 365 * 86_400.0)]


def rounds_of(kinds: Iterable[str], dice: random.Random) -> Iterator[Round]:
    """Every second round waits for runs in flight; clocks take each step once before any comes again.

    Where nobody can commit, that lasts for more than the 2 s that a write is held, so that 503 is seen; a stalled
    leader sleeps for longer than an election takes, and far shorter than its lease.
    """
    steps = itertools.cycle(dice.sample(STEPS, len(STEPS)))
    for place, kind in enumerate(kinds):
        if kind in CLOCKS:
            yield Round(kind, place % 2 == 0, 0.0, dice.uniform(0.1, 0.3), next(steps))
            continue
        is_brief = kind in ("leader", "follower")
        yield Round(
            kind, place % 2 == 0 or not is_brief, dice.uniform(0.1, 0.8) if is_brief else 2.3, dice.uniform(0.1, 1.2)
        )


def short_rounds(seed: int, more: Iterable[str] = ()) -> Iterator[Round]:
    """The least that gives a verdict, and `more`, in an order of its own for each seed."""
    dice = random.Random(seed)
    kinds = (*SHORT, *more)
    return rounds_of(dice.sample(kinds, len(kinds)), dice)


def long_rounds(seed: int, minutes: float, more: Iterable[str] = ()) -> Iterator[Round]:
    """The least that gives a verdict, and more until the time is over; `more` kinds beside those that need no root."""
    dice = random.Random(seed)
    deadline = time.monotonic() + minutes * 60
    choice = (*LONG, *more)

    def kinds() -> Iterator[str]:
        yield from dice.sample(choice, len(choice))
        while time.monotonic() < deadline:
            yield dice.choice(choice)

    return rounds_of(kinds(), dice)


# ---- death -----------------------------------------------------------------------------------------------------------


async def _kill(campaign: Campaign, each: Round, leader: str, victims: list[str]) -> tuple[str, ...]:
    """SIGKILL of these, one after the other; those who are left go on before the dead come back."""
    down = {}
    for victim in victims:
        at = await campaign.wait_in_flight(victim, leader) if each.in_flight else await campaign.now()
        await campaign.cluster.kill(victim)
        down[campaign.dies(victim, leader, at)] = victim
    if len(victims) == 1:
        await campaign.wait_fires()
    # The length of the outage is part of the plan; nothing is awaited here, nor in the pauses and cuts below.
    await asyncio.sleep(each.down_seconds)
    await campaign.revive(down)
    return tuple(victims)


async def kill_leader(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _kill(campaign, each, leader, [leader])


async def kill_follower(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _kill(campaign, each, leader, followers[:1])


async def kill_majority(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _kill(campaign, each, leader, [followers[0], leader])


async def kill_all(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _kill(campaign, each, leader, [*followers, leader])


@asynccontextmanager
async def _at_work(
    campaign: Campaign, others: list[str], is_at_work: Callable[[], bool], what: str
) -> AsyncIterator[None]:
    """Fills the log, through other nodes, until it is seen what a node does when its log has grown; then the body runs.

    How soon that comes must not be left to the load: the log is cut once it exceeds the last snapshot, which grows with
    the campaign.  It looks without a pause to speak of: what is waited for lasts for milliseconds.
    """
    is_over = asyncio.Event()

    async def fill() -> None:
        for _ in range(FILLS):
            if not is_over.is_set():
                await campaign.fill(others)

    filling = asyncio.create_task(fill())
    try:
        while not is_at_work():
            assert not filling.done(), f"{FILLS * FILL_BYTES} bytes of log have not made it so: {what}"
            await asyncio.sleep(0.0005)
        yield
    finally:
        is_over.set()
        await filling


async def kill_in_snapshot(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    """The leader, until one has died; then whoever it falls on.

    It is stopped first, with the child that writes: whoever had just finished goes on until the next snapshot.
    """
    victim, *others = campaign.dice.sample([leader, *followers], 1 + len(followers))
    if not any(kill.role == "leader" for kill in campaign.kills):
        victim, others = leader, followers
    folder = campaign.cluster.nodes[victim].data / "snapshots"

    def is_writing() -> bool:
        return any(folder.glob("*.writing"))

    def is_caught() -> bool:
        if is_writing():
            campaign.cluster.sigstop(victim, with_children=True)
            if is_writing():
                return True
            campaign.cluster.sigcont(victim, with_children=True)
        return False

    for _ in range(TRIES):
        async with _at_work(campaign, others, is_caught, f"{victim} writes a snapshot"):
            await campaign.cluster.kill(victim)
        at = await campaign.now()
        is_unfinished = is_writing()
        await campaign.revive({campaign.dies(victim, leader, at): victim})
        if is_unfinished:
            return (victim,)
        leader = await campaign.cluster.wait_leader(within=ELECTION_SECONDS)
    raise AssertionError(f"{victim} was never killed in the middle of a snapshot")


async def kill_in_compaction(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    """A follower, once a segment has gone; if none that was to go is left by then, again at the next cut."""
    assert set(OFTEN) <= set(campaign.cluster.extra), f"it would take long: start the nodes with {OFTEN}"
    names = (*followers, leader)
    for _ in range(TRIES):
        victim = next(name for name in names if name != leader)
        others = [name for name in names if name != victim]
        node = campaign.cluster.nodes[victim]
        cut = LogCut(node.data, node.err, OFTEN_BYTES)
        async with _at_work(campaign, others, cut.goes_on, f"{victim} cuts its log"):
            await campaign.cluster.kill(victim)
        at = await campaign.now()
        is_unfinished = cut.is_unfinished()
        await campaign.revive({campaign.dies(victim, leader, at): victim})
        if is_unfinished:
            return (victim,)
        leader = await campaign.cluster.wait_leader(within=ELECTION_SECONDS)
    raise AssertionError("no follower was ever killed in the middle of a cut of its log")


async def wipe(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    """A node that lost its disk is a stranger: it ends by itself, and says what replaces it."""
    victim = followers[0]
    node = campaign.cluster.nodes[victim]
    at = await campaign.now()
    await campaign.cluster.kill(victim)
    place = campaign.dies(victim, leader, at)
    kept = Path(f"{node.data}.kept")
    node.data.rename(kept)
    before = len(node.output)
    campaign.cluster.spawn(victim)
    code = await campaign.cluster.wait_exit(victim)
    said = node.output[before:]
    assert code == 2, f"exit code {code}: {said}"
    assert f"raftcron cluster replace {victim}" in said, said
    await campaign.wait_fires()
    shutil.rmtree(node.data)
    kept.rename(node.data)
    await campaign.revive({place: victim})
    return (victim,)


# ---- pauses ----------------------------------------------------------------------------------------------------------


async def _pause(campaign: Campaign, each: Round, names: list[str]) -> tuple[str, ...]:
    for name in names:
        campaign.cluster.sigstop(name)
    await asyncio.sleep(each.down_seconds)
    for name in names:
        campaign.cluster.sigcont(name)
    return tuple(names)


async def pause_leader(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    if each.in_flight:
        await campaign.wait_in_flight(leader, leader)
    return await _pause(campaign, each, [leader])


async def pause_follower(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _pause(campaign, each, followers[:1])


async def pause_followers(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _pause(campaign, each, followers)


async def starve_leader(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    """As on a machine that is given to others: whether it goes on leading is its own matter."""
    end = time.monotonic() + each.down_seconds
    while time.monotonic() < end:
        campaign.cluster.sigstop(leader)
        await asyncio.sleep(0.9 * SLICE_SECONDS)
        campaign.cluster.sigcont(leader)
        await asyncio.sleep(0.1 * SLICE_SECONDS)
    return (leader,)


# ---- cuts ------------------------------------------------------------------------------------------------------------


def _cuttable(campaign: Campaign) -> CutCluster:
    assert isinstance(campaign.cluster, CutCluster), "the connections of this cluster cannot be cut"
    return campaign.cluster


async def _depose(campaign: Campaign, each: Round, cut: Callable[[CutCluster, str], None]) -> tuple[str, ...]:
    """Once `cut` has cut off the leader the others go on, it steps down and refuses, and comes back as a follower."""
    cluster, victims = _cuttable(campaign), list[str]()

    async def judge() -> None:
        cluster.heal()
        victims.append(await cluster.wait_leader(within=ELECTION_SECONDS))
        cut(cluster, victims[-1])
        await _steps_down(campaign, each, victims[-1])

    await cluster.in_calm(judge)
    return tuple(dict.fromkeys(victims))


async def _steps_down(campaign: Campaign, each: Round, leader: str) -> None:
    cluster = _cuttable(campaign)
    successor = await cluster.wait_leader(other_than=leader, within=ELECTION_SECONDS)

    async def stepped_down() -> bool:
        return (await cluster.status(leader))["leader"] != leader

    await eventually(stepped_down, within=ELECTION_SECONDS, what=f"{leader} knows that it leads no more")
    if each.kind == "cut-leader":
        assert (status := await campaign.write_once(leader)) == 503, f"{leader} is alone and answers a write {status}"
    await campaign.wait_fires()
    await asyncio.sleep(each.down_seconds)
    term = (await cluster.status(successor))["term"]
    cluster.heal()
    await _follows(campaign, leader, successor, term)


async def _follows(campaign: Campaign, name: str, leader: str, term: int) -> None:
    """A node that was cut off comes back: it follows the leader that there is, and no term has passed."""
    cluster = campaign.cluster

    async def follows() -> bool:
        return (await cluster.status(name))["leader"] == leader

    await eventually(follows, within=ELECTION_SECONDS, what=f"{name} follows {leader}")
    seen = {each: await cluster.status(each) for each in (leader, name)}
    stood = {each: (status["leader"], status["term"]) for each, status in seen.items()}
    assert set(stood.values()) == {(leader, term)}, f"{name} came back to {leader} in term {term}: {stood}"


async def cut_leader(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _depose(campaign, each, lambda cluster, leader: cluster.isolate(leader))


async def mute_leader(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    def cut(cluster: CutCluster, leader: str) -> None:
        for peer in cluster.others(leader):
            cluster.cut(leader, peer)

    return await _depose(campaign, each, cut)


async def deaf_leader(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    def cut(cluster: CutCluster, leader: str) -> None:
        for peer in cluster.others(leader):
            cluster.cut(peer, leader)

    return await _depose(campaign, each, cut)


async def _part(
    campaign: Campaign, each: Round, choose: Callable[[str, list[str]], tuple[str, list[str]]]
) -> tuple[str, ...]:
    """A cut that leaves the leader a majority deposes nobody, neither while it lasts nor when it ends.

    `choose(leader, followers)`: who is cut off from whom.
    """
    cluster, victims = _cuttable(campaign), list[str]()

    async def judge() -> None:
        cluster.heal()
        leader = await cluster.wait_leader(within=ELECTION_SECONDS)
        followers = cluster.others(leader)
        campaign.dice.shuffle(followers)
        one, others = choose(leader, followers)
        victims.extend((one, *others))
        term = (await cluster.status(leader))["term"]
        cluster.part([one], others)
        await campaign.wait_fires()
        await asyncio.sleep(each.down_seconds)
        status = await cluster.status(leader)
        assert (status["leader"], status["term"]) == (leader, term), f"a cut of {one} and {others} deposed {leader}"
        cluster.heal()
        await _follows(campaign, one, leader, term)

    await cluster.in_calm(judge)
    return tuple(dict.fromkeys(victims))


async def cut_follower(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _part(campaign, each, lambda leader, followers: (followers[0], [followers[1], leader]))


async def cut_pair(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _part(campaign, each, lambda leader, followers: (followers[0], [leader]))


async def cut_followers(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _part(campaign, each, lambda leader, followers: (followers[0], [followers[1]]))


# ---- clocks ----------------------------------------------------------------------------------------------------------


def _clocked(campaign: Campaign) -> WallClockCluster:
    assert isinstance(campaign.cluster, WallClockCluster), "the nodes of this cluster have no clocks of their own"
    return campaign.cluster


async def _seen(campaign: Campaign, name: str, seconds: float, by: str) -> None:
    """Until another node knows that this one's clock is wrong by so much; wrong by little it just is for as long."""
    if abs(seconds) <= SKEW_SECONDS:
        await asyncio.sleep(LOOK_SECONDS)
        return

    async def is_seen() -> bool:
        members = (await campaign.cluster.status(by))["members"]
        [offset] = [one["clock_offset_ms"] for one in members if one["name"] == name]
        return offset is not None and bool(abs(offset / 1000 - seconds) < SKEW_SECONDS / 2)

    await eventually(is_seen, within=TOLD_SECONDS, what=f"{by} sees the clock of {name} wrong by {seconds:g} s")


async def _step(campaign: Campaign, victim: str, seconds: float, by: str) -> None:
    """Until the node itself knows that its clock has stepped, and another that it is wrong."""
    cluster = _clocked(campaign)
    log = cluster.nodes[victim].err
    said = log.stat().st_size
    cluster.set_clock(victim, seconds)

    async def is_felt() -> bool:
        return b"clock_jumped" in log.read_bytes()[said:]

    if abs(seconds) > SKEW_SECONDS:
        await eventually(is_felt, within=TOLD_SECONDS, what=f"{victim} says that its clock has jumped by {seconds:g} s")
    await _seen(campaign, victim, seconds, by)


async def clock_leader(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    """Beyond the skew it hands over, once a minute at most: whoever leads then goes on by what it trusts."""
    if each.in_flight:
        await campaign.wait_in_flight(leader, leader)
    await _step(campaign, leader, each.step_seconds, by=followers[0])
    await campaign.wait_fires()
    _clocked(campaign).set_clock(leader, 0.0)
    return (leader,)


async def clock_follower(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    await _step(campaign, followers[0], each.step_seconds, by=leader)
    await campaign.wait_fires()
    _clocked(campaign).set_clock(followers[0], 0.0)
    return (followers[0],)


async def clock_start(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    """It has trusted nothing before, and takes what a majority agrees on."""
    cluster, victim = _clocked(campaign), followers[0]
    at = await campaign.now()
    await cluster.kill(victim)
    cluster.set_clock(victim, each.step_seconds)
    await campaign.revive({campaign.dies(victim, leader, at): victim})
    await _seen(campaign, victim, each.step_seconds, by=leader)
    await campaign.wait_fires()
    cluster.set_clock(victim, 0.0)
    return (victim,)


async def clock_heirs(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    """Whoever of the two leads goes on by what it has trusted before, says so, and believes neither clock alone."""
    cluster, victim = _clocked(campaign), followers[0]
    await _step(campaign, victim, each.step_seconds, by=leader)
    at = await campaign.now()
    await cluster.kill(leader)
    place = campaign.dies(leader, leader, at)
    heir = await cluster.wait_leader(other_than=leader, within=ELECTION_SECONDS)
    if abs(each.step_seconds) > SKEW_SECONDS:

        async def is_said() -> bool:
            return bool((await cluster.status(heir))["clock_untrusted"])

        await eventually(is_said, within=TOLD_SECONDS, what=f"{heir} says that nobody agrees with it on the time")
    await campaign.wait_fires()
    await campaign.revive({place: leader})
    cluster.set_clock(victim, 0.0)
    return (victim, leader)


# ---- power -----------------------------------------------------------------------------------------------------------


async def _cut_power(campaign: Campaign, each: Round, leader: str, victims: list[str]) -> tuple[str, ...]:
    assert isinstance(campaign.cluster, DiskCluster), "the nodes of this cluster have no disks of their own"
    at = await campaign.now()
    down = {campaign.dies(victim, leader, at): victim for victim in victims}
    await campaign.cluster.cut_power(*victims)
    await asyncio.sleep(each.down_seconds)
    await campaign.revive(down)
    return tuple(victims)


async def power_leader(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _cut_power(campaign, each, leader, [leader])


async def power_follower(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _cut_power(campaign, each, leader, followers[:1])


async def power_all(campaign: Campaign, each: Round, leader: str, followers: list[str]) -> tuple[str, ...]:
    return await _cut_power(campaign, each, leader, [leader, *followers])


CUTS = {
    "cut-leader": Sort(cut_leader, ends_leases=True),
    "mute-leader": Sort(mute_leader, ends_leases=True),
    "deaf-leader": Sort(deaf_leader, ends_leases=True),
    "cut-follower": Sort(cut_follower),
    "cut-pair": Sort(cut_pair),
    "cut-followers": Sort(cut_followers),
}
CLOCKS = {
    "clock-leader": Sort(clock_leader),
    "clock-follower": Sort(clock_follower),
    "clock-start": Sort(clock_start),
    "clock-heirs": Sort(clock_heirs),
}
POWER_CUTS = {
    "power-leader": Sort(power_leader),
    "power-follower": Sort(power_follower),
    "power-all": Sort(power_all),
}
FAULTS = {
    "leader": Sort(kill_leader),
    "follower": Sort(kill_follower),
    "majority": Sort(kill_majority),
    "all": Sort(kill_all),
    "wipe": Sort(wipe),
    "in-snapshot": Sort(kill_in_snapshot),
    "in-compaction": Sort(kill_in_compaction),
    "stall": Sort(pause_leader),
    "long-stall": Sort(pause_leader, ends_leases=True),
    "nap": Sort(pause_follower),
    "long-nap": Sort(pause_follower, ends_leases=True),
    "starve": Sort(starve_leader, ends_leases=True),
    "freeze": Sort(pause_followers),
    **CUTS,
    **CLOCKS,
    **POWER_CUTS,
}
