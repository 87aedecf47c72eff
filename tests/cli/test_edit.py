"""`raftcron job edit`: nothing that somebody wrote is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import StandIn, call

JOB = {"name": "a", "schedule": "@daily", "executor": {"type": "noop"}, "revision": 3}


def editor(folder: Path, script: str) -> str:
    file = folder / "editor"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def kept(stderr: str) -> Path:
    found = re.search(r"is kept in (\S+): mend it, and `raftcron job apply -f (\S+)` writes it", stderr)
    assert found is not None, stderr
    assert found[1] == found[2]
    return Path(found[1])


async def edited(node: StandIn, script: str, folder: Path) -> tuple[int, str]:
    node.answers(200, JOB)
    result = await call("job", "edit", "a", addr=node.address, EDITOR=editor(folder, script), TMPDIR=str(folder))
    return result.exit_code, result.stderr


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ('echo "timeout: 5m" >> "$1"; exit 3', 1, "ended with exit code 3; nothing was written"),
        ('echo ": : [" >> "$1"', 2, "not YAML"),
        ('printf "a: 1\\n---\\nb: 2\\n" > "$1"', 2, "has to hold one job"),
    ],
)
async def test_a_text_that_cannot_be_used_is_kept(
    node: StandIn, tmp_path: Path, script: str, code: int, words: str
) -> None:
    """An editor that fails, or what is no job: nothing is sent, and the path is told."""
    exit_code, stderr = await edited(node, script, tmp_path)
    assert (exit_code, len(node.asked)) == (code, 1)
    assert words in stderr
    assert kept(stderr).read_text()


@pytest.mark.parametrize(
    ("status", "code", "exit_code"), [(422, "invalid", 2), (412, "revision", 4), (503, "unavailable", 5)]
)
async def test_what_the_cluster_refuses_is_kept(
    node: StandIn, tmp_path: Path, status: int, code: str, exit_code: int
) -> None:
    """A fault, somebody else's change, no leader: the text is there, to be mended and applied."""
    node.answers(200, JOB)
    node.refuses(status, code, "because of that")
    script = editor(tmp_path, 'sed -i s/@daily/@hourly/ "$1"')
    result = await call("job", "edit", "a", addr=node.address, EDITOR=script)
    assert result.exit_code == exit_code
    assert "because of that" in result.stderr
    assert "schedule: '@hourly'" in kept(result.stderr).read_text()


async def test_nothing_is_left_where_nothing_was_written(node: StandIn, tmp_path: Path) -> None:
    """An editor that cannot be started, or leaves the text as it was."""
    exit_code, stderr = await edited(node, "exit 1", tmp_path)
    assert exit_code == 1
    assert "is kept" not in stderr
    node.answers(200, JOB)
    result = await call("job", "edit", "a", addr=node.address, EDITOR="/nonexistent/editor")
    assert result.exit_code == 1
    assert "'/nonexistent/editor' cannot be started" in result.stderr
    node.answers(200, JOB)
    result = await call("job", "edit", "a", addr=node.address, EDITOR=editor(tmp_path, 'echo "# a word" >> "$1"'))
    assert (result.exit_code, result.stderr) == (0, "raftcron: a: nothing was changed\n")
    assert [file.name for file in tmp_path.iterdir()] == ["editor"]
