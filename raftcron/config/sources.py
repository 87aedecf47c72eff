"""From flags, environment, file and defaults to checked settings; every fault of all of them at once."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from raftcron.config.kinds import MIB, Address
from raftcron.config.table import BY_NAME, MAX_PEERS, SETTINGS, Setting, Settings
from raftcron.core.instant import format_duration
from raftcron.errors import ConfigurationError, Fault

MAX_SECRET_BYTES: Final = 4096  # a larger "secret" is a wrong file
SHORT_SECRET_BYTES: Final = 16  # below it a secret can be guessed from one recorded handshake
MAX_CONFIG_BYTES: Final = MIB  # a larger settings file is a wrong file

# RAFTCRON_ variables that belong to the command line, not to a node: never taken for a misspelt setting.
CLIENT_VARIABLES: Final = frozenset(
    {"RAFTCRON_ADDR", "RAFTCRON_TOKEN", "RAFTCRON_CACERT", "RAFTCRON_CERT", "RAFTCRON_CONFIG"}
)


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings of this node.

    `flags` are raw values by setting name, None or () where not given, and `config` for the TOML file's path.
    Raises ConfigurationError with every fault of every source: which setting, from where, what is wrong, what to do.
    """
    faults: list[Fault] = []
    file = flags.get("config") or environ.get("RAFTCRON_CONFIG")
    toml = _read_file(Path(file), faults) if file else {}
    values: dict[str, Any] = {}
    given: set[str] = set()
    for row in SETTINGS:
        for where, value in _sources(row, flags, environ, toml, file):
            if value is None or value in ("", (), []):
                continue
            given.add(row.name)
            try:
                values[row.field] = row.read(value)
            except ValueError as error:
                shown = "" if row.is_secret or row.kind.is_repeatable else f" {value!r}"
                more = f" ({row.shown_range})" if row.shown_range and row.shown_range not in str(error) else ""
                faults.append(
                    Fault(f"/{row.name}", f"{where}{shown} {error}{more}; its default is {row.shown_default}")
                )
            break
    for field in ("cluster_secret", "previous_cluster_secret", "smtp_password"):
        _read_secret(field, values, faults)
    broken = {fault.pointer.removeprefix("/") for fault in faults}
    if "raft" not in given and values.get("name") in values.get("peers", {}):
        values["raft"] = values["peers"][values["name"]]
    settings = Settings(**values)
    faults += [fault for names, fault in _conflicts(settings, given) if not broken & set(names)]
    if faults:
        what = "1 setting" if len(faults) == 1 else f"{len(faults)} settings"
        lines = "".join(f"\n  {fault.message}" for fault in faults)
        raise ConfigurationError(f"{what} cannot be used:{lines}", tuple(faults))
    return dataclasses.replace(settings, notes=tuple(_notes(settings, environ)))


def _sources(
    row: Setting, flags: Mapping[str, Any], environ: Mapping[str, str], toml: Mapping[str, Any], file: Any
) -> Iterable[tuple[str, Any]]:
    if not row.is_secret:
        yield row.flag, flags.get(row.name)
    yield row.variable, environ.get(row.variable)
    yield f"{row.name} in {file}", toml.get(row.name)


def _read_file(path: Path, faults: list[Fault]) -> dict[str, Any]:
    """The TOML file, keys checked.  A key may be written with _ for -, as TOML people do."""
    try:
        with path.open("rb") as file:
            body = file.read(MAX_CONFIG_BYTES + 1)
        if len(body) > MAX_CONFIG_BYTES:
            raise ValueError(f"is over {MAX_CONFIG_BYTES:,} bytes: is it the right file?")
        toml = tomllib.loads(body.decode())
    except OSError as error:
        faults.append(Fault("/config", f"--config {path}: cannot be read: {error.strerror}"))
        return {}
    except ValueError as error:
        faults.append(Fault("/config", f"--config {path}: is not TOML: {error}"))
        return {}
    known: dict[str, Any] = {}
    for key, value in toml.items():
        name = key.replace("_", "-")
        row = BY_NAME.get(name)
        if row is None:
            near = get_close_matches(name, BY_NAME, n=1)
            hint = f"did you mean {near[0]}?" if near else "`raftcron server --help` lists the settings"
            faults.append(Fault(f"/{key}", f"{key} in {path} is not a setting: {hint}"))
        elif row.is_secret:
            told = f"{key} in {path}: a secret does not belong there: use {row.variable} or {row.name}-file"
            faults.append(Fault(f"/{key}", told))
        elif name in known:
            faults.append(Fault(f"/{key}", f"{name} in {path} is there twice, with - and with _: keep one"))
        else:
            known[name] = value
    return known


def _read_secret(field: str, values: dict[str, Any], faults: list[Fault]) -> None:
    """A secret from its file into its own field."""
    path = values.get(f"{field}_file")
    if path is None:
        return
    name = field.replace("_", "-")
    pointer = f"/{name}-file"
    if field in values:
        faults.append(Fault(pointer, f"--{name}-file and {BY_NAME[name].variable} are both given: keep one"))
        return
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_SECRET_BYTES + 1).strip()
    except OSError as error:
        faults.append(Fault(pointer, f"--{name}-file {path}: cannot be read: {error.strerror}"))
        return
    if not secret or len(secret) > MAX_SECRET_BYTES:
        told = f"holds {'too much' if secret else 'nothing'}: a secret is 1 to {MAX_SECRET_BYTES:,} bytes"
        faults.append(Fault(pointer, f"--{name}-file {path}: {told}"))
        return
    values[field] = secret


def _conflicts(settings: Settings, given: set[str]) -> Iterable[tuple[tuple[str, ...], Fault]]:
    """What single ranges cannot see; each with the settings it looked at, for it is moot where one is broken."""

    def fault(*names: str, text: str) -> tuple[tuple[str, ...], Fault]:
        return names, Fault(f"/{names[0]}", text)

    if "data-dir" not in given:
        yield fault(
            "data-dir", text="--data-dir is missing: say where this node keeps its journal, e.g. /var/lib/raftcron"
        )
    if len(settings.cluster_secret) > MAX_SECRET_BYTES:
        yield fault("cluster-secret", text=f"RAFTCRON_CLUSTER_SECRET is over {MAX_SECRET_BYTES:,} bytes")
    yield from _tls_conflicts(settings, fault)
    yield from _http_tls_conflicts(settings, fault)
    yield from _mail_conflicts(settings, fault)
    yield from _peer_conflicts(settings, given, fault)
    yield from _exposure(settings, fault)
    low = settings.election_timeout_ms[0]
    if settings.leader_fallback_ms <= low:
        told = (
            f"--leader-fallback {format_duration(settings.leader_fallback_ms)} must be above the lower election "
            f"timeout, {format_duration(low)}: else a healthy leader gives up first; "
            f"{format_duration(low * 4 // 3)} is usual"
        )
        yield fault("leader-fallback", "election-timeout", text=told)
    if settings.lease_margin_ms * 2 >= settings.lease_ms:
        told = (
            f"--lease-margin {format_duration(settings.lease_margin_ms)} must be below half the lease, "
            f"{format_duration(settings.lease_ms)}: lower it or raise --lease"
        )
        yield fault("lease-margin", "lease", text=told)
    if settings.process_slots > settings.slots and "process-slots" in given:
        told = f"--process-slots {settings.process_slots:,} is above --slots {settings.slots:,}, of which it is a part"
        yield fault("process-slots", "slots", text=told)


def _tls_conflicts(settings: Settings, fault: Callable[..., Any]) -> Iterable[Any]:
    files = {"peer-cert": settings.peer_cert, "peer-key": settings.peer_key, "peer-ca": settings.peer_ca}
    given = [f"--{name}" for name, path in files.items() if path is not None]
    for name, path in files.items():
        if path is None and given:
            told = f"--{name} is missing beside {' and '.join(given)}: TLS between peers takes all three, or none"
            yield fault(name, *files, text=told)


def _http_tls_conflicts(settings: Settings, fault: Callable[..., Any]) -> Iterable[Any]:
    both = {"tls-cert": settings.tls_cert, "tls-key": settings.tls_key}
    more = {"tls-client-ca": settings.tls_client_ca, "tls-ca": settings.tls_ca}
    given = [f"--{name}" for name, path in (both | more).items() if path is not None]
    for name, path in both.items():
        if path is None and given:
            told = f"--{name} is missing beside {' and '.join(given)}: TLS takes --tls-cert and --tls-key"
            yield fault(name, *both, *more, text=told)


def _mail_conflicts(settings: Settings, fault: Callable[..., Any]) -> Iterable[Any]:
    names = ("smtp-user", "smtp-password", "smtp-password-file", "smtp", "smtp-tls")
    if bool(settings.smtp_user) != bool(settings.smtp_password):
        told = "--smtp-user and RAFTCRON_SMTP_PASSWORD or --smtp-password-file go together: give both, or neither"
        yield fault(*names, text=told)
    elif settings.smtp_user and settings.smtp is None:
        yield fault(*names, text="--smtp-user is of no use without --smtp, the relay that asks for it")
    elif settings.smtp_user and settings.smtp_tls == "off" and settings.smtp and not settings.smtp.is_loopback:
        told = "--smtp-tls off would send the password of --smtp-user in the clear: leave it at auto"
        yield fault(*names, text=told)


def _peer_conflicts(settings: Settings, given: set[str], fault: Callable[..., Any]) -> Iterable[Any]:
    peers, name = settings.peers, settings.name
    if settings.http == settings.raft:
        yield fault("http", "raft", text=f"--http and --raft are both {settings.http}: they need a port each")
    if not peers:
        return
    if len(peers) > MAX_PEERS:
        yield fault("peer", text=f"--peer: {len(peers)} voters, at most {MAX_PEERS}")
    names_of: dict[Address, list[str]] = {}
    for peer, address in peers.items():
        names_of.setdefault(address, []).append(peer)
        if address.is_wildcard:
            yield fault(
                "peer", text=f"--peer {peer}={address}: nobody can be reached there: say the node's own address"
            )
    for address, names in names_of.items():
        if len(names) > 1:
            yield fault(
                "peer", text=f"--peer: {' and '.join(names)} have one address, {address}: each node has its own"
            )
    if "name" not in given:
        yield fault("name", "peer", text=f"--name is missing: say which of {', '.join(peers)} this node is")
        return
    if name not in peers:
        told = f"--name {name} is not among the peers ({', '.join(peers)}): list every voter, this one too, with --peer"
        yield fault("name", "peer", text=told)
        return
    told_to_peers = peers[name]
    if settings.advertise_raft is not None and settings.advertise_raft != told_to_peers:
        told = f"--advertise-raft {settings.advertise_raft} differs from --peer {name}={told_to_peers}: make them equal"
        yield fault("advertise-raft", "peer", "name", text=told)
    elif settings.advertise_raft is None and settings.raft not in (
        told_to_peers,
        Address(settings.raft.host if settings.raft.is_wildcard else told_to_peers.host, told_to_peers.port),
    ):
        told = (
            f"--raft {settings.raft} differs from --peer {name}={told_to_peers}, where the others look for this node: "
            f"make them equal, or say --advertise-raft {told_to_peers} if something forwards from there"
        )
        yield fault("raft", "peer", "name", text=told)


def _exposure(settings: Settings, fault: Callable[..., Any]) -> Iterable[Any]:
    """What can be reached from other machines needs proof of who asks."""
    for row, address in (("advertise-http", settings.reachable_http), ("advertise-raft", settings.reachable_raft)):
        if address.is_wildcard:
            told = f"--{row} is missing: this node listens on {address}, where nobody can reach it: say where others do"
            yield fault(row, "http", "raft", "peer", text=told)
    is_spread = len(settings.peers) > 1 and not all(address.is_loopback for address in settings.peers.values())
    if is_spread and settings.reachable_http.is_loopback and settings.advertise_http is None:
        told = (
            f"--http {settings.http} cannot be reached by the peers, which forward writes to the leader's HTTP API: "
            "listen where they reach it, or say --advertise-http"
        )
        yield fault("http", "peer", text=told)
    if settings.insecure:
        return
    addresses = (settings.raft, *settings.peers.values(), settings.http, settings.reachable_http)
    beyond = [address for address in addresses if not address.is_loopback]
    if beyond and not settings.cluster_secret:
        told = (
            f"{beyond[0]} is beyond loopback and there is no cluster secret: set RAFTCRON_CLUSTER_SECRET or "
            "--cluster-secret-file to the same random text on every node (`openssl rand -hex 32` makes one); "
            "each request to the HTTP API needs a token then. Or accept the risk with --insecure"
        )
        yield fault("cluster-secret", "cluster-secret-file", "raft", "peer", "http", "advertise-http", text=told)


def _notes(settings: Settings, environ: Mapping[str, str]) -> Iterable[str]:
    count = len(settings.peers)
    if count == 2:
        yield "2 voters: both are needed for every write, so the loss of either stops the cluster; 3 survive one loss"
    elif count and count % 2 == 0:
        yield f"{count} voters survive the loss of {(count - 1) // 2}, as {count - 1} do: an odd count is better"
    if count > 1 and not settings.cluster_secret:
        yield "no cluster secret: any process that reaches the Raft ports can join; set RAFTCRON_CLUSTER_SECRET"
    elif settings.cluster_secret and len(settings.cluster_secret) < SHORT_SECRET_BYTES:
        yield f"the cluster secret has fewer than {SHORT_SECRET_BYTES} bytes and can be guessed"
    if settings.insecure and not settings.http.is_loopback:
        yield f"--insecure: whoever reaches {settings.http} may do everything, commands included where they are allowed"
    if not settings.insecure and settings.tls_cert is None and not settings.reachable_http.is_loopback:
        yield "no --tls-cert: tokens and what is written travel in the clear, unless something in front speaks TLS"
    known = {row.variable for row in SETTINGS} | CLIENT_VARIABLES
    for variable in sorted(environ):
        if variable.startswith("RAFTCRON_") and variable not in known:
            near = get_close_matches(variable, known, n=1, cutoff=0.85)
            if near:
                yield f"{variable} is not a setting and has no effect: did you mean {near[0]}?"
