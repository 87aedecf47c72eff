"""A configuration of the cluster: who belongs to it, on which disk, where, and who votes; its bytes and its next steps.

The log holds the first one as its formation entry (kind 0x10) and each later one, whole, as a members entry (0x11).
One step changes at most one vote, so that any majority of one configuration meets any majority of the next (the Raft
dissertation, section 4.1).  Whether a step may be taken now is membership.py's matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from raftcron import wire
from raftcron.errors import DamagedError, NewerVersionError

FORMATION = b"\x10"  # the first byte of each kind of entry
MEMBERS = b"\x11"
FORMATION_VERSION = 2  # version 1 had no addresses
MEMBERS_VERSION = 1

MAX_MEMBERS = 15  # each commit waits for a majority, so more of them cost latency and buy little
MAX_REMOVED = 64  # of which is remembered that they were removed, the newest; one before counts for nothing, untold

Address = tuple[str, int]  # host, port


class Seat(NamedTuple):
    """One member.  `disk` is None while it is awaited: the next empty directory that comes under its name takes it."""

    disk: str | None
    raft: Address | None  # None: as each node's settings have it (a formation of version 1)
    http: str = ""  # HOST:PORT; empty: as the node announces it
    is_voter: bool = False
    is_placed: bool = False  # the address was told to the cluster, so it goes before those in nodes' settings
    lives: int = 0  # of former nodes of this name: its own incarnations are counted on from there

    @property
    def is_awaited(self) -> bool:
        return self.disk is None


class Configuration(NamedTuple):
    """Who belongs to the cluster."""

    cluster_id: str
    seats: Mapping[str, Seat]
    removed: tuple[tuple[str, str], ...] = ()  # (name, disk) of those that belong no more, the oldest first

    @property
    def voters(self) -> list[str]:
        return sorted(name for name, seat in self.seats.items() if seat.is_voter)

    def has(self, name: str, disk: str) -> bool:
        """Whether this very node belongs to it, voter or learner."""
        return name in self.seats and self.seats[name].disk == disk

    @property
    def is_first(self) -> bool:
        """Whether it is as the formation made it."""
        return not self.removed and all(seat.is_voter and not seat.is_placed for seat in self.seats.values())

    # ---- the steps to the next one -------------------------------------------------------------------------------

    def added(self, name: str, raft: Address, http: str, lives: int) -> Configuration:
        """A new member, awaited."""
        return self._with(name, Seat(None, raft, http, is_placed=True, lives=lives))

    def learned(self, name: str, disk: str) -> Configuration:
        """An awaited member has come."""
        return self._with(name, self.seats[name]._replace(disk=disk))

    def promoted(self, name: str) -> Configuration:
        """A learner that votes from now on."""
        return self._with(name, self.seats[name]._replace(is_voter=True))

    def replaced(self, name: str, seat: Seat) -> Configuration:
        """The member's disk is given up; an empty directory is awaited in its place, for `seat`."""
        return self.without(name)._with(name, seat._replace(disk=None, is_voter=False))

    def without(self, name: str) -> Configuration:
        """The member belongs no more."""
        disk = self.seats[name].disk
        removed = self.removed if disk is None else (*self.removed, (name, disk))[-MAX_REMOVED:]
        return self._replace(seats={n: s for n, s in self.seats.items() if n != name}, removed=removed)

    def _with(self, name: str, seat: Seat) -> Configuration:
        return self._replace(seats=dict(sorted({**self.seats, name: seat}.items())))


# ---- bytes -------------------------------------------------------------------------------------------------------


def is_configuration(command: bytes) -> bool:
    """Whether an entry of the log holds a configuration."""
    return command[:1] in (FORMATION, MEMBERS)


def encode_formation(configuration: Configuration) -> bytes:
    """The entry of a first configuration: all its members vote, all disks are known."""
    seats = {name: [seat.disk, list(seat.raft or ())] for name, seat in configuration.seats.items()}
    return FORMATION + wire.pack([FORMATION_VERSION, configuration.cluster_id, seats])


def encode(configuration: Configuration) -> bytes:
    """The entry of a later configuration; a snapshot holds the same bytes."""
    seats = {
        name: [seat.disk, list(seat.raft or ()), seat.http, seat.is_voter, seat.is_placed, seat.lives]
        for name, seat in configuration.seats.items()
    }
    return MEMBERS + wire.pack(
        [MEMBERS_VERSION, configuration.cluster_id, seats, list(map(list, configuration.removed))]
    )


def decode(command: bytes) -> Configuration:
    """An entry of either kind.  Raises NewerVersionError, and DamagedError for what no version wrote."""
    is_formation = command[:1] == FORMATION
    what, known = ("formation", FORMATION_VERSION) if is_formation else ("members", MEMBERS_VERSION)
    try:
        version, *content = wire.unpack(command[1:])
        if type(version) is int and version > known:
            raise NewerVersionError(f"the {what} entry has version {version}, this release knows {known}: update it")
        return _read_formation(version, *content) if is_formation else _read_members(*content)
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedError(f"the {what} entry in the log cannot be read: {error}") from error


def _read_formation(version: int, cluster_id: Any, seats: Any) -> Configuration:
    found = {}
    for name, said in seats.items():
        disk, raft = (said, []) if version == 1 else said
        found[_text(name)] = Seat(_text(disk), _address(raft), is_voter=True)
    return Configuration(_text(cluster_id), found)


def _read_members(cluster_id: Any, seats: Any, removed: Any) -> Configuration:
    found = {}
    for name, (disk, raft, http, is_voter, is_placed, lives) in seats.items():
        seat = Seat(None if disk is None else _text(disk), _address(raft), _text(http), is_voter, is_placed, lives)
        if type(is_voter) is not bool or type(is_placed) is not bool or type(lives) is not int:
            raise ValueError(f"{seat} is no member")
        if is_voter and disk is None:
            raise ValueError(f"{name} votes without a disk")
        found[_text(name)] = seat
    return Configuration(_text(cluster_id), found, tuple((_text(name), _text(disk)) for name, disk in removed))


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r:.40} is not a text")
    return value


def _address(value: Any) -> Address | None:
    if not value:
        return None
    host, port = value
    if type(port) is not int:
        raise ValueError(f"{port!r:.40} is not a port")
    return _text(host), port
