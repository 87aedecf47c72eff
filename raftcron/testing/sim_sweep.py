"""Many seeds on all cores: who plays them, what is remembered of each across sittings, and what they come to."""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from raftcron.testing.sim_story import ALWAYS_SEEN, MANY_SEEDS, SEEN_IN_MANY, Story

SEEDS_A_PROCESS = 200  # then a new one takes its place, so that memory does not gather
WORTHLESS_SHARE = 0.02  # of a sweep's seeds need not count


class Played(NamedTuple):
    """What one seed came to."""

    seed: int
    checker: str | None  # that has fired
    violation: str | None
    counts: dict[str, int]
    counted: bool  # whether the seed was worth something
    virtual_seconds: float
    cpu_seconds: float


def play(seed: int) -> Played:
    """One seed in this process.  What goes wrong in the simulation itself names the seed too."""
    begin = time.process_time()
    try:
        result = Story(seed).run()
    except Exception as error:
        raise RuntimeError(f"seed {seed}: {error!r}") from error
    seconds = time.process_time() - begin
    gc.collect()  # between seeds, rather than in the midst of one
    found = result.violation
    return Played(
        seed,
        None if found is None else found.checker,
        None if found is None else str(found),
        dict(result.counts),
        result.counted,
        result.virtual_seconds,
        seconds,
    )


def play_all(seeds: Iterable[int], processes: int) -> Iterator[Played]:
    """Each as it is done; ends early if it is closed."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=_begin, maxtasksperchild=SEEDS_A_PROCESS) as pool:
        yield from pool.imap_unordered(play, seeds)


def _begin() -> None:
    """A process of a sweep: whoever presses Ctrl-C means the one that hands out the seeds, and it ends all others."""
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass
class Totals:
    """Of all seeds of a sweep."""

    seeds: int = 0
    counted: int = 0
    virtual_seconds: float = 0.0
    cpu_seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Played] = field(default_factory=list)
    worthless: list[int] = field(default_factory=list)  # seeds that passed, and do not count

    def add(self, played: Played) -> None:
        self.seeds += 1
        self.counted += played.counted
        self.virtual_seconds += played.virtual_seconds
        self.cpu_seconds += played.cpu_seconds
        self.counts.update(played.counts)
        if played.checker is not None:
            self.failures.append(played)
        elif not played.counted:
            self.worthless.append(played.seed)

    @property
    def unseen(self) -> list[str]:
        """What no seed has met: then the sweep proves less than it seems to."""
        asked = (*ALWAYS_SEEN, *SEEN_IN_MANY) if self.seeds >= MANY_SEEDS else ALWAYS_SEEN
        return [name for name in asked if not self.counts[name]]

    @property
    def is_worth_little(self) -> bool:
        """More of the seeds do not count than may be."""
        return len(self.worthless) > WORTHLESS_SHARE * self.seeds

    def lines(self) -> Iterator[str]:
        """`name: number`, one a line."""
        for name in sorted({*self.counts, *ALWAYS_SEEN}):
            yield f"{name}: {self.counts[name]}"
        yield f"seeds: {self.seeds}"
        yield f"seeds that count: {self.counted}"
        yield f"virtual seconds: {self.virtual_seconds:.0f}"
        yield f"CPU seconds: {self.cpu_seconds:.0f}"
        yield f"speed-up: {self.virtual_seconds / max(self.cpu_seconds, 0.001):.0f}"
        for checker, number in sorted(Counter(played.checker for played in self.failures).items()):
            yield f"failed {checker}: {number}"
        yield f"failed: {len(self.failures)}"


# Rooms above the simulated node, which it never imports: an edit there moves no trace.
NOT_PLAYED = frozenset({"__main__", "api", "cli", "client", "daemon", "embed", "once", "ui"})


class Memory:
    """What is known of seeds from former sittings with the very same code; a file a version of the code."""

    def __init__(self, directory: Path, root: Path) -> None:
        directory.mkdir(exist_ok=True)
        (directory / ".gitignore").write_text("*\n")
        self.code = source_hash(root)
        self.path = directory / f"{self.code}.jsonl"

    def load(self) -> dict[int, Played]:
        """By seed; a line that a sitting's end has torn is played again."""
        known: dict[int, Played] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    played = Played(*json.loads(line))
                except (ValueError, TypeError):
                    continue
                known[played.seed] = played
        return known

    def keep(self, played: Played) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(played) + "\n")


def source_hash(root: Path) -> str:
    """Of all code that a seed's course depends on; another one has other traces."""
    digest, package_root = hashlib.sha256(), root / "raftcron"
    for path in sorted(package_root.rglob("*.py")):
        if path.relative_to(package_root).parts[0].removesuffix(".py") in NOT_PLAYED:
            continue
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    for package in ("msgpack", "msgspec", "pysyncobj", "croniter", "tzdata"):
        digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()[:16]


def processes() -> int:
    """As many as there are cores."""
    return os.cpu_count() or 1


def ranges(seeds: Iterable[int]) -> str:
    """`0-99, 120, 200-299`."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and parts[-1][1] == seed - 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts) or "none"
