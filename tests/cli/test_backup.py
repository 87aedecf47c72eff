"""`raftcron backup` and `restore`: what lands in the file, what is sent, and what is refused before it is."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from raftcron.client.sync import Client, Upload
from raftcron.core import archive
from raftcron.core.archive import GroupRow, Head
from tests.cli.conftest import call

ARCHIVE = b"".join(archive.write(Head("c", 7, 1_000, {"groups": 1}), [("groups", [GroupRow("g", 2)])]))
ANSWER = {"jobs": 0, "calendars": 0, "groups": 1, "deleted": 3, "index": 9, "missing_secrets": ["/secrets/a"]}


async def served(body: bytes, taken: list[tuple[str, str, bytes]]) -> TestServer:
    async def handle(request: web.Request) -> web.StreamResponse:
        taken.append((request.path_qs, request.content_type, await request.read()))
        if request.method == "GET":
            return web.Response(body=body, content_type="application/vnd.raftcron.backup")
        return web.json_response(ANSWER)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    server = TestServer(app)
    await server.start_server()
    return server


async def ask(server: TestServer, *words: str) -> Any:
    return await call(*words, "--addr", f"http://127.0.0.1:{server.port}")


async def test_a_backup_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    """Only its owner may read it; one that came broken leaves the file that was there."""
    file = tmp_path / "x.backup"
    server = await served(ARCHIVE, [])
    result = await ask(server, "backup", str(file))
    assert result.exit_code == 0, result.output
    assert "1 groups, as of index 7" in result.stderr
    assert result.stdout == ""
    assert file.read_bytes() == ARCHIVE
    result = await ask(server, "backup", str(file), "-o", "json")
    assert json.loads(result.stdout) == {"file": str(file), "groups": 1, "index": 7}
    assert file.stat().st_mode & 0o777 == 0o600
    await server.close()
    server = await served(ARCHIVE[:-1], [])
    result = await ask(server, "backup", str(file))
    assert result.exit_code == 2
    assert "cut off" in result.stderr
    assert file.read_bytes() == ARCHIVE
    assert list(tmp_path.iterdir()) == [file]
    await server.close()


async def test_a_backup_takes_the_place_of_files_alone(tmp_path: Path) -> None:
    """A link stays and leads to the archive then, also one that led nowhere; a pipe is refused, and stays."""
    link, target, pipe = tmp_path / "link", tmp_path / "kept" / "x.backup", tmp_path / "pipe"
    target.parent.mkdir()
    link.symlink_to("kept/x.backup")
    os.mkfifo(pipe)
    taken: list[tuple[str, str, bytes]] = []
    server = await served(ARCHIVE, taken)
    for _ in range(2):
        result = await ask(server, "backup", str(link))
        assert result.exit_code == 0, result.output
        assert link.readlink() == Path("kept/x.backup")
        assert target.read_bytes() == ARCHIVE
        target.write_bytes(b"an older one")
    taken.clear()
    result = await ask(server, "backup", str(pipe))
    assert (result.exit_code, taken) == (2, [])
    assert f"{pipe}: is no regular file" in result.stderr
    assert "- for stdout" in result.stderr
    assert pipe.is_fifo()
    result = await ask(server, "backup", str(tmp_path / "nowhere" / "x"))
    assert result.exit_code == 2
    assert f"{tmp_path}/nowhere/x: cannot be written: No such file" in result.stderr
    assert sorted(tmp_path.rglob("*")) == [target.parent, target, link, pipe]
    await server.close()


async def test_a_dash_is_stdout_and_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backup writes there a restore takes; nothing else stands in it, and no file of that name is made."""
    monkeypatch.chdir(tmp_path)
    taken: list[tuple[str, str, bytes]] = []
    server = await served(ARCHIVE, taken)
    address = f"http://127.0.0.1:{server.port}"
    result = await ask(server, "backup", "-")
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == ARCHIVE
    assert "saved to stdout: 1 groups, as of index 7" in result.stderr
    result = await ask(server, "backup", "-", "-o", "json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "-o json" in result.stderr
    taken.clear()
    result = await call("restore", "-", "-o", "json", addr=address, stdin=ARCHIVE)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == ANSWER
    assert taken[0][2] == ARCHIVE
    result = await call("restore", "-", addr=address, stdin=ARCHIVE[:-1])
    assert (result.exit_code, len(taken)) == (2, 1)
    assert list(tmp_path.iterdir()) == []
    await server.close()


async def test_no_archive_is_shown_or_typed_at_a_terminal() -> None:
    """Both ways of a dash are refused there, with what to do, before a node is asked."""
    taken: list[tuple[str, str, bytes]] = []
    server = await served(ARCHIVE, taken)
    for command, told in (("backup", "raftcron backup - > FILE"), ("restore", "raftcron restore - < FILE")):
        exit_code, text = await at_a_terminal(server, "", "-", command=command)
        assert (exit_code, taken) == (2, []), text
        assert told in text
    await server.close()


async def at_a_terminal(server: TestServer, said: str, *words: str, command: str = "restore") -> tuple[int, str]:
    """A restore whose stdin is a terminal at which this is typed, or a backup whose stdout is one: exit code, words."""
    here, there = pty.openpty()
    try:
        os.write(here, said.encode())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "raftcron", command, "--addr", f"http://127.0.0.1:{server.port}", *words),
            stdin=there,
            stdout=there if command == "backup" else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        shown, told = await asyncio.wait_for(process.communicate(), 60)
    finally:
        os.close(here)
        os.close(there)
    assert process.returncode is not None
    return process.returncode, ((shown or b"") + told).decode()


async def test_a_restore_at_a_terminal_asks_before_it_destroys(tmp_path: Path) -> None:
    """Nothing is sent without a yes; --yes, -y and --dry-run ask nothing."""
    taken: list[tuple[str, str, bytes]] = []
    server = await served(b"", taken)
    file = tmp_path / "x.backup"
    file.write_bytes(ARCHIVE)
    for said, words, code, sent in (
        ("n\n", (), 1, 0),
        ("\n", (), 1, 0),
        ("y\n", (), 0, 1),
        ("", ("--yes",), 0, 1),
        ("", ("-y",), 0, 1),
        ("", ("--dry-run",), 0, 1),
    ):
        taken.clear()
        exit_code, text = await at_a_terminal(server, said, *words, str(file))
        assert (exit_code, len(taken)) == (code, sent), text
        assert ("will be deleted. Go on? [y/N]" in text) is not bool(words), text
    await server.close()


async def test_a_restore_sends_what_is_whole(tmp_path: Path) -> None:
    """Where nobody sits at a terminal nothing is asked; a damaged file is not sent; missing secrets are named."""
    taken: list[tuple[str, str, bytes]] = []
    server = await served(b"", taken)
    file = tmp_path / "x.backup"
    file.write_bytes(ARCHIVE)
    result = await ask(server, "restore", "-o", "json", str(file))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == ANSWER
    assert "write it again: /secrets/a" in result.stderr
    await ask(server, "restore", "--dry-run", str(file))
    kind = "application/vnd.raftcron.backup"
    assert taken[0] == ("/v1/restore", kind, ARCHIVE)
    assert taken[1][0] in ("/v1/restore?dry_run=1", "/v1/restore?dry_run=true")
    file.write_bytes(ARCHIVE[:-1])
    assert (await ask(server, "restore", "--yes", str(file))).exit_code == 2
    assert len(taken) == 2
    await server.close()


async def test_an_upload_tells_how_far_it_has_gone() -> None:
    """Byte for byte what was given, with its length, from the beginning each time; and nothing else is sent."""
    taken: list[tuple[str, str, bytes]] = []
    server = await served(b"", taken)
    content = bytes(range(256)) * 1_000
    told: list[int] = []
    with Client([f"http://127.0.0.1:{server.port}"], discover=False) as client:
        for _ in range(2):
            upload = Upload(content, told.append)
            await asyncio.to_thread(client.request, "POST", "/v1/restore", upload, None, {"Content-Type": "x/y"})
    assert [body for _, _, body in taken] == [content, content]
    assert told[-1] == len(content)
    assert len(told) > 2 * len(content) // 65_536
    await server.close()
