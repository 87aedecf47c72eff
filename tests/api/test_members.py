"""Who belongs to the cluster: added, removed, replaced, and the lead handed over, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.bench import Bench, bench

N4 = {"name": "n4", "raft": "127.0.0.1:7204", "http": "127.0.0.1:7104"}


@pytest.fixture
async def three() -> AsyncIterator[Bench]:
    async with bench(3, hold_seconds=0.3) as made:
        yield made


async def standings(made: Bench, on: str = "n1") -> dict[str, str]:
    """Name -> standing, as GET /v1/cluster shows them."""
    seen = (await made.ask("GET", "/v1/cluster", on=on)).expect(200).json
    return {member["name"]: member["standing"] for member in seen["members"]}


async def test_a_member_is_added(three: Bench) -> None:
    """202: it is awaited, learns, and votes when it has caught up; then the same request is 200."""
    added = (await three.ask("POST", "/v1/cluster/members", N4, on="n2")).expect(202)
    assert added.headers["Raftcron-Node"] == "n2"
    n4 = added.json["members"][3]
    assert n4 == {
        "name": "n4",
        "role": "learner",
        "standing": "awaited",
        "http": "127.0.0.1:7104",
        "raft": "127.0.0.1:7204",
        "alive": False,
        "drained": False,
        "tags": {},
        "handlers": [],
        **dict.fromkeys(("slots", "process_slots")),
        **dict.fromkeys(("applied_index", "digest", "incarnation", "clock_offset_ms", "version", "croniter", "tzdata")),
    }
    assert (await three.ask("POST", "/v1/cluster/members", N4)).expect(202).json["members"] == added.json["members"]
    three.cluster.come("n4")
    assert (await standings(three))["n4"] == "learner"
    (await three.ask("POST", "/v1/cluster/members", N4)).expect(202)
    three.cluster.promote("n4")
    (await three.ask("POST", "/v1/cluster/members", N4)).expect(200)
    assert set((await standings(three, on="n3")).values()) == {"voter"}


async def test_a_member_is_added_once(three: Bench) -> None:
    """Another address under its name, and its address under another name, are 409."""
    (await three.ask("POST", "/v1/cluster/members", N4)).expect(202)
    moved = await three.ask("POST", "/v1/cluster/members", N4 | {"raft": "127.0.0.1:7999"}, on="n2")
    assert "n4 is a member already" in moved.problem(409, "conflict")["detail"]
    taken = await three.ask("POST", "/v1/cluster/members", N4 | {"name": "n5"})
    assert "n4 is reached at 127.0.0.1:7204" in taken.problem(409, "conflict")["detail"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/name", "/raft"]),
        ({"name": "a b", "raft": 5, "http": "x"}, ["/name", "/raft", "/http"]),
        (N4 | {"raft": "127.0.0.1:0", "voter": True}, ["/voter", "/raft"]),
        (N4 | {"raft": "0.0.0.0:7204", "http": "[::]:7104"}, ["/raft", "/http"]),
        (N4 | {"http": "127.0.0.1:7204"}, ["/http"]),
        ([], [""]),
    ],
)
async def test_every_fault_of_a_member_is_named(three: Bench, body: Any, pointers: list[str]) -> None:
    """422, on any node, and nothing is changed."""
    assert (await three.ask("POST", "/v1/cluster/members", body, on="n2")).pointers(422, "invalid") == pointers
    assert len(await standings(three)) == 3


async def test_a_member_is_removed(three: Bench) -> None:
    """204, on any node; a second time, and a stranger, are 404."""
    answer = (await three.ask("DELETE", "/v1/cluster/members/n3", on="n2")).expect(204)
    assert answer.body == b""
    assert answer.index > 0
    assert sorted(await standings(three)) == ["n1", "n2"]
    for name in ("n3", "n9"):
        gone = await three.ask("DELETE", f"/v1/cluster/members/{name}", on="n2")
        assert "the members are n1, n2" in gone.problem(404, "not_found")["detail"]


async def test_a_leader_that_is_removed_hands_over_first(three: Bench) -> None:
    """Whoever was asked sees to it that the new leader removes it."""
    for on, leader, left in (("n1", "n1", ["n2", "n3"]), ("n3", "n2", ["n3"])):
        assert three.cluster.leader == leader
        (await three.ask("DELETE", f"/v1/cluster/members/{leader}", on=on)).expect(204)
        assert sorted(await standings(three, on="n3")) == left
    last = await three.ask("DELETE", "/v1/cluster/members/n3", on="n3")
    assert "the only voter" in last.problem(409, "unsafe_change")["detail"]


async def test_a_change_that_would_leave_no_working_majority_is_refused(three: Bench) -> None:
    """409 with a code of its own, and the names of those who do not answer."""
    three.cluster.silent.add("n3")
    answer = await three.ask("DELETE", "/v1/cluster/members/n2", on="n2")
    assert "n3 does not" in answer.problem(409, "unsafe_change")["detail"]
    assert set((await standings(three)).values()) == {"voter"}
    (await three.ask("DELETE", "/v1/cluster/members/n3", on="n2")).expect(204)


async def test_a_member_is_replaced() -> None:
    """202 and an empty seat, at its addresses or others; it has to have ended, and its lease to be over."""
    left = {"n3": 2.3}
    async with bench(3, hold_seconds=0.3, lease_left=lambda name: left.get(name, 0.0)) as made:
        running = await made.ask("POST", "/v1/cluster/members/n3/replace", on="n2")
        assert "n3 runs, and is connected: end it first" in running.problem(409, "conflict")["detail"]
        made.cluster.silent.add("n3")
        early = await made.ask("POST", "/v1/cluster/members/n3/replace", on="n2")
        early.problem(409, "conflict")
        assert early.headers["Retry-After"] == "3"
        left.clear()
        n3 = (await made.ask("POST", "/v1/cluster/members/n3/replace", on="n2")).expect(202).json["members"][2]
        assert (n3["role"], n3["standing"], n3["alive"], n3["incarnation"]) == ("learner", "awaited", False, None)
        assert made.cluster.members.seats["n3"].lives == 1
        (await made.ask("POST", "/v1/cluster/members/n3/replace")).expect(202)  # as often as one likes
        elsewhere = {"raft": "127.0.0.9:1", "http": "127.0.0.9:2"}
        moved = (await made.ask("POST", "/v1/cluster/members/n3/replace", elsewhere)).expect(202).json["members"][2]
        assert (moved["raft"], moved["http"]) == ("127.0.0.9:1", "127.0.0.9:2")
        for body in ({"raft": "nowhere"}, {"disk": "d"}):
            (await made.ask("POST", "/v1/cluster/members/n3/replace", body)).pointers(422, "invalid")
        (await made.ask("POST", "/v1/cluster/members/n9/replace", on="n2")).problem(404, "not_found")


async def test_a_name_comes_back_when_its_lease_is_over() -> None:
    """What a removed node runs may go on until then; a name that nobody had need not wait."""
    left = {"n3": 1.0, "n4": 1.0}
    async with bench(3, lease_left=lambda name: left.get(name, 0.0)) as made:
        (await made.ask("DELETE", "/v1/cluster/members/n3")).expect(204)
        again = {"name": "n3", "raft": "127.0.0.1:7203"}
        assert "Retry-After" in (await made.ask("POST", "/v1/cluster/members", again)).headers
        (await made.ask("POST", "/v1/cluster/members", N4)).expect(202)
        left.clear()
        (await made.ask("POST", "/v1/cluster/members", again)).expect(202)
        assert (made.cluster.members.seats["n3"].lives, made.cluster.members.seats["n4"].lives) == (1, 0)


async def test_the_lead_is_handed_over(three: Bench) -> None:
    """To whom one likes, among the voters; the answer says who leads."""
    for to, leader in ((None, "n2"), ("n3", "n3"), ("n3", "n3")):
        body = {} if to is None else {"to": to}
        answer = (await three.ask("POST", "/v1/cluster/transfer", body, on="n1")).expect(200)
        assert answer.json == {"leader": leader}
        assert three.cluster.leader == leader
    (await three.ask("POST", "/v1/cluster/transfer", {"to": "n9"})).problem(404, "not_found")
    assert (await three.ask("POST", "/v1/cluster/transfer", {"to": 3})).pointers() == ["/to"]
    assert (await three.ask("POST", "/v1/cluster/transfer", {"too": "n2"})).pointers() == ["/too"]
    (await three.ask("POST", "/v1/cluster/members", N4)).expect(202)
    (await three.ask("POST", "/v1/cluster/transfer", {"to": "n4"})).problem(409, "conflict")


async def test_a_lone_node_has_nobody_to_hand_over_to(one: Bench) -> None:
    """409."""
    assert "only voter" in (await one.ask("POST", "/v1/cluster/transfer")).problem(409, "conflict")["detail"]


async def test_changes_need_a_quorum(three: Bench) -> None:
    """503: certainly not written, whether or not the request makes sense; what cannot be read is told all the same."""
    three.cluster.cut()
    for method, path, body in (
        ("POST", "/v1/cluster/members", N4),
        ("DELETE", "/v1/cluster/members/n9", None),
        ("POST", "/v1/cluster/members/n9/replace", None),
        ("POST", "/v1/cluster/transfer", {"to": "n9"}),
    ):
        (await three.ask(method, path, body)).problem(503, "unavailable")
    (await three.ask("POST", "/v1/cluster/members", data=b"{")).problem(400, "malformed")
    assert set((await standings(three)).values()) == {"voter"}


async def test_an_unknown_outcome_is_said(three: Bench) -> None:
    """504, as of any write; looking at the members tells."""

    async def noted(text: str, key: object) -> None:
        """So that the answer below is that of the change itself."""

    three.n1.context.members._note = noted
    three.n1.log.next_answer = "unknown_written"
    (await three.ask("POST", "/v1/cluster/members", N4, on="n2")).problem(504, "unknown_outcome")
    assert (await standings(three))["n4"] == "awaited"


async def test_a_change_of_the_members_is_in_the_audit_trail(three: Bench) -> None:
    """Before it is done, once, and not where it is refused or changes nothing."""
    for _ in range(2):
        (await three.ask("POST", "/v1/cluster/members", N4, on="n2")).expect(202)
    (await three.ask("POST", "/v1/cluster/members", N4 | {"raft": "127.0.0.1:7999"})).problem(409)
    (await three.ask("DELETE", "/v1/cluster/members/n9")).problem(404)
    (await three.ask("DELETE", "/v1/cluster/members/n4")).expect(204)
    items = (await three.ask("GET", "/v1/audit", on="n3")).expect(200).json["items"]
    assert [(item["node"], item["method"], item["summary"]) for item in items] == [
        ("n1", "DELETE", "member n4 to be removed"),
        ("n2", "POST", "member n4 to be added"),
    ]
