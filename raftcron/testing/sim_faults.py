"""The faults of one seed: which kinds it draws from, when each strikes and whom, and the end of all of them.

The load, and what must hold once all has healed, is sim_story.py's.
"""

from __future__ import annotations

from collections.abc import Callable

from raftcron.testing.chance import Chance, chance
from raftcron.testing.sim_clocks import WrongClocks
from raftcron.testing.sim_cluster import Cluster
from raftcron.testing.sim_copies import OldCopies
from raftcron.testing.sim_damage import Damage
from raftcron.testing.sim_disk import Disk
from raftcron.testing.sim_members import FEWEST_VOTERS, Operator
from raftcron.testing.sim_node import Life
from raftcron.testing.sim_processes import BoxFaults
from raftcron.testing.sim_releases import LATER, THIS
from raftcron.testing.sim_writes import FlippedWrites

LAG_SECONDS = 10.0  # at most, until the others have forgotten what a node lacks
LAST_CHANGE_SECONDS = 5.0  # before the faults end
MEMBERS_SHARE = 0.35  # of the seeds, in which members change
COPIES_SHARE = 0.2  # of the seeds, in which disks are set back
WRITES_SHARE = 0.4  # of the seeds, in which writes arrive as something else
ANSWERS_SHARE = 0.5  # of the seeds, in which answers are lost
DEAF_SECONDS = 4.0  # at most, until a follower has forgotten what its leader takes it to lack
KINDS = (
    "broken connection",
    "change of members",
    "clock drift",
    "clock step",
    "clocks jump together",
    "crash",
    "cut",
    "death in a write",
    "disk set back",
    "failing sync",
    "flipped bit",
    "flipped write",
    "frozen machine",
    "full disk",
    "isolation",
    "lagging node",
    "lost answers",
    "one-way cut",
    "orderly restart",
    "pause",
    "power cut",
    "power cut of all",
    "restart storm",
    "rolling restart",
    "rotten snapshot",
    "rotting snapshot",
    "slow disk",
    "slow link",
    "spawner killed",
    "spawner stopped",
    "upgrade",
    "wiped disk",
)
ENOUGH_KINDS = 3  # that a seed meets before any of them comes again


class Faults:
    """What happens to one cluster, drawn from `dice`, from `begin` to `end`, which comes at `latest` seconds."""

    def __init__(self, cluster: Cluster, dice: Chance, has_spawners: bool, *, latest: float) -> None:
        self._cluster = cluster
        self._dice = dice
        self._latest = latest
        cluster.died = self._ended_by_itself
        self.kinds: dict[str, int] = {}  # kind of fault -> how often it happened
        self.wrong_clocks = WrongClocks(
            self._cluster.clocks, self._cluster.names, self._cluster.true_time, dice, self._happened
        )
        self._held: set[str] = set()  # nodes with which a fault has something in mind
        self.damage = Damage(
            self._cluster,
            dice,
            self._held,
            someone=self._someone,
            happened=self._happened,
            up_later=self._up_later,
        )
        self._all: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "power cut": self._power_cut,
            "power cut of all": self._power_cut_of_all,
            "pause": self._pause,
            "cut": self._cut,
            "one-way cut": self._one_way_cut,
            "isolation": self._isolate,
            "slow link": self._slow_link,
            "broken connection": self._sever,
            "restart storm": self._restart_storm,
            "orderly restart": self._orderly_restart,
            "rolling restart": self._rolling_restart,
            "clock step": self.wrong_clocks.step,
            "clock drift": self.wrong_clocks.drift,
            "clocks jump together": self.wrong_clocks.jump_together,
            "full disk": self._full_disk,
            "failing sync": self._failing_sync,
            "slow disk": self._slow_disk,
            "death in a write": self._death_in_a_write,
            "flipped bit": self.damage.flipped_bit,
            "wiped disk": self.damage.wiped_disk,
            "rotten snapshot": self.damage.rotten_snapshot,
            "rotting snapshot": self.damage.rotting_snapshot,
            "lagging node": self._lagging_node,
            "upgrade": self._upgrade,
        }
        if has_spawners:
            boxes = BoxFaults(self._cluster, dice, self._someone, self._happened)
            self._all |= {"spawner killed": boxes.kill, "spawner stopped": boxes.stop, "frozen machine": boxes.freeze}
        chosen = dice.sample(sorted(self._all), dice.randint(4, 9))
        if dice.random() < MEMBERS_SHARE:
            self._all["change of members"] = self._change_of_members
            chosen += ["change of members"]
        self._enabled = {kind: self._all[kind] for kind in chosen}
        self._pace = dice.choice([0.6, 1.2, 2.4])
        self.are_over = False
        self.operator = Operator(self._cluster, dice, self._held, self._cluster.boot)
        copies = chance(cluster.seed, "copies")
        if copies.random() < COPIES_SHARE:
            self._enabled["disk set back"] = OldCopies(
                self._cluster,
                copies,
                self._held,
                self.operator,
                latest=latest,
                someone=self._someone,
                happened=self._happened,
                up_later=self._up_later,
            ).set_back
        writes = chance(cluster.seed, "writes")
        if writes.random() < WRITES_SHARE:
            self._enabled["flipped write"] = FlippedWrites(
                self._cluster,
                writes,
                self._held,
                self.operator,
                someone=self._someone,
                happened=self._happened,
                up_later=self._up_later,
            ).flip
        if chance(cluster.seed, "answers").random() < ANSWERS_SHARE:
            self._enabled["lost answers"] = self._lose_answers

    # ---- from the first to the last

    def begin(self) -> None:
        """From now on they strike."""
        self._cluster.conductor.after(self._wait(), self._strike)

    @property
    def are_at_work(self) -> bool:
        """Whether a node, a clock or a change of members is not as it should be; links and disks aside."""
        return bool(self._held or self.operator.is_busy or self.wrong_clocks.wrong)

    def end(self) -> None:
        """All that is wrong is put right, as far as it can be at once, and every node is up."""
        cluster = self._cluster
        self.are_over = True
        cluster.note("-", "all faults end")
        cluster.network.heal()
        self.wrong_clocks.right()
        for disk in cluster.disks.values():
            disk.free_bytes, disk.failing_syncs, disk.death_in, disk.sync_seconds = None, 0, None, 0.0002
        self.damage.end_rot()
        for life in cluster.lives.values():
            life.loop.resume()
        for box in cluster.boxes.values():
            box.thaw()
            box.resume_spawner()
        for name in cluster.names:
            self._up(name)

    def _up(self, name: str) -> None:
        """Boot, if nothing else is in mind with it."""
        cluster = self._cluster
        if name in cluster.names and name not in self._held and name not in cluster.lives:
            disk = cluster.disks[name]
            disk.free_bytes, disk.failing_syncs = None, 0
            cluster.may_fail.discard(name)
            cluster.boot(name)

    def _ended_by_itself(self, name: str) -> None:
        self._up_later(name, self._dice.uniform(0.1, 2.0))

    def _up_later(self, name: str, seconds: float) -> None:
        self._cluster.conductor.after(0.05 if self.are_over else seconds, self._up, name)

    # ---- faults

    def _wait(self) -> float:
        return self._dice.expovariate(1 / self._pace)

    def _strike(self) -> None:
        if self.are_over:
            return
        missing = [kind for kind in sorted(self._enabled) if kind not in self.kinds]
        kinds = missing if missing and len(self.kinds) < ENOUGH_KINDS else sorted(self._enabled)
        self._enabled[self._dice.choice(kinds)]()
        self._cluster.conductor.after(self._wait(), self._strike)

    def _happened(self, kind: str, where: str, what: str = "") -> None:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self._cluster.counts[f"fault: {kind}"] += 1
        self._cluster.note("-", f"{kind}: {where} {what}")

    def _someone(self) -> str | None:
        """A node that lives; the leader more often than the others."""
        cluster = self._cluster
        names = [name for name in cluster.lives if name in cluster.names and name not in self._held]
        leading = [life.name for life in self._cluster.clients.leaders() if life.name in names]
        if leading and self._dice.random() < 0.4:
            return self._dice.choice(leading)
        return self._dice.choice(names) if names else None

    def _down_seconds(self) -> float:
        return self._dice.choice([0.05, 0.5, 2.0, 2.0, 8.0]) * self._dice.uniform(0.5, 1.5)

    def _crash(self) -> None:
        if (name := self._someone()) is not None:
            self._happened("crash", name)
            self._cluster.kill(name)
            self._up_later(name, self._down_seconds())

    def _power_cut(self) -> None:
        if (name := self._someone()) is not None:
            self._happened("power cut", name)
            self._cluster.cut_power(name)
            self._up_later(name, self._down_seconds())

    def _power_cut_of_all(self) -> None:
        if self.kinds.get("power cut of all", 0) and self._dice.random() < 0.6:
            return
        self._happened("power cut of all", "")
        for name in list(self._cluster.names):
            if name in self._cluster.lives:
                self._cluster.cut_power(name)
            self._up_later(name, self._dice.uniform(0.1, 2.0))

    def _pause(self) -> None:
        if (name := self._someone()) is not None:
            seconds = self._dice.choice([0.2, 0.7, 1.5, 4.0, 12.0]) * self._dice.uniform(0.5, 1.5)
            self._happened("pause", name, f"{seconds:.2f} s")
            self._cluster.lives[name].loop.pause(seconds)

    def _pair(self) -> tuple[str, str]:
        one, other = self._dice.sample(self._cluster.names, 2)
        return one, other

    def _heal_later(self) -> None:
        self._cluster.conductor.after(self._dice.choice([0.3, 1.0, 3.0, 7.0]), self._heal_links)

    def _heal_links(self) -> None:
        self._cluster.note("-", "links heal")
        self._cluster.network.heal()

    def _cut(self) -> None:
        one, other = self._pair()
        self._happened("cut", f"{one} {other}")
        self._cluster.network.cut(one, other)
        self._cluster.network.cut(other, one)
        if self._dice.random() < 0.3:
            self._cluster.conductor.after(self._dice.uniform(0.0, 2.0), self._cluster.network.sever, one, other)
        self._heal_later()

    def _one_way_cut(self) -> None:
        one, other = self._pair()
        self._happened("one-way cut", f"{one} -> {other}")
        self._cluster.network.cut(one, other)
        self._heal_later()

    def _lose_answers(self) -> None:
        """A leader hears nothing of a follower until that has forgotten entries which the leader goes on to send it.

        Then their connection breaks, and the answers with it.
        """
        cluster = self._cluster
        leaders, lives = cluster.clients.leaders(), [cluster.lives.get(name) for name in cluster.names]
        up = [life for life in lives if life is not None and life.is_started and life.loop.busy_until <= cluster.now]
        if len(leaders) == 1 and len(up) == len(lives) and not cluster.network.cuts:  # else the leader would not last
            follower = self._dice.choice([life for life in up if life is not leaders[0]])
            self._happened("lost answers", f"{follower.name} -> {leaders[0].name}")
            self._until_it_forgets(follower, leaders[0], cluster.now + DEAF_SECONDS)

    def _until_it_forgets(self, follower: Life, leader: Life, latest: float) -> None:
        cluster, link = self._cluster, (follower.name, leader.name)
        are_up = all(cluster.lives.get(life.name) is life for life in (follower, leader))
        is_over = self.are_over or not are_up or not leader.log._core.is_leader or cluster.now > latest
        match, forgotten = leader.log._core.match_index(follower.name), follower.log._journal.first_index
        if is_over or leader.log._journal.first_index <= match < forgotten:
            cluster.network.sever(*link)
            self._heal_links()
            return
        cluster.network.cut(*link)  # also if something else that was wrong has healed it
        if follower.node.is_ready:  # a node that has just begun has no snapshot due: nothing has applied yet
            follower.log._compaction._is_wanted = True  # by chance they are due at other times than the leader's
        cluster.conductor.after(0.02, self._until_it_forgets, follower, leader, latest)

    def _isolate(self) -> None:
        name = self._someone() or self._cluster.names[0]
        way = self._dice.choice(["out", "in", "both"])
        self._happened("isolation", name, way)
        for other in self._cluster.names:
            if other != name:
                if way != "in":
                    self._cluster.network.cut(name, other)
                if way != "out":
                    self._cluster.network.cut(other, name)
        self._heal_later()

    def _slow_link(self) -> None:
        one, other = self._pair()
        seconds = self._dice.choice([0.01, 0.05, 0.2, 0.6])
        self._happened("slow link", f"{one} -> {other}", f"{seconds} s")
        self._cluster.network.slow[one, other] = seconds
        if self._dice.random() < 0.5:
            self._cluster.network.slow[other, one] = seconds
        self._heal_later()

    def _sever(self) -> None:
        one, other = self._pair()
        self._happened("broken connection", f"{one} {other}")
        self._cluster.network.sever(one, other)

    def _restart_storm(self) -> None:
        if (name := self._someone()) is None:
            return
        self._happened("restart storm", name)
        at = self._cluster.now
        for _ in range(self._dice.randint(3, 8)):
            at += self._dice.uniform(0.005, 0.6)
            self._cluster.conductor.at(at, self._restart, name)

    def _restart(self, name: str) -> None:
        if self.are_over or name in self._held:
            return
        if name in self._cluster.lives:
            self._cluster.kill(name)
        self._up(name)

    def _orderly_restart(self) -> None:
        if (name := self._someone()) is not None and self._cluster.lives[name].is_started:
            self._happened("orderly restart", name)
            self._cluster.lives[name].end()

    def _upgrade(self) -> None:
        """A node goes on with the later release; now and then one is set back to this one."""
        name, releases = self._someone(), self._cluster.releases
        if name is None or not self._cluster.lives[name].is_started:
            return
        if releases[name] == LATER and self._dice.random() < 0.8:
            return
        releases[name] = THIS if releases[name] == LATER else LATER
        self._happened("upgrade", name, f"to release {releases[name]}")
        if self._dice.random() < 0.7:
            self._cluster.lives[name].end()
        else:
            self._cluster.kill(name)
            self._up_later(name, self._down_seconds())

    def _rolling_restart(self) -> None:
        self._happened("rolling restart", "")
        at = self._cluster.now
        for name in self._cluster.names:
            self._cluster.conductor.at(at, self._end_orderly, name)
            at += self._dice.uniform(1.0, 3.0)

    def _end_orderly(self, name: str) -> None:
        life = self._cluster.lives.get(name)
        if life is not None and life.is_started and not self.are_over:
            life.end()

    def _full_disk(self) -> None:
        if (name := self._someone()) is not None:
            self._happened("full disk", name)
            self._cluster.may_fail.add(name)
            self._cluster.disks[name].free_bytes = self._dice.randint(0, 2000)

    def _failing_sync(self) -> None:
        if (name := self._someone()) is not None:
            self._happened("failing sync", name)
            self._cluster.may_fail.add(name)
            self._cluster.disks[name].failing_syncs = 1

    def _slow_disk(self) -> None:
        name = self._dice.choice(self._cluster.names)
        seconds = self._dice.choice([0.002, 0.01, 0.05])
        self._happened("slow disk", name, f"{seconds} s")
        disk = self._cluster.disks[name]
        disk.sync_seconds = seconds
        self._cluster.conductor.after(self._dice.uniform(1.0, 5.0), self._disk_is_fast, disk)

    def _disk_is_fast(self, disk: Disk) -> None:
        disk.sync_seconds = 0.0002

    def _death_in_a_write(self) -> None:
        if (name := self._someone()) is not None:
            with_power = self._dice.random() < 0.5
            self._happened("death in a write", name, "power cut" if with_power else "crash")
            (self._cluster.on_power_cut.add if with_power else self._cluster.on_power_cut.discard)(name)
            self._cluster.disks[name].death_in = self._dice.randint(1, 12)

    def _lagging_node(self) -> None:
        """A node stays away until a leader has forgotten what it lacks: it comes back by a snapshot."""
        if (name := self._someone()) is not None and (life := self._cluster.lives[name]).is_started:
            self._happened("lagging node", name)
            last = life.log._journal.last_index
            self._cluster.kill(name)
            self._held.add(name)
            self._until_forgotten(name, last, self._cluster.now + LAG_SECONDS)

    def _until_forgotten(self, name: str, last: int, latest: float) -> None:
        cluster = self._cluster
        if (
            self.are_over
            or cluster.now > latest
            or any(life.log._journal.first_index > last for life in self._cluster.clients.leaders())
        ):
            self._held.discard(name)
            self._up(name)
        else:
            cluster.conductor.after(0.2, self._until_forgotten, name, last, latest)

    def _change_of_members(self) -> None:
        """One is added, removed, or replaced; one at a time."""
        cluster, dice, operator = self._cluster, self._dice, self.operator
        if operator.is_busy or self._held or cluster.now > self._latest - LAST_CHANGE_SECONDS:
            return
        name, what = self._someone(), dice.choice(["add", "remove", "replace"])
        if what == "add" and cluster.spare:
            name = dice.choice(cluster.spare)
        elif name is None or len(cluster.names) < FEWEST_VOTERS:
            return  # of two voters none may be lost
        elif what != "remove" or (len(cluster.names) == FEWEST_VOTERS and dice.random() < 0.7):
            what = "replace"
        self._happened("change of members", name, what)
        cluster.counts[f"members: {what}"] += 1
        {"add": operator.add, "remove": operator.remove, "replace": operator.replace}[what](name)
