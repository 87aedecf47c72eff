"""The one table of settings: each field of `Settings` is a row, with its sort, default, range and sentence."""

# ruff: noqa: RUF009  -- `_setting` gives a dataclass field, as dataclasses.field does

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from raftcron.config.kinds import (
    ADDRESS,
    DURATION,
    GIB,
    LEVEL,
    MAIL_TLS,
    MIB,
    NETWORKS,
    PATH,
    PEERS,
    SECRET,
    SIZE,
    SPAN,
    SWITCH,
    TAGS,
    TEXT,
    TEXT_NAME,
    WHOLE,
    Address,
    Kind,
    Network,
)

SECOND: Final = 1000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

MAX_PEERS: Final = 15  # voters; each commit waits for a majority, so more of them cost latency and buy little


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str  # the flag without its dashes, and the TOML key
    field: str  # of Settings
    kind: Kind
    default: Any
    help: str
    section: str
    low: int | None = None  # both bounds belong to the range; in the field's unit
    high: int | None = None
    rule: str = ""  # what the range cannot say
    default_text: str = ""  # where the default is derived
    is_secret: bool = False  # environment only: command lines and files get around

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "RAFTCRON_" + self.name.upper().replace("-", "_")

    @property
    def shown_default(self) -> str:
        if self.default_text or self.default is None:
            return self.default_text or "none"
        return self.kind.show(self.default)

    @property
    def shown_range(self) -> str:
        parts = []
        if self.low is not None and self.high is not None:
            show = DURATION.show if self.kind is SPAN else self.kind.show
            parts.append(f"{show(self.low)}-{show(self.high)}")
        return "; ".join([*parts, self.rule] if self.rule else parts)

    def read(self, value: Any) -> Any:
        """The value in the field's type.  ValueError: what is wrong with it."""
        parsed = self.kind.read(value)
        for number in parsed if self.kind is SPAN else (parsed,):
            if self.low is not None and self.high is not None and not self.low <= number <= self.high:
                raise ValueError(f"is outside {self.shown_range}")
        return parsed


def _setting(kind: Kind, default: Any, section: str, text: str, **row: Any) -> Any:
    metadata = {"row": {"kind": kind, "default": default, "section": section, "help": text, **row}}
    if kind.is_repeatable:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata, repr=not row.get("is_secret", False))


NODE: Final = "This node"
CLUSTER: Final = "The cluster"
WORK: Final = "Work"
SAFETY: Final = "Safety"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a node was told.  `_ms` are whole milliseconds, `_bytes` bytes.  Made by `load`, which checks it."""

    name: str = _setting(
        TEXT_NAME, "n1", NODE, "Name of this node, one of the peers' names.", rule="needed where there are peers"
    )
    data_dir: Path = _setting(
        PATH, None, NODE, "Directory that this node alone keeps its journal in.", default_text="none, must be said"
    )
    http: Address = _setting(
        ADDRESS,
        Address("127.0.0.1", 7101),
        NODE,
        "Where the HTTP API listens.",
        rule="beyond loopback only with a cluster secret; then each request needs a token",
    )
    raft: Address = _setting(
        ADDRESS,
        Address("127.0.0.1", 7201),
        NODE,
        "Where this node listens for its peers.",
        default_text="this node's address among the peers, else 127.0.0.1:7201",
        rule="beyond loopback only with a cluster secret",
    )
    advertise_http: Address | None = _setting(
        ADDRESS, None, NODE, "Where others reach the HTTP API, if elsewhere.", default_text="as --http"
    )
    advertise_raft: Address | None = _setting(
        ADDRESS,
        None,
        NODE,
        "Where peers reach this node, if elsewhere: its address among the peers.",
        default_text="as --raft",
    )
    tls_cert: Path | None = _setting(
        PATH,
        None,
        NODE,
        "Certificate of the HTTP API, with its chain, in PEM; it names the host that clients and nodes ask.",
        rule="with --tls-key, on every node or on none",
    )
    tls_key: Path | None = _setting(PATH, None, NODE, "The key of --tls-cert, in PEM, not encrypted.")
    tls_client_ca: Path | None = _setting(
        PATH, None, NODE, "CA of certificates that clients have to show, in PEM; beside a token, not instead of it."
    )
    tls_ca: Path | None = _setting(
        PATH, None, NODE, "CA that the other nodes' --tls-cert are of, in PEM.", default_text="those of the system"
    )
    log_level: str = _setting(LEVEL, "info", NODE, "Least weight of the log lines on stderr.")

    peers: Mapping[str, Address] = _setting(
        PEERS,
        {},
        CLUSTER,
        "A voter of the cluster, this node too; repeat it. None: a cluster of one.",
        name="peer",
        rule=f"at most {MAX_PEERS}, odd counts are best",
    )
    cluster_secret: bytes = _setting(
        SECRET, b"", CLUSTER, "What peers prove to each other; equal on all nodes.", default_text="none", is_secret=True
    )
    cluster_secret_file: Path | None = _setting(PATH, None, CLUSTER, "File that holds the cluster secret.")
    previous_cluster_secret: bytes = _setting(
        SECRET,
        b"",
        CLUSTER,
        "The cluster secret before it was changed, until the log says cluster_key_wrapped_anew.",
        default_text="none",
        is_secret=True,
    )
    previous_cluster_secret_file: Path | None = _setting(PATH, None, CLUSTER, "File that holds the former secret.")
    peer_cert: Path | None = _setting(
        PATH,
        None,
        CLUSTER,
        "This node's certificate for TLS between peers, in PEM; it names the node: DNS:n1 for n1.",
        rule="with --peer-key and --peer-ca, on every node or on none",
    )
    peer_key: Path | None = _setting(PATH, None, CLUSTER, "The key of --peer-cert, in PEM, not encrypted.")
    peer_ca: Path | None = _setting(PATH, None, CLUSTER, "The CA that all peers' certificates are of, in PEM.")
    election_timeout_ms: tuple[int, int] = _setting(
        SPAN,
        (600, 1200),
        CLUSTER,
        "How long a follower waits for a leader before it stands for election.",
        low=100,
        high=MINUTE,
        rule="the heartbeat is a twelfth of the lower bound",
    )
    leader_fallback_ms: int = _setting(
        DURATION,
        800,
        CLUSTER,
        "How long a leader goes on without answers from a majority.",
        low=100,
        high=2 * MINUTE,
        rule="above the lower election timeout",
    )

    slots: int = _setting(WHOLE, 1000, WORK, "Runs at once on this node.", low=1, high=100_000)
    process_slots: int = _setting(WHOLE, 100, WORK, "So many of the slots may run a process.", low=1, high=100_000)
    tags: Mapping[str, str] = _setting(
        TAGS, {}, WORK, "What jobs may ask of a node, in placement.tags; repeat it.", name="tag"
    )
    catch_up_rate: int = _setting(
        WHOLE, 50, WORK, "Missed runs (or parts) started per second, cluster-wide.", low=1, high=10_000
    )
    request_timeout_ms: int = _setting(
        DURATION, 10 * SECOND, WORK, "How long a write waits before it answers 504.", low=SECOND, high=10 * MINUTE
    )
    shutdown_grace_ms: int = _setting(
        DURATION, 20 * SECOND, WORK, "What running runs get to end at SIGTERM.", low=0, high=HOUR
    )
    snapshot_bytes: int = _setting(
        SIZE,
        64 * MIB,
        WORK,
        "How much the log grows before a snapshot lets it be cut; at least as much as the last one.",
        name="snapshot-bytes",
        low=64 << 10,
        high=1 << 40,
    )
    snapshot_entries: int = _setting(
        WHOLE, 50_000, WORK, "And by how many entries (or four times those bytes).", low=100, high=1_000_000_000
    )
    history_total_bytes: int = _setting(
        SIZE,
        200 * MIB,
        WORK,
        "Room for run records, over all jobs.",
        low=MIB,
        high=1 << 40,
        rule="what the leader was told counts, on every node",
    )
    output_total_bytes: int = _setting(
        SIZE, GIB, WORK, "Room for the runs' output on this node.", low=MIB, high=1 << 40
    )

    lease_ms: int = _setting(
        DURATION,
        10 * SECOND,
        SAFETY,
        "How long runs of a node that is not heard of count as running.",
        low=SECOND,
        high=10 * MINUTE,
    )
    lease_margin_ms: int = _setting(
        DURATION,
        2 * SECOND,
        SAFETY,
        "How long before the lease ends its runs stop.",
        low=1,
        high=5 * MINUTE,
        rule="below half the lease",
    )
    max_clock_skew_ms: int = _setting(
        DURATION, 5 * SECOND, SAFETY, "How far a clock may be off the majority's.", low=100, high=HOUR
    )
    require_time_sync: bool = _setting(
        SWITCH, False, SAFETY, "Serve only once the kernel calls the clock synchronised."
    )
    secrets_dir: Path | None = _setting(
        PATH, None, SAFETY, "Directory of files that `${secret:name}` is looked for in, before /v1/secrets."
    )
    allow_shell: bool = _setting(SWITCH, False, SAFETY, "Let jobs run commands on this node.")
    refuse_addresses: tuple[Network, ...] = _setting(
        NETWORKS,
        (),
        SAFETY,
        "Networks that no http job may call, beside link-local ones, where clouds serve credentials.",
        rule="comma separated",
    )
    allow_addresses: tuple[Network, ...] = _setting(
        NETWORKS, (), SAFETY, "Networks that http jobs may call all the same.", rule="comma separated"
    )
    receiver_ca: Path | None = _setting(
        PATH, None, SAFETY, "Certificates of CAs, in PEM, that https jobs trust beside the system's."
    )
    smtp: Address | None = _setting(
        ADDRESS, None, WORK, "Mail relay for alerts by e-mail. Set it and all smtp settings alike on every node."
    )
    smtp_from: str = _setting(TEXT, "raftcron@localhost", WORK, "Whom such mails are from.")
    smtp_tls: str = _setting(
        MAIL_TLS,
        "auto",
        WORK,
        "How the relay is spoken to: auto is tls on port 465, else starttls if it is offered or there is a user.",
        rule="its certificate is judged as those of https jobs are",
    )
    smtp_user: str | None = _setting(TEXT, None, WORK, "Whom the relay knows this node as.")
    smtp_password: bytes = _setting(SECRET, b"", WORK, "That user's password.", default_text="none", is_secret=True)
    smtp_password_file: Path | None = _setting(PATH, None, WORK, "File that holds that password.")
    insecure: bool = _setting(
        SWITCH, False, SAFETY, "Ask nobody for a token, and listen beyond loopback without a cluster secret."
    )

    notes: tuple[str, ...] = ()  # what is allowed and worth a word; not a setting

    @property
    def heartbeat_ms(self) -> float:
        """How often a leader is heard of."""
        return self.election_timeout_ms[0] / 12

    @property
    def reachable_raft(self) -> Address:
        """Where peers reach this node."""
        return self.advertise_raft or self.peers.get(self.name) or self.raft

    @property
    def reachable_http(self) -> Address:
        """Where others reach the HTTP API; a node that listens everywhere is reached where its peers reach it."""
        if self.advertise_http is None and self.http.is_wildcard and not self.reachable_raft.is_wildcard:
            return Address(self.reachable_raft.host, self.http.port)
        return self.advertise_http or self.http

    @property
    def voters(self) -> Mapping[str, Address]:
        """Every voter and where it is reached for Raft, this node too; never empty."""
        return self.peers or {self.name: self.reachable_raft}


def _row(declared: dataclasses.Field[Any]) -> Setting:
    given = dict(declared.metadata["row"])
    derived = declared.name.removesuffix(given["kind"].unit).replace("_", "-")
    return Setting(name=given.pop("name", derived), field=declared.name, **given)


SETTINGS: Final = tuple(_row(declared) for declared in dataclasses.fields(Settings) if declared.metadata)
BY_NAME: Final = {row.name: row for row in SETTINGS}
