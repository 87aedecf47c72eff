"""Of the cluster and of all that is in it: members, events, backups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from raftcron.api.backup import ARCHIVE
from raftcron.api.openapi.operations.parts import (
    KEY,
    LOCAL,
    MAKE,
    WRITE,
    WRITTEN,
    Answer,
    Body,
    Operation,
    Parameter,
    flag,
    json_body,
    one,
)
from raftcron.api.openapi.taken import TEXT


def of_cluster(
    id_: str,
    summary: str,
    body: Body | None,
    answers: Mapping[int, Answer],
    problems: tuple[int, ...] = WRITE,
    **more: Any,
) -> Operation:
    return Operation(
        id=id_,
        summary=summary,
        tag="cluster",
        headers=KEY,
        body=body,
        answers=answers,
        problems=problems,
        **more,
    )


OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/v1/cluster"): Operation(
        id="getCluster",
        summary="What this node knows of the cluster, also without a quorum",
        tag="cluster",
        query=(
            Parameter(
                "digests", {"type": "string", "enum": ["0", "1"], "default": "1"}, "0 leaves out the pairs, some 100 kB"
            ),
        ),
        answers={200: one("Cluster", "the cluster")},
        problems=(*LOCAL, 422),
    ),
    ("POST", "/v1/cluster/members"): of_cluster(
        "addMember",
        "Await a new member",
        json_body("MemberBody", {"fourth": {"name": "n4", "raft": "127.0.0.1:7204", "http": "127.0.0.1:7104"}}),
        {200: one("Members", "it votes already", WRITTEN), 202: one("Members", "it is awaited, or learns", WRITTEN)},
        MAKE,
    ),
    ("DELETE", "/v1/cluster/members/{name}"): of_cluster(
        "removeMember", "Remove a member", None, {204: Answer("it belongs no more", headers=WRITTEN)}, name="n3"
    ),
    ("POST", "/v1/cluster/members/{name}/replace"): of_cluster(
        "replaceMember",
        "Await an empty data directory in a member's place",
        json_body("ReplaceBody", {"same_address": {}}, is_required=False),
        {202: one("Members", "it is awaited", WRITTEN)},
        name="n3",
    ),
    ("POST", "/v1/cluster/transfer"): of_cluster(
        "transferLead",
        "Hand over the lead",
        json_body("TransferBody", {"to_n2": {"to": "n2"}}, is_required=False),
        {200: one("Leader", "who leads now", WRITTEN)},
    ),
    ("POST", "/v1/cluster/drain"): of_cluster(
        "drainNode",
        "A node gets no new runs, or may have them again",
        json_body("DrainBody", {"drain": {"node": "n3"}, "again": {"node": "n3", "drain": False}}),
        {200: one("Cluster", "the cluster", WRITTEN)},
        WRITE,
    ),
    ("POST", "/v1/cluster/accept-time"): of_cluster(
        "acceptTime",
        "The leader's clock counts from now on, where no majority agrees on another time",
        json_body("AcceptTimeBody", {"of_n1": {"leader": "n1"}}, is_required=False),
        {200: one("Cluster", "the cluster", WRITTEN)},
        MAKE,
    ),
    ("GET", "/v1/events"): Operation(
        id="events",
        summary="What the log changes, as server-sent events, resumable on any node by the id of the last one seen",
        tag="cluster",
        query=(
            Parameter(
                "kind",
                {"type": "string", "enum": ["run", "job", "leader", "node", "calendar"]},
                "all unless said",
                is_repeatable=True,
            ),
            Parameter("job", TEXT, "of this job alone", example="backup-db"),
            Parameter("last_event_id", TEXT, "as the header, for clients that cannot send it", example="42.0"),
        ),
        headers=("Last-Event-ID",),
        answers={200: Answer("a stream without an end", TEXT, "text/event-stream")},
        problems=(*LOCAL, 410, 422, 429),
    ),
    ("GET", "/v1/backup"): Operation(
        id="backup",
        summary="All jobs, calendars, groups and sealed secrets as of one index, as a checked archive",
        tag="cluster",
        answers={200: Answer("the archive", {"type": "string", "format": "binary"}, ARCHIVE)},
        problems=(*LOCAL, 422, 503),
    ),
    ("POST", "/v1/restore"): Operation(
        id="restore",
        summary="Put an archive in the place of all jobs, calendars and groups: all or nothing",
        tag="cluster",
        query=(flag("dry_run", "check the archive, and say what would be done"),),
        headers=KEY,
        body=Body(types={ARCHIVE: "Archive"}, examples={}),
        answers={200: one("Restored", "what was done", WRITTEN)},
        problems=MAKE,
    ),
}
