"""The root command, its help, and `raftcron server` up to the point where the node begins."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys

import pytest
from click.testing import CliRunner

import raftcron
from raftcron.cli import main
from raftcron.cli.root import Failure
from raftcron.config import SETTINGS, Setting
from raftcron.errors import ConflictError, Fault


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=60, check=False)


HEAVY = frozenset({"aiohttp", "asyncio", "pysyncobj", "croniter", "http.client", "msgspec", "raftcron.config", "yaml"})


def loaded(*words: str) -> set[str]:
    """What the command line has imported once it has shown this help."""
    code = (
        "import sys; from raftcron.cli import main; main(sys.argv[1:], standalone_mode=False);"
        f"print('LOADED', *sorted({set(HEAVY)!r} & sys.modules.keys()), *[m for m in sys.modules if '.cli.' in m])"
    )
    done = python("-c", code, *words, "--help")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_help_loads_nothing_that_is_slow() -> None:
    """`raftcron --help` knows every command without importing one, nor the HTTP library, the loop or the engine."""
    assert loaded() == {"raftcron.cli.root"}


@pytest.mark.parametrize("noun", sorted(main.commands_at.keys() - {"dev", "server"}))
def test_help_of_a_noun_loads_nothing_that_is_slow(noun: str) -> None:
    """Nor do the commands' own sentences need any of that; those that run nodes show all settings."""
    assert not loaded(noun) & HEAVY


@pytest.mark.parametrize("words", [(), ("job",), ("job", "apply"), ("cluster",), ("server",)], ids=" ".join)
def test_help_is_quick(words: tuple[str, ...]) -> None:
    """150 ms of a processor at the best of some tries, or what this machine needs for click twice over."""

    def spent(*command: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python(*command).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds, bare = [math.inf], [math.inf]
    while len(seconds) <= 20 and min(seconds) >= max(0.15, 2 * min(bare)):
        seconds.append(spent("-m", "raftcron", *words, "--help"))
        bare.append(spent("-c", "import click"))
    assert min(seconds) < max(0.15, 2 * min(bare)), (seconds, bare)


def test_every_command_is_there_and_says_what_it_is() -> None:
    """Each name of the lazy table leads to a command of that name, and its sentence is in the help."""
    runner = CliRunner()
    listed = runner.invoke(main, ["--help"]).stdout
    for name, (_, sentence) in main.commands_at.items():
        assert sentence in listed
        shown = runner.invoke(main, [name, "--help"])
        assert shown.exit_code == 0, shown.stderr
        assert f"Usage: raftcron {name}" in shown.stdout


def test_version_as_a_module() -> None:
    """`python -m raftcron` is the command line; the version is a command and an option."""
    assert python("-m", "raftcron", "version").stdout == f"{raftcron.__version__}\n"
    assert json.loads(python("-m", "raftcron", "version", "-o", "json").stdout) == {"version": raftcron.__version__}
    assert python("-m", "raftcron", "--version").stdout == f"raftcron {raftcron.__version__}\n"


def test_the_help_of_server_has_every_setting() -> None:
    """Each row of the table is in the help: flag, variable, default."""
    shown = " ".join(CliRunner().invoke(main, ["server", "--help"]).stdout.split())
    for row in SETTINGS:
        if not row.is_secret:
            assert f"{row.flag} " in shown
        assert f"[{row.variable};" in shown
        assert f"default {row.shown_default}" in shown


@pytest.mark.parametrize("row", [row for row in SETTINGS if not row.is_secret], ids=lambda row: row.name)
def test_every_setting_is_a_flag(row: Setting) -> None:
    """Each setting's flag reaches the check of its value: nothing is an unknown option, nothing is dropped."""
    args = ["server", row.flag] if row.kind.is_flag else ["server", row.flag, ""]
    result = CliRunner().invoke(main, args, env={"RAFTCRON_DATA_DIR": None, "RAFTCRON_CONFIG": None})
    assert result.exit_code == 2
    assert "--data-dir is missing" in result.stderr


def test_bad_settings_are_all_named_with_exit_code_2() -> None:
    """Every fault is on stderr at once, the exit code is 2, and there is no traceback."""
    done = python("-m", "raftcron", "server", "--lease", "0s", "--slots", "x", "--http", "0.0.0.0:7101")
    assert done.returncode == 2
    assert done.stdout == ""
    for part in ("--lease '0s'", "--slots 'x'", "0.0.0.0:7101 is beyond loopback", "--data-dir is missing"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_shows_each_fault_once() -> None:
    """Faults that the message does not hold already are listed below it."""
    failure = Failure(ConflictError("it is there: /a", (Fault("/a", "it is there"), Fault("/b", "second"))))
    assert failure.exit_code == 4
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    with CliRunner().isolation() as (_, err, _):
        failure.show()
        shown = err.getvalue().decode()
    assert shown == "raftcron: it is there: /a\n  /b: second\n"
