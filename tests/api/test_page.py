"""GET / and /ui/...: what the web page's files are served with; what it does is seen in tests/browser."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from raftcron.api.page import TYPES
from tests.api.bench import Bench
from tests.api.test_tokens import close_door

UI = files("raftcron").joinpath("ui")
NAMES = sorted(entry.name for entry in UI.iterdir())
MARKUP = (  # what makes markup or code of text, and what the policy refuses
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setHTML",
    r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son[a-z]+=\"",
)
LINES_MAX = 300  # of a file, so that each stays one thought


@pytest.mark.parametrize("path", ["/", *(f"/ui/{name}" for name in NAMES)])
async def test_each_file_is_served_strictly(one: Bench, path: str) -> None:
    """With its own type, a policy that takes no script or style but those files, and an ETag that saves the body."""
    answer = (await one.ask("GET", path)).expect(200)
    kind = "html" if path == "/" else path.rpartition(".")[2]
    assert answer.headers["Content-Type"] == TYPES[kind]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-cache"
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["img-src"] == "'self'"
    again = await one.ask("GET", path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == answer.headers["ETag"]
    head = (await one.ask("HEAD", path)).expect(200)
    assert head.headers["ETag"] == answer.headers["ETag"]


@pytest.mark.parametrize("path", ["/ui/", "/ui/none.js", "/ui/..%2fapi%2fpage.py", "/ui/main.js/x", "/ui"])
async def test_nothing_else_is_served(one: Bench, path: str) -> None:
    (await one.ask("GET", path)).problem(404, "not_found")


async def test_the_files_need_no_token(one: Bench) -> None:
    """They hold nothing of the cluster; what the page asks for then needs one."""
    await close_door(one, "n1")
    for path in ("/", "/ui/main.js"):
        (await one.ask("GET", path)).expect(200)
    (await one.ask("GET", "/v1/cluster")).problem(401, "unauthorized")


async def test_a_stranger_s_host_gets_no_page(one: Bench) -> None:
    """On loopback a name that was bound to it elsewhere is refused, as everywhere."""
    (await one.ask("GET", "/", headers={"Host": "evil.example"})).problem(403, "forbidden")


async def test_whoami(one: Bench) -> None:
    """Who asks without a token on loopback may do everything."""
    assert (await one.ask("GET", "/v1/whoami")).expect(200).json == {"name": "anonymous", "role": "admin", "prefix": ""}


async def test_digests_can_be_left_out(one: Bench) -> None:
    """They are most of the answer's bytes."""
    assert (await one.ask("GET", "/v1/cluster?digests=0")).expect(200).json["digests"] == []
    assert (await one.ask("GET", "/v1/cluster?digests=1")).expect(200).json["digests"]
    assert (await one.ask("GET", "/v1/cluster?digests=no")).pointers(422, "invalid") == ["?digests"]


def test_files_name_only_each_other() -> None:
    """No inline script or style, no other host, and each file that is asked for is there."""
    for name in NAMES:
        text = UI.joinpath(name).read_text()
        assert text.count("\n") <= LINES_MAX, name
        assert set(re.findall(r'(?:from "\./|="/ui/)([^"]+)"', text)) <= {*NAMES}, name
        for never in MARKUP:
            assert not re.search(never, text), f"{name}: {never}"
