"""What a node gives to its HTTP interface, and what the interface makes of it once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from raftcron.api.tls import HttpTls
from raftcron.clock import Clock
from raftcron.executors.kept_output import KeptOutput
from raftcron.executors.registry import Registry
from raftcron.ports import Entropy, Log
from raftcron.runtime.alert_routes import AlertRoutes
from raftcron.runtime.alerts import Alerts
from raftcron.runtime.backup import Backups
from raftcron.runtime.bulk import Bulk
from raftcron.runtime.calendars import Calendars
from raftcron.runtime.catch_up import CatchUp
from raftcron.runtime.clocks import Clocks, TrustedTime
from raftcron.runtime.conservation import Conservation
from raftcron.runtime.drains import Drains
from raftcron.runtime.events import EventLog
from raftcron.runtime.groups import Groups
from raftcron.runtime.listing import Listing
from raftcron.runtime.machine import Machine
from raftcron.runtime.members import Members
from raftcron.runtime.presence import PeerInfo
from raftcron.runtime.previews import Previews
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.reads import Reads
from raftcron.runtime.requests import Requests
from raftcron.runtime.secrets import Secrets
from raftcron.runtime.service import Service
from raftcron.runtime.tokens import Tokens
from raftcron.runtime.vault import Vault


@dataclass(kw_only=True)
class NodeContext:
    """One node, as its HTTP interface sees it.

    `listen` and `advertise` are `host:port`; `is_ready` says that a barrier of this process has applied; `fresh_at`
    is a boot-clock instant at which this node held all that was committed, None while it knows of none;
    `loop_stall_seconds` is the longest time that something has held the loop; `lease_left` is for how many seconds
    more a node may hold a lease, by what a leader knows; `insecure` lets everybody do everything; `entropy` gives so
    many bytes of chance.
    """

    name: str
    log: Log
    machine: Machine
    proposer: Proposer
    time: TrustedTime
    clocks: Clocks
    clock: Clock
    registry: Registry
    peers: Mapping[str, PeerInfo]
    is_ready: Callable[[], bool]
    listen: str
    advertise: str
    request_timeout_seconds: float = 10.0
    hold_seconds: float = 2.0  # how long a write waits for a leader to be known, and an answer for its own index
    fresh_at: Callable[[], float | None] = lambda: None
    loop_stall_seconds: Callable[[], float] = lambda: 0.0
    lease_left: Callable[[str], float] = lambda _: 0.0
    insecure: bool = False
    cluster_secret: bytes = field(default=b"", repr=False)
    entropy: Entropy = os.urandom
    conservation: Conservation | None = None
    outputs: KeptOutput = field(default_factory=KeptOutput)
    alerts: Alerts | None = None  # delivers them, while this node leads
    vault: Vault | None = None  # of the node, where it has one already
    tls: HttpTls | None = None
    events: EventLog = field(default_factory=EventLog)
    reads: Reads = field(init=False)
    catch_up: CatchUp = field(init=False)
    service: Service = field(init=False)
    previews: Previews = field(init=False)
    bulk: Bulk = field(init=False)
    calendars: Calendars = field(init=False)
    groups: Groups = field(init=False)
    alert_routes: AlertRoutes = field(init=False)
    drains: Drains = field(init=False)
    requests: Requests = field(init=False)
    listing: Listing = field(init=False)
    members: Members = field(init=False)
    tokens: Tokens = field(init=False)
    secrets: Secrets = field(init=False)
    backups: Backups = field(init=False)

    def __post_init__(self) -> None:
        self.reads = Reads(self.log, self.machine, self.clock, self.fresh_at)
        self.catch_up = CatchUp(self.name, self.machine)
        self.listing = Listing(self.machine, self.clock)
        vault = self.vault or Vault(
            machine=self.machine, proposer=self.proposer, secret=self.cluster_secret, entropy=self.entropy
        )
        self.service = Service(
            node=self.name,
            machine=self.machine,
            proposer=self.proposer,
            time=self.time,
            reads=self.reads,
            log=self.log,
            registry=self.registry,
            vault=vault,
        )
        self.bulk = Bulk(
            machine=self.machine, proposer=self.proposer, service=self.service, time=self.time, clock=self.clock
        )
        self.members = Members(
            node=self.name,
            log=self.log,
            machine=self.machine,
            reads=self.reads,
            lease_left=self.lease_left,
            note=self.service.note,
        )
        self.requests = Requests(machine=self.machine, time=self.time, service=self.service)
        self.previews = Previews(machine=self.machine, time=self.time, service=self.service)
        self.calendars = Calendars(machine=self.machine, time=self.time, writes=self.service)
        self.tokens = Tokens(machine=self.machine, writes=self.service, entropy=self.entropy)
        self.groups = Groups(machine=self.machine, writes=self.service)
        self.alert_routes = AlertRoutes(machine=self.machine, writes=self.service, judge=self.service.judge_executor)
        self.secrets = Secrets(machine=self.machine, writes=self.service, vault=vault)
        self.drains = Drains(node=self.name, machine=self.machine, log=self.log, writes=self.service)
        self.backups = Backups(
            machine=self.machine,
            proposer=self.proposer,
            service=self.service,
            time=self.time,
            clock=self.clock,
            vault=vault,
            entropy=self.entropy,
        )


NODE = web.AppKey("node", NodeContext)
