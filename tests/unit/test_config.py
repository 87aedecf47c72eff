"""The table of settings: where values come from, what is refused, and that all of it is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftcron.config import SETTINGS, Address, Settings, load
from raftcron.config.page import page
from raftcron.errors import ConfigurationError

PEERS = ("n1=127.0.0.1:7201", "n2=127.0.0.1:7202", "n3=127.0.0.1:7203")
SECRET = "0123456789abcdef0123456789abcdef"
BY_NAME = {row.name: row for row in SETTINGS}


def loaded(environ: dict[str, str] | None = None, **flags: Any) -> Settings:
    given = {name.replace("_", "-"): value for name, value in flags.items()}
    return load({"data-dir": "d"} | given, environ or {})


def refused(environ: dict[str, str] | None = None, **flags: Any) -> dict[str, str]:
    """What a refusal says, by setting; each is in the one message too."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(environ, **flags)
    assert all(fault.message in caught.value.detail for fault in caught.value.faults)
    return {fault.pointer.removeprefix("/"): fault.message for fault in caught.value.faults}


def test_a_node_alone_needs_its_data_directory_only() -> None:
    """Everything but --data-dir has a default, and a node without peers is a cluster of one."""
    settings = load({"data-dir": "/var/lib/raftcron"}, {})
    assert settings.data_dir == Path("/var/lib/raftcron")
    assert settings.voters == {"n1": Address("127.0.0.1", 7201)}
    assert settings.notes == ()


def test_the_defaults_are_those_of_the_contract() -> None:
    """The defaults of the published table stand in the settings, in the units of their fields."""
    settings = loaded()
    assert settings.election_timeout_ms == (600, 1200)
    assert settings.heartbeat_ms == 50
    assert settings.leader_fallback_ms == 800
    assert (settings.lease_ms, settings.lease_margin_ms, settings.max_clock_skew_ms) == (10_000, 2_000, 5_000)
    assert (settings.slots, settings.process_slots, settings.catch_up_rate) == (1000, 100, 50)
    assert (settings.shutdown_grace_ms, settings.request_timeout_ms) == (20_000, 10_000)
    assert (settings.history_total_bytes, settings.output_total_bytes) == (200 << 20, 1 << 30)
    assert not (settings.allow_shell or settings.insecure or settings.require_time_sync)


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    """The first source that says something wins: flag, environment, file, default."""
    file = tmp_path / "node.toml"
    file.write_text('slots = 3\nlease = "30s"\ncatch-up-rate = 7\nallow_shell = true\n')
    environ = {"RAFTCRON_SLOTS": "2", "RAFTCRON_LEASE": "20s", "RAFTCRON_CONFIG": str(file)}
    settings = loaded(environ, slots="1", process_slots="1")
    assert settings.slots == 1
    assert settings.lease_ms == 20_000
    assert settings.catch_up_rate == 7
    assert settings.allow_shell
    assert settings.lease_margin_ms == 2_000


def test_a_flag_can_turn_off_what_the_environment_turns_on() -> None:
    """False from a flag is something said, not something missing."""
    assert loaded({"RAFTCRON_ALLOW_SHELL": "1"}).allow_shell
    assert not loaded({"RAFTCRON_ALLOW_SHELL": "1"}, allow_shell=False).allow_shell


def test_an_empty_variable_says_nothing() -> None:
    """A variable that is set to nothing leaves the default, as compose files do."""
    assert loaded({"RAFTCRON_LEASE": ""}).lease_ms == 10_000


@pytest.mark.parametrize(
    ("written", "milliseconds"), [("90s", 90_000), ("1m30s", 90_000), ("1500ms", 1_500), ("10", 10_000), ("2.5", 2_500)]
)
def test_durations_are_text_with_units_or_seconds(written: str, milliseconds: int) -> None:
    """A duration is read the same in a variable, a flag and a file."""
    assert loaded({"RAFTCRON_LEASE": written}, lease_margin="10ms").lease_ms == milliseconds
    assert loaded(lease=written, lease_margin="10ms").lease_ms == milliseconds


def test_durations_in_a_file_may_be_numbers(tmp_path: Path) -> None:
    """TOML numbers are seconds."""
    file = tmp_path / "node.toml"
    file.write_text("lease = 15\nshutdown-grace = 0.5\n")
    settings = loaded(config=str(file))
    assert (settings.lease_ms, settings.shutdown_grace_ms) == (15_000, 500)


def test_peers_and_tables_from_every_source(tmp_path: Path) -> None:
    """Repeatable settings are a repeated flag, comma separated text, a TOML list or a TOML table."""
    expected = {f"n{i}": Address("127.0.0.1", 7200 + i) for i in (1, 2, 3)}
    listed, table = tmp_path / "list.toml", tmp_path / "table.toml"
    listed.write_text(f"peer = {list(PEERS)!r}\n")
    table.write_text('[peer]\nn1 = "127.0.0.1:7201"\nn2 = "127.0.0.1:7202"\nn3 = "127.0.0.1:7203"\n')
    assert loaded(name="n1", peer=PEERS).voters == expected
    assert loaded({"RAFTCRON_PEER": ", ".join(PEERS)}, name="n1").voters == expected
    assert loaded(name="n1", config=str(listed)).voters == expected
    assert loaded(name="n1", config=str(table)).voters == expected


def test_every_fault_of_every_source_is_named_at_once(tmp_path: Path) -> None:
    """One refusal lists all that is wrong, whatever source it came from."""
    file = tmp_path / "node.toml"
    file.write_text('leese = "3s"\nslots = "many"\n')
    said = refused(
        {"RAFTCRON_CATCH_UP_RATE": "0", "RAFTCRON_LOG_LEVEL": "loud"}, config=str(file), lease="0s", http="7101"
    )
    assert set(said) == {"leese", "slots", "catch-up-rate", "log-level", "lease", "http"}


def test_a_fault_names_source_value_range_and_default() -> None:
    """A refusal of a value says where it was given, what it was, what is allowed and what the default is."""
    message = refused({"RAFTCRON_LEASE": "11m"})["lease"]
    for part in ("RAFTCRON_LEASE", "'11m'", "1s-10m", "10s"):
        assert part in message


BOUNDS = [
    (row.name, row.low, row.high) for row in SETTINGS if row.low is not None and row.kind.metavar in {"N", "DURATION"}
]


@pytest.mark.parametrize(("name", "low", "high"), BOUNDS)
def test_both_ends_of_each_range_belong_to_it(name: str, low: int, high: int) -> None:
    """Low and high are taken; one unit beyond either is refused."""
    row = BY_NAME[name]
    unit = "ms" if row.kind.metavar == "DURATION" else ""
    assert row.read(f"{low}{unit}") == low
    assert row.read(f"{high}{unit}") == high
    for beyond in (low - 1, high + 1):
        with pytest.raises(ValueError, match=r"is outside|is not a"):
            row.read(f"{beyond}{unit}")


def test_the_ranges_of_the_contract() -> None:
    """The ranges of the published table are in the table."""
    ranges = {row.name: (row.low, row.high) for row in SETTINGS}
    assert ranges["election-timeout"] == (100, 60_000)
    assert ranges["lease"] == (1_000, 600_000)
    assert ranges["max-clock-skew"] == (100, 3_600_000)
    assert ranges["catch-up-rate"] == (1, 10_000)
    assert ranges["slots"] == ranges["process-slots"] == (1, 100_000)
    assert ranges["shutdown-grace"] == (0, 3_600_000)
    assert ranges["request-timeout"] == (1_000, 600_000)


@pytest.mark.parametrize("bad", ["600ms", "1200ms-600ms", "600ms-600ms", "50ms-600ms", "1s-61s", "a-b"])
def test_an_election_timeout_is_a_span_inside_its_range(bad: str) -> None:
    """Both bounds lie in the range, and the lower one below the upper one."""
    assert "election-timeout" in refused(election_timeout=bad)


def test_settings_that_contradict_each_other() -> None:
    """Rules over two settings are checked, and say which way out there is."""
    assert "1s333ms" in refused(election_timeout="1s-2s")["leader-fallback"]
    assert loaded(election_timeout="1s-2s", leader_fallback="1100ms").leader_fallback_ms == 1_100
    assert "raise --lease" in refused(lease="4s", lease_margin="2s")["lease-margin"]
    assert loaded(lease="4s", lease_margin="1999ms").lease_margin_ms == 1_999
    assert "process-slots" in refused(slots="5", process_slots="6")
    assert "http" in refused(http="127.0.0.1:7201")


@pytest.mark.parametrize(
    "bad", ["7101", "localhost", ":7101", "127.0.0.1:0", "127.0.0.1:65536", "::1:7101", "http://a:1", "a:1x", "a b:1"]
)
def test_an_address_is_host_and_port(bad: str) -> None:
    """Anything but HOST:PORT with a usable port is refused."""
    assert "http" in refused(http=bad)


def test_addresses_read_back_as_they_are_shown() -> None:
    """IPv6 hosts stand in brackets, in and out."""
    address = loaded(http="[::1]:7101").http
    assert address == Address("::1", 7101)
    assert str(address) == "[::1]:7101"
    assert address.is_loopback


def test_own_name_must_be_among_the_peers() -> None:
    """With peers the name must be said, and be one of theirs."""
    assert "n1, n2, n3" in refused(peer=PEERS)["name"]
    assert "n4" in refused(name="n4", peer=PEERS)["name"]


def test_peers_are_told_apart() -> None:
    """Two peers with one name or one address are refused by name."""
    assert "'n1' twice" in refused(name="n1", peer=("n1=127.0.0.1:1", "n1=127.0.0.1:2"))["peer"]
    assert "n1 and n2" in refused(name="n1", peer=("n1=127.0.0.1:1", "n2=127.0.0.1:1"))["peer"]


def test_the_raft_address_is_the_one_that_peers_were_told() -> None:
    """Without --raft a node listens where its peers look for it; another port is refused unless it is advertised."""
    assert loaded(name="n2", peer=PEERS).raft == Address("127.0.0.1", 7202)
    assert "--peer n2=127.0.0.1:7202" in refused(name="n2", raft="127.0.0.1:7201", peer=PEERS)["raft"]
    forwarded = loaded(name="n2", raft="127.0.0.1:9999", advertise_raft="127.0.0.1:7202", peer=PEERS)
    assert forwarded.reachable_raft == Address("127.0.0.1", 7202)
    assert "advertise-raft" in refused(name="n2", advertise_raft="127.0.0.1:9", peer=PEERS)


def test_http_beyond_loopback_needs_a_cluster_secret() -> None:
    """Where other machines reach it each request needs a token; without a secret it is refused, or asked for openly."""
    for flags in ({"http": "10.1.2.3:7101"}, {"advertise_http": "cron.example:80"}):
        assert "--insecure" in refused(**flags)["cluster-secret"]
        assert not loaded({"RAFTCRON_CLUSTER_SECRET": SECRET}, **flags).insecure
    settings = loaded(http="10.1.2.3:7101", insecure=True)
    assert any("10.1.2.3:7101" in note for note in settings.notes)


def test_raft_beyond_loopback_needs_a_cluster_secret() -> None:
    """Own or a peer's: an address beyond loopback needs the secret that peers prove."""
    spread = ("n1=10.0.0.1:7201", "n2=10.0.0.2:7201", "n3=10.0.0.3:7201")
    flags: dict[str, Any] = {"name": "n1", "peer": spread, "advertise_http": "10.0.0.1:7101"}
    assert "RAFTCRON_CLUSTER_SECRET" in refused(**flags)["cluster-secret"]
    assert loaded({"RAFTCRON_CLUSTER_SECRET": SECRET}, **flags).cluster_secret == SECRET.encode()
    assert loaded(insecure=True, **flags).cluster_secret == b""


def test_peers_elsewhere_must_reach_the_http_api() -> None:
    """A loopback HTTP address among peers on other machines could not be forwarded to."""
    spread = ("n1=10.0.0.1:7201", "n2=10.0.0.2:7201", "n3=10.0.0.3:7201")
    assert "--advertise-http" in refused({"RAFTCRON_CLUSTER_SECRET": SECRET}, name="n1", peer=spread)["http"]


def test_a_node_that_listens_everywhere_is_reached_where_its_peers_reach_it() -> None:
    """The advertised HTTP host comes from the node's address among the peers."""
    spread = ("n1=a.example:7201", "n2=b.example:7201", "n3=c.example:7201")
    environ = {"RAFTCRON_CLUSTER_SECRET": SECRET, "RAFTCRON_INSECURE": "yes"}
    settings = loaded(environ, name="n2", peer=spread, http="0.0.0.0:7101", raft="0.0.0.0:7201")
    assert settings.reachable_http == Address("b.example", 7101)
    assert settings.reachable_raft == Address("b.example", 7201)
    assert "advertise-raft" in refused(environ, raft="0.0.0.0:7201")


def test_the_cluster_secret_from_a_file(tmp_path: Path) -> None:
    """The file's text without the white space around it; not together with the variable; not empty; not missing."""
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    assert loaded(cluster_secret_file=str(file)).cluster_secret == SECRET.encode()
    both = refused({"RAFTCRON_CLUSTER_SECRET": SECRET}, cluster_secret_file=str(file))
    assert "keep one" in both["cluster-secret-file"]
    file.write_text(" \n")
    assert "nothing" in refused(cluster_secret_file=str(file))["cluster-secret-file"]
    assert "cannot be read" in refused(cluster_secret_file=str(tmp_path / "none"))["cluster-secret-file"]


def test_the_cluster_secret_is_never_shown(tmp_path: Path) -> None:
    """Neither the settings' text nor a refusal has it, and a settings file cannot hold it."""
    assert SECRET not in repr(loaded({"RAFTCRON_CLUSTER_SECRET": SECRET}))
    file = tmp_path / "node.toml"
    file.write_text(f'cluster-secret = "{SECRET}"\n')
    said = refused(config=str(file))
    assert "cluster-secret-file" in said["cluster-secret"]
    assert SECRET not in "".join(said.values())


MAIL = {"smtp": "mail:587", "smtp-user": "cron"}
MAIL_PASSWORD = {"RAFTCRON_SMTP_PASSWORD": "s3cret"}


@pytest.mark.parametrize("flags", [MAIL, {"smtp": "localhost:25", "smtp-user": "cron", "smtp-tls": "off"}])
def test_the_password_of_a_mail_relay_is_never_shown(flags: dict[str, str]) -> None:
    """It comes from the environment or from a file."""
    settings = loaded(MAIL_PASSWORD, **flags)
    assert settings.smtp_password == b"s3cret"
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        (MAIL, {}),
        ({"smtp-user": "cron"}, MAIL_PASSWORD),
        ({}, MAIL_PASSWORD),
        (MAIL | {"smtp-tls": "off"}, MAIL_PASSWORD),
    ],
)
def test_a_user_goes_with_a_password_a_relay_and_tls(flags: dict[str, str], environ: dict[str, str]) -> None:
    """Whatever is missing, it is the user that is named."""
    assert "smtp-user" in refused(environ, **flags)


def test_unknown_keys_are_refused_with_a_near_match(tmp_path: Path) -> None:
    """A misspelt key is refused by name, with the setting that was probably meant."""
    file = tmp_path / "node.toml"
    file.write_text('leese = "3s"\nzzz = 1\n')
    said = refused(config=str(file))
    assert "did you mean lease?" in said["leese"]
    assert "--help" in said["zzz"]


@pytest.mark.parametrize("text", ["lease = ", "lease = 3s", "\x00", "[[lease]]\n"])
def test_a_settings_file_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    """What is not TOML, or no value of the setting's kind, is refused without a traceback."""
    file = tmp_path / "node.toml"
    file.write_text(text)
    assert refused(config=str(file))


def test_a_settings_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is refused, not passed over."""
    assert "cannot be read" in refused(config=str(tmp_path / "none.toml"))["config"]


def test_tags_are_names_with_values() -> None:
    """One flag for each; a name may stand there once."""
    assert loaded(tag=("zone=a", "disk=ssd")).tags == {"zone": "a", "disk": "ssd"}
    assert "twice" in refused(tag=("zone=a", "zone=b"))["tag"]


def test_counts_of_voters_that_are_allowed_and_worth_a_word() -> None:
    """Even counts work and are noted, and so is a cluster without a secret."""
    two = loaded({"RAFTCRON_CLUSTER_SECRET": SECRET}, name="n1", peer=PEERS[:2])
    assert [note for note in two.notes if "2 voters" in note]
    three = loaded({"RAFTCRON_CLUSTER_SECRET": SECRET}, name="n1", peer=PEERS)
    assert three.notes == ()
    assert any("no cluster secret" in note for note in loaded(name="n1", peer=PEERS).notes)
    assert any("can be guessed" in note for note in loaded({"RAFTCRON_CLUSTER_SECRET": "x"}).notes)
    too_many = tuple(f"n{i}=127.0.0.1:{7200 + i}" for i in range(1, 17))
    assert "at most 15" in refused(name="n1", peer=too_many)["peer"]


def test_a_variable_that_is_nearly_a_setting_is_noted() -> None:
    """A misspelt variable would have no effect in silence; the command line's own variables are not suspected."""
    notes = loaded({"RAFTCRON_LEESE": "3s", "RAFTCRON_ADDR": "a:1", "RAFTCRON_TOKEN": "t", "RAFTCRON_JOB": "j"}).notes
    assert len(notes) == 1
    assert "RAFTCRON_LEASE" in notes[0]


@pytest.mark.parametrize(
    ("written", "size"),
    [("200MiB", 200 << 20), ("1 GiB", 1 << 30), ("2tib", None), ("5MB", None), ("1048576", 1 << 20)],
)
def test_sizes(written: str, size: int | None) -> None:
    """Sizes are bytes or have a binary unit, inside their range."""
    row = BY_NAME["output-total"]
    if size is None:
        with pytest.raises(ValueError, match=r"is not a size|is outside"):
            row.read(written)
    else:
        assert row.read(written) == size


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_each_row_is_complete(row: Any) -> None:
    """Every setting has a sentence, and its default is one of its own values."""
    assert row.help.endswith(".")
    if row.default is not None and row.default not in (b"", {}):
        shown = row.kind.show(row.default).replace(",", "")
        assert row.read(row.default if row.kind.is_flag else shown) == row.default


def test_the_page_of_the_documentation_is_the_table() -> None:
    """docs/settings.md is what `python -m raftcron.config.page` prints."""
    written = Path(__file__).parents[2] / "docs" / "settings.md"
    assert written.read_text() == page(), "run: python -m raftcron.config.page > docs/settings.md"


def test_tls_of_http_takes_a_certificate_and_its_key() -> None:
    """What is given of it without both names what is missing."""
    assert "--tls-key is missing" in refused(tls_cert="/c.pem")["tls-key"]
    assert "--tls-cert is missing" in refused(tls_ca="/ca.pem")["tls-cert"]
    assert loaded(tls_cert="/c.pem", tls_key="/k.pem").tls_key == Path("/k.pem")


def test_the_previous_cluster_secret_comes_as_the_present_one_does(tmp_path: Path) -> None:
    """From its variable or its file, not from both."""
    file = tmp_path / "previous"
    file.write_text("the former one\n")
    assert loaded(previous_cluster_secret_file=str(file)).previous_cluster_secret == b"the former one"
    both = refused({"RAFTCRON_PREVIOUS_CLUSTER_SECRET": SECRET}, previous_cluster_secret_file=str(file))
    assert "RAFTCRON_PREVIOUS_CLUSTER_SECRET are both given" in both["previous-cluster-secret-file"]


def test_tokens_in_the_clear_are_worth_a_note() -> None:
    """Beyond loopback without TLS."""
    environ = {"RAFTCRON_CLUSTER_SECRET": SECRET}
    assert any("--tls-cert" in note for note in loaded(environ, http="10.1.2.3:7101").notes)
    tls = {"tls_cert": "/c.pem", "tls_key": "/k.pem"}
    assert not any("--tls-cert" in note for note in loaded(environ, http="10.1.2.3:7101", **tls).notes)
