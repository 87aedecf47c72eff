"""Stock PySyncObj on virtual time: which of Raft's promises the engine, as it is installed, breaks under faults.

Nothing of it is mended.  Three nodes with the engine's own file journals and snapshots in a directory of their own;
only clock, dice and sockets are replaced (`transport=` is public; the rest are names in a copy of its module, so that
no other test meets them).  Its settings are the defaults but for what a `Shape` says, and that no child is forked.
Faults: kills, which keep what was written; cuts and isolations, which hold messages and then break connections; slow
links; in one shape power cuts, which keep what was synced: nothing, since the engine never syncs (`Journal.flush`).

A seed is FAULTS steps of 10 ms with faults and load, and QUIET without.  Beside each promise that is broken stands the
last fault of the engine that the nodes in question had shown (a *sign*, named by its row in the list of faults); beside
lost commands, which show only in the end, stand all of the seed.

    python -m tests.raft.stock 0 60 [SHAPE ...]       plays these seeds; prints what broke in each, and how often
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import itertools
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pysyncobj.config
import pysyncobj.journal
import pysyncobj.syncobj

from raftcron.raft.stand_ins import NoPoller, Outlet, Peer
from raftcron.raft.transport import Hello
from raftcron.testing.chance import Chance, chance
from tests.raft.virtual import STEP, Line, Network, VirtualLoop

NAMES = ("n1", "n2", "n3")
FAULTS, QUIET, ENOUGH_TO_COMMIT = 3000, 3000, 1000  # steps; the last are the end of the quiet
LOAD = 2  # commands a step

HISTORY = "one history"
MATCH = "true match indexes"
LEADER = "one leader a term"
KEPT = "what was acknowledged is there"
ALIVE = "all come to one index and commit"
ANSWERED = "each command is answered"

UNCHECKED = "row 1: a chunk of a snapshot committed what was not checked"
HELD_CUT = "row 2: entries were cut off that do not differ"
TAIL_CLEARED = "row 3: a snapshot cleared entries behind it that do not differ"
NEVER_SYNCED = "row 5: nothing was synced when the power went"
NEVER_CALLED = "row 7: callbacks that never come"
CONTRADICTION = "row 15: a refusal contradicted the one before"


class Shape(NamedTuple):
    batch_bytes: int = 2**16  # as the engine has it, like the next one
    compaction_entries: int = 5000
    is_calm: bool = False
    cuts_power: bool = False


SHAPES = {
    "no faults": Shape(is_calm=True),
    "as shipped": Shape(),
    "small batches": Shape(batch_bytes=200),
    "snapshots": Shape(compaction_entries=60),
    "power cuts": Shape(cuts_power=True),
}


class Played(NamedTuple):
    """What came of a seed."""

    broken: dict[str, str]  # promise -> how it was first broken, and the signs
    signs: Counter[str]
    acknowledged: int


# ---- the engine, and what it stands on ---------------------------------------------------------------------------


def _copied() -> Any:
    spec = importlib.util.spec_from_file_location("pysyncobj.syncobj_as_installed", pysyncobj.syncobj.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Clock:
    """A little time passes at each look: the engine watches it while it waits for a snapshot of its own."""

    loop: VirtualLoop

    def __call__(self) -> float:
        self.loop.now += 2e-5
        return self.loop.now


class Journal(pysyncobj.journal.FileJournal):  # type: ignore[misc]  # the engine is not typed
    def flush(self) -> None:
        raise AssertionError("the stock engine syncs its journal now: let power cuts keep what was synced")


engine = _copied()
engine.monotonicTime = clock = Clock()
engine.createJournal = lambda journal: journal  # is given what stands in conf.journalFile
engine.createPoller = lambda _kind: NoPoller()
engine.logger.disabled = True


class Replica(engine.SyncObj):  # type: ignore[misc, name-defined]
    """A stock node whose state is the list of all that was put."""

    def __init__(self, name: str, network: Network, folder: Path, shape: Shape, shows: Callable[[str], None]) -> None:
        self.name, self.shows = name, shows
        self.journal = Journal(str(folder / "journal"))
        self.peers = {peer: Peer(peer) for peer in NAMES if peer != name}
        self.refused: dict[str, int] = {}  # peer -> the index that our last refusal named
        self.line = Line(network, hello=lambda: Hello(name, name, None, 1, False), handler=self, admit=lambda _: None)
        self.outlet = Outlet(self.dispatch)
        settings = pysyncobj.config.SyncObjConf(
            autoTick=False,
            useFork=False,
            journalFile=self.journal,
            fullDumpFile=str(folder / "snapshot"),
            appendEntriesBatchSizeBytes=shape.batch_bytes,
            logCompactionMinEntries=shape.compaction_entries,
        )
        super().__init__(Peer(name), list(self.peers.values()), settings, transport=self.outlet)
        self.history: list[int] = []  # behind the rest: snapshots hold what comes after the engine's own start
        network.lines[name] = self.line

    @engine.replicated  # type: ignore[untyped-decorator]
    def put(self, value: int) -> None:
        self.history.append(value)

    def has(self, index: int, term: int) -> bool:
        """In its log, not in a snapshot."""
        return index >= self.journal[0][1] and holds(self.journal, index, term)

    # what the network calls

    def on_connected(self, peer: str) -> None:
        self.outlet._onNodeConnected(self.peers[peer])

    def on_disconnected(self, peer: str) -> None:
        self.outlet._onNodeDisconnected(self.peers[peer])

    def on_refused(self, peer: str) -> None: ...

    def on_batch_end(self) -> None: ...

    def on_message(self, peer: str, _kind: str, message: dict[str, Any]) -> None:
        """Hand it to the engine, and look at what that did to the log."""
        sender: Replica = self.line.network.lines[peer].handler
        committed, (_, last, term) = self.raftCommitIndex, self.journal[-1]
        holds_all = all(self.has(index, term) for _, index, term in message.get("entries", ()))
        self.outlet._onMessageReceived(self.peers[peer], message)
        is_shorter = self.journal[-1][1] < last and sender.has(last, term)
        if "serialized" in message:
            is_installed = self.raftLastApplied == self.journal[-1][1] == self.journal[0][1] + 1
            if self.raftCommitIndex > committed and not is_installed:
                self.shows(UNCHECKED)
            if is_shorter:
                self.shows(TAIL_CLEARED)
        elif is_shorter and holds_all:
            self.shows(HELD_CUT)

    def dispatch(self, node: Peer, message: dict[str, Any]) -> bool:
        if message["type"] == "next_node_idx":
            if message["reset"]:
                index = message["next_node_idx"]
                if index > self.refused.get(node.id, index):
                    self.shows(CONTRADICTION)
                self.refused[node.id] = index
            elif message["success"]:
                self.refused.pop(node.id, None)
        return self.line.send(node.id, "", message)


def holds(journal: Journal, index: int, term: int) -> bool:
    """Whether the log has this entry; what a snapshot has swallowed counts as held."""
    place = index - journal[0][1]
    return place < 0 or (place < len(journal) and bool(journal[place][2] == term))


# ---- the world: faults, load, checks -------------------------------------------------------------------------------


class World:
    def __init__(self, seed: int, shape: Shape, folder: Path) -> None:
        self.rng: Chance = chance(seed, "stock engine")
        engine.random = chance(seed, "election timeouts")  # asked for random() alone
        self.loop = clock.loop = VirtualLoop()
        self.loop.set_exception_handler(lambda _loop, context: self.failures.append(context["exception"]))
        self.failures: list[BaseException] = []
        self.network = Network(self.loop, self.rng)
        self.shape, self.folder = shape, folder
        self.replicas: dict[str, Replica] = {}
        self.journals: dict[str, Journal] = {}  # also of those that are down: their disks
        self.down_until: dict[str, float] = {}
        self.values = itertools.count(1)
        self.waiting: dict[str, set[int]] = {}  # of each node that is up: what it was given and has not answered
        self.acknowledged: set[int] = set()
        self.agreed: list[int] = []
        self.looked_at: dict[str, tuple[list[int], int]] = {}  # the list that a node has, and how far it was compared
        self.leaders: dict[int, str] = {}
        self.last_sign: dict[str, str] = {}
        self.played = Played({}, Counter(), 0)
        for name in NAMES:
            self.start(name)

    def start(self, name: str) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        replica = Replica(name, self.network, folder, self.shape, partial(self.shows, name))
        self.replicas[name], self.journals[name], self.waiting[name] = replica, replica.journal, set()

    def kill(self, name: str, seconds: float, *, cuts_power: bool = False) -> None:
        """The process ends.  What it wrote is in the kernel's hands; the power cut takes it from there."""
        if (replica := self.replicas.pop(name, None)) is not None:
            self.network.leave(name)
            replica.journal._destroy()  # closes the file; that it also syncs it counts for nothing: a kill does not
            self.down_until[name] = self.loop.now + seconds
        if cuts_power:
            shutil.rmtree(self.folder / name, ignore_errors=True)  # it may have lost all of it before
            self.shows(name, NEVER_SYNCED)

    def shows(self, name: str, sign: str) -> None:
        self.played.signs[sign] += 1
        self.last_sign[name] = sign

    def do_harm(self) -> None:
        rng, cuts = self.rng, self.network.cuts
        if rng.random() < 0.004:
            self.kill(rng.choice(NAMES), rng.uniform(0.1, 5))
        if rng.random() < 0.004:
            cuts[frozenset(rng.sample(NAMES, 2))] = self.loop.now
        if rng.random() < 0.003:
            alone = rng.choice(NAMES)
            cuts.update({frozenset((alone, peer)): self.loop.now for peer in NAMES if peer != alone})
        if rng.random() < 0.008:
            self.network.heal()
        if self.shape.cuts_power and rng.random() < 0.001:
            for victim in NAMES if rng.random() < 0.5 else [rng.choice(NAMES)]:
                self.kill(victim, rng.uniform(0.1, 2), cuts_power=True)

    def step(self, *, faulty: bool) -> None:
        if not faulty:
            self.network.heal()
        elif not self.shape.is_calm:
            self.do_harm()
        for name in [name for name, until in self.down_until.items() if until < self.loop.now or not faulty]:
            del self.down_until[name]
            self.start(name)
        self.network.step()
        if faulty and self.replicas:
            for _ in range(LOAD):
                self.put(self.rng.choice(sorted(self.replicas)))
        self.loop.run_until_complete(asyncio.sleep(STEP))
        for replica in self.replicas.values():
            if self.rng.random() < 0.9:
                replica.doTick(0)
        assert not self.failures, self.failures
        self.check()

    def put(self, name: str) -> int:
        value, waiting = next(self.values), self.waiting[name]

        def answered(_result: object, error: int) -> None:
            waiting.discard(value)
            if error == pysyncobj.config.FAIL_REASON.SUCCESS:
                self.acknowledged.add(value)

        waiting.add(value)
        self.replicas[name].put(value, callback=answered)
        return value

    def broken(self, promise: str, how: str, *names: str) -> None:
        self.note(promise, how, {self.last_sign[name] for name in names if name in self.last_sign})

    def note(self, promise: str, how: str, signs: Collection[str]) -> None:
        self.played.broken.setdefault(promise, "; ".join([f"at {self.loop.now - 1000:.1f} s {how}", *sorted(signs)]))

    def check(self) -> None:
        leading = sorted((r.raftCurrentTerm, r.name) for r in self.replicas.values() if r._isLeader())
        for term, name in leading:
            if self.leaders.setdefault(term, name) != name:
                self.broken(LEADER, f"{name} leads term {term}, as did {self.leaders[term]}", *NAMES)
        if leading:
            self.check_matches(self.replicas[leading[-1][1]])
        for name, replica in self.replicas.items():
            self.check_history(name, replica.history)

    def check_matches(self, leader: Replica) -> None:
        first = leader.journal[0][1]
        for node, index in leader._SyncObj__raftMatchIndex.items():
            journal = self.journals[node.id]
            if index < first or journal.getCurrentTerm() > leader.raftCurrentTerm:
                continue  # in a snapshot; or it has left this leader for another
            if not holds(journal, index, leader.journal[index - first][2]):
                how = f"{leader.name} counts {node.id} for {index}, and its log ends at {journal[-1][1]}"
                self.broken(MATCH, how, node.id)

    def check_history(self, name: str, history: list[int]) -> None:
        if HISTORY in self.played.broken:
            return  # there is no one history to go on from
        known, count = self.looked_at.get(name, (None, 0))  # a snapshot is another list
        for place in range(count if known is history else 0, len(history)):
            if place == len(self.agreed):
                self.agreed.append(history[place])
            elif self.agreed[place] != history[place]:
                self.broken(HISTORY, f"{name} has {history[place]} at {place}, others {self.agreed[place]}", name)
                break
        self.looked_at[name] = (history, len(history))

    def check_the_end(self, last_values: set[int]) -> None:
        nodes = self.replicas.values()
        end = max(node.journal[-1][1] for node in nodes)
        if behind := [node.name for node in nodes if node.raftLastApplied < end]:
            where = ", ".join(f"{node.name} applied {node.raftLastApplied} of {node.journal[-1][1]}" for node in nodes)
            self.broken(ALIVE, where, *behind)
        elif any(last_values.isdisjoint(node.history) for node in nodes):
            self.broken(ALIVE, "nothing commits", *NAMES)
        best = max(nodes, key=lambda node: (node._isLeader(), node.raftCurrentTerm, node.raftLastApplied))
        if lost := self.acknowledged - set(best.history):
            self.note(KEPT, f"{len(lost)} of {len(self.acknowledged)} are gone", self.played.signs)
        if forgotten := sum(map(len, self.waiting.values())):
            self.note(ANSWERED, f"{forgotten} are not, by nodes that have been up since", {NEVER_CALLED})

    def run(self) -> Played:
        asyncio.set_event_loop(self.loop)
        try:
            for _ in range(FAULTS):
                self.step(faulty=True)
            for _ in range(QUIET - ENOUGH_TO_COMMIT):
                self.step(faulty=False)
            last_values = {self.put(name) for name in NAMES}
            for _ in range(ENOUGH_TO_COMMIT):
                self.step(faulty=False)
            self.check_the_end(last_values)
        finally:
            for name in list(self.replicas):
                self.kill(name, 0)
            asyncio.set_event_loop(None)
            self.loop.close()
        return self.played._replace(acknowledged=len(self.acknowledged))


def play(seed: int, shape: str) -> Played:
    """One seed, the same each time and on each machine."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the engine leaves its snapshots' files to the collector
        try:
            return World(seed, SHAPES[shape], Path(folder)).run()
        finally:
            gc.collect()


def main(first: int, end: int, *shapes: str) -> None:
    for shape in shapes or SHAPES:
        broken: Counter[str] = Counter()
        acknowledged = 0
        for seed in range(first, end):
            played = play(seed, shape)
            acknowledged += played.acknowledged
            broken.update(played.broken.keys() or ["nothing"])
            for promise, how in played.broken.items():
                print(f"{shape} {seed}: not {promise!r}: {how}", flush=True)
        print(f"{shape}: {end - first} seeds, {acknowledged} acknowledged; broken: {dict(broken)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
