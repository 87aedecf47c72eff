"""What can be asked of a cluster, a method a route.

raftcron/client/api.py is the same without `async`: scripts/client writes it from this file, and a test compares them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final, Literal, cast
from urllib.parse import quote, urlencode

import msgspec

from raftcron.client.answers import Answer
from raftcron.client.events import Event, Parser, behind
from raftcron.client.views import Applied, Backfill, Coming, Explanation, Job, Run, Why
from raftcron.errors import GoneError, RaftcronError, UnavailableError

PAGE: Final = 1000  # items a request
FIRST_LOOK_SECONDS: Final = 0.05  # at an awaited run; doubled each time
LONGEST_LOOK_SECONDS: Final = 1.0
RECONNECT_SECONDS: Final = 0.5  # after a stream of events broke off
STREAM_BREAKS_MAX: Final = 20  # in a row, without an event between
NDJSON: Final = "application/x-ndjson"
MERGE_PATCH: Final = "application/merge-patch+json"
BACKUP: Final = "application/vnd.raftcron.backup"
OVER: Final = frozenset({"succeeded", "failed", "timed_out", "cancelled", "lost", "skipped"})

Consistency = Literal["linearizable", "stale"]
Query = Mapping[str, str | int | bool | Sequence[str] | None]


class AsyncApi(ABC):
    """Every method raises the error of raftcron.errors that the cluster's answer stands for; see each class there."""

    # ---- what the transport gives

    @abstractmethod
    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; `path` is quoted already, None in `query` is left out; `body` is JSON, or bytes as they are."""

    @abstractmethod
    def stream(
        self,
        path: str,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        opened: MutableMapping[str, str] | None = None,
    ) -> AsyncIterator[bytes]:
        """The body of a GET as it comes; `opened` gets the answer's headers.  UnavailableError where it breaks off."""

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Let time pass."""

    # ---- jobs

    async def put_job(
        self,
        name: str,
        job: Mapping[str, Any],
        *,
        if_match: int | None = None,
        must_create: bool = False,
    ) -> Job:
        """Create or replace; with `if_match` only that revision, with `must_create` only where there is none."""
        headers = _matching(if_match) | ({"If-None-Match": "*"} if must_create else {})
        return cast(Job, (await self.request("PUT", path("jobs", name), job, headers=headers)).body)

    async def preview_job(self, name: str, job: Mapping[str, Any]) -> dict[str, Any]:
        """What `put_job` would do: the job, its coming fires, what changes, and which fires are gained and lost."""
        answer = await self.request("PUT", path("jobs", name), job, {"dry_run": True})
        return cast(dict[str, Any], answer.body)

    async def create_job(self, job: Mapping[str, Any]) -> Job:
        """Create; ConflictError where there is one of this name."""
        return cast(Job, (await self.request("POST", path("jobs"), job)).body)

    async def patch_job(self, name: str, patch: Mapping[str, Any], *, if_match: int | None = None) -> Job:
        """Merge into what was written (RFC 7396)."""
        headers = {"Content-Type": MERGE_PATCH} | _matching(if_match)
        return cast(Job, (await self.request("PATCH", path("jobs", name), patch, headers=headers)).body)

    async def get_job(self, name: str, *, consistency: Consistency | None = None) -> Job:
        """One job."""
        return cast(Job, (await self.request("GET", path("jobs", name), query={"consistency": consistency})).body)

    def jobs(
        self,
        *,
        labels: Sequence[str] = (),
        state: str | None = None,
        search: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        consistency: Consistency | None = None,
    ) -> AsyncIterator[Job]:
        """All jobs, page by page; `labels` are `key=value`, `state` active, paused or ended."""
        query: Query = {"label": labels, "state": state, "q": search, "sort": sort, "consistency": consistency}
        return cast(AsyncIterator[Job], self.items(path("jobs"), query, limit))

    async def delete_job(self, name: str, *, cancel_running: bool = False, if_match: int | None = None) -> None:
        """Delete; no start commits after this returns."""
        query: Query = {"cancel_running": True if cancel_running else None}
        await self.request("DELETE", path("jobs", name), query=query, headers=_matching(if_match))

    async def apply_jobs(
        self,
        jobs: Iterable[Mapping[str, Any]],
        *,
        owner: str | None = None,
        prune: bool = False,
        dry_run: bool = False,
    ) -> list[Applied]:
        """Create or replace many; with `prune` delete what `owner` owns and is not among them.  A repeat is harmless.

        InvalidError: none was taken; what is wrong with which stands in its faults.
        """
        body = b"".join(msgspec.json.encode(job) + b"\n" for job in jobs)
        query: Query = {"owner": owner, "prune": prune or None, "dry_run": dry_run or None}
        answer = await self.request("POST", "/v1/jobs:apply", body, query, {"Content-Type": NDJSON})
        return cast(list[Applied], answer.body["results"])

    async def pause_job(self, name: str, *, note: str | None = None, until: str | None = None) -> Job:
        """Fire it no more, until an instant (RFC 3339) or until it is resumed."""
        body = {key: value for key, value in (("note", note), ("until", until)) if value is not None}
        return cast(Job, (await self.request("POST", path("jobs", name, "pause"), body)).body)

    async def resume_job(self, name: str, *, catch_up: bool = False) -> Job:
        """Fire it again; with `catch_up` the misfire policy judges what fell due meanwhile."""
        body = {"catch_up": True} if catch_up else {}
        return cast(Job, (await self.request("POST", path("jobs", name, "resume"), body)).body)

    async def skip_next(self, name: str, count: int = 1) -> Job:
        """Skip the next so many times, instead of those asked for before; 0 takes it back."""
        return cast(Job, (await self.request("POST", path("jobs", name, "skip-next"), {"count": count})).body)

    async def next_fires(self, name: str, count: int = 10) -> list[Coming]:
        """The coming fires, as far as they are known."""
        answer = await self.request("GET", path("jobs", name, "next"), query={"count": count})
        return cast(list[Coming], answer.body["items"])

    async def why(self, name: str, at: str) -> Why:
        """What became, or will become, of an instant (RFC 3339)."""
        return cast(Why, (await self.request("GET", path("jobs", name, "why"), query={"at": at})).body)

    async def backfill(self, name: str, start: str, end: str, *, dry_run: bool = False) -> Backfill:
        """Run what the schedule names between two instants (RFC 3339)."""
        body = {"from": start, "to": end, "dry_run": dry_run}
        return cast(Backfill, (await self.request("POST", path("jobs", name, "backfill"), body)).body)

    async def explain(
        self,
        schedule: str,
        *,
        timezone: str | None = None,
        dst: Mapping[str, str] | None = None,
        hash_key: str | None = None,
        start: str | None = None,
        count: int | None = None,
    ) -> Explanation:
        """A schedule in words, its next fires after `start` (RFC 3339; default now), and what may surprise."""
        asked = {
            "schedule": schedule,
            "timezone": timezone,
            "dst": dst,
            "hash_key": hash_key,
            "from": start,
            "count": count,
        }
        body = {key: value for key, value in asked.items() if value is not None}
        return cast(Explanation, (await self.request("POST", "/v1/schedules:explain", body)).body)

    # ---- runs

    async def run_job(self, name: str, *, args: Any = None, overlap: Literal["allow"] | None = None) -> Run:
        """Run now; overlap may have skipped it already, unless `overlap="allow"`."""
        body = {key: value for key, value in (("args", args), ("overlap", overlap)) if value is not None}
        return cast(Run, (await self.request("POST", path("jobs", name, "runs"), body)).body["run"])

    def runs(
        self,
        *,
        job: str | None = None,
        state: str | None = None,
        since: str | None = None,
        limit: int | None = None,
        consistency: Consistency | None = None,
    ) -> AsyncIterator[Run]:
        """Runs, newest first, page by page."""
        query: Query = {"job": job, "state": state, "since": since, "consistency": consistency}
        return cast(AsyncIterator[Run], self.items(path("runs"), query, limit))

    async def get_run(self, run_id: str, *, consistency: Consistency | None = None) -> Run:
        """One run."""
        return cast(Run, (await self.request("GET", path("runs", run_id), query={"consistency": consistency})).body)

    async def wait_run(self, run_id: str) -> Run:
        """The run once it has ended, retries included."""
        seconds = FIRST_LOOK_SECONDS
        while (run := await self.get_run(run_id)).get("state") not in OVER:
            await self.pause(seconds)
            seconds = min(2 * seconds, LONGEST_LOOK_SECONDS)
        return run

    async def output(self, run_id: str, *, follow: bool = False, attempt: int | None = None) -> AsyncIterator[bytes]:
        """The full output, in pieces; with `follow` live, until the run has ended.

        What is followed goes on through another node where the one that was asked breaks off.  UnavailableError: the
        rest is on the disk of a node that is not there, and no other attempt came.
        """
        opened: dict[str, str] = {}
        seen = 0
        try:
            query: Query = {"follow": follow or None, "attempt": attempt}
            async for piece in self.stream(path("runs", run_id, "output"), query, opened=opened):
                seen += len(piece)
                yield piece
        except UnavailableError:
            if not follow or not opened.get("raftcron-attempt", "").isdigit():
                raise
        else:
            return
        async for piece in self._rest(run_id, int(opened["raftcron-attempt"]), seen, is_last=attempt is not None):
            yield piece

    async def _rest(self, run_id: str, attempt: int, seen: int, *, is_last: bool) -> AsyncIterator[bytes]:
        """What follows the first `seen` bytes from the beginning of an attempt, attempt by attempt."""
        breaks = got = 0
        is_whole = False  # this attempt has ended, and all of it came
        trouble: RaftcronError | None = None
        while True:
            if not is_whole:
                got, trouble = 0, None
                query: Query = {"follow": True, "attempt": attempt}
                try:
                    async for piece in self.stream(path("runs", run_id, "output"), query):
                        fresh = piece[max(seen - got, 0) :]
                        got += len(piece)
                        if fresh:
                            yield fresh
                except (UnavailableError, GoneError) as error:
                    trouble = error
            try:
                run = await self.get_run(run_id)
                breaks = 0
            except UnavailableError as error:
                breaks += 1
                if breaks > STREAM_BREAKS_MAX:
                    raise trouble or error from None
                await self.pause(RECONNECT_SECONDS)
                continue
            ended = [one["attempt"] for one in run["attempts"] if one["state"] != "running"]
            later = [one["attempt"] for one in run["attempts"] if one["attempt"] > attempt]
            if later and not is_last:
                # What was seen beyond the end of this attempt was the beginning of the next.
                attempt, seen, is_whole = later[0], 0 if trouble else max(seen - got, 0), False
                continue
            if run["state"] in OVER:
                if trouble:
                    raise trouble
                return
            seen, is_whole = max(seen, got), trouble is None and attempt in ended
            await self.pause(RECONNECT_SECONDS)

    async def cancel_run(self, run_id: str) -> Run:
        """Cancel an active run."""
        return _run(await self.request("POST", path("runs", run_id, "cancel"), {}))

    async def retry_run(self, run_id: str) -> Run:
        """A new run of the same job, with the same args."""
        return _run(await self.request("POST", path("runs", run_id, "retry"), {}))

    async def finish_run(self, run_id: str, token: int, state: str = "succeeded", message: str | None = None) -> Run:
        """End a long HTTP run from its target; `token` is the fencing token that it was given."""
        body = {"token": token, "state": state} | ({} if message is None else {"message": message})
        return _run(await self.request("POST", path("runs", run_id, "finish"), body))

    async def heartbeat_run(self, run_id: str, token: int) -> Run:
        """Say that a long HTTP run is still at work."""
        return _run(await self.request("POST", path("runs", run_id, "heartbeat"), {"token": token}))

    # ---- the cluster

    async def cluster(self) -> dict[str, Any]:
        """The cluster as the answering node sees it, also without a quorum."""
        return cast(dict[str, Any], (await self.request("GET", path("cluster"))).body)

    async def whoami(self) -> dict[str, Any]:
        """Who this client is to the cluster: `name`, `role` and `prefix`."""
        return cast(dict[str, Any], (await self.request("GET", path("whoami"))).body)

    async def add_member(self, name: str, raft: str, http: str | None = None) -> dict[str, Any]:
        """Await a new node; it learns first, and votes once it has caught up."""
        body = {"name": name, "raft": raft} | ({} if http is None else {"http": http})
        return cast(dict[str, Any], (await self.request("POST", path("cluster", "members"), body)).body)

    async def remove_member(self, name: str) -> None:
        """Take a node out for good."""
        await self.request("DELETE", path("cluster", "members", name))

    async def replace_member(self, name: str, raft: str | None = None, http: str | None = None) -> dict[str, Any]:
        """Give up what a node's disk held, and let it begin anew on an empty one."""
        body = {key: value for key, value in (("raft", raft), ("http", http)) if value is not None}
        return cast(
            dict[str, Any], (await self.request("POST", path("cluster", "members", name, "replace"), body)).body
        )

    async def transfer(self, to: str | None = None) -> dict[str, Any]:
        """Hand over the lead, to a node or to whichever is furthest."""
        body = {} if to is None else {"to": to}
        return cast(dict[str, Any], (await self.request("POST", path("cluster", "transfer"), body)).body)

    async def drain(self, node: str, *, undo: bool = False) -> dict[str, Any]:
        """Have a node take no new runs, and give the lead away; with `undo` take runs again."""
        body = {"node": node, "drain": not undo}
        return cast(dict[str, Any], (await self.request("POST", path("cluster", "drain"), body)).body)

    async def accept_time(self, leader: str | None = None) -> dict[str, Any]:
        """Have the leader, where it holds for want of a trusted time, take its own clock: look at that clock first.

        `leader` is the node whose clock that is, by default the one that leads now.  ConflictError: another one leads
        by the time that this takes effect, or a majority agrees on another time; UnavailableError: nobody leads.
        """
        if leader is None:
            now = await self.cluster()
            leader = now["leader"]
        if leader is None:
            raise UnavailableError("there is no leader now, so there is no clock to accept: ask again")
        body = {"leader": leader}
        return cast(dict[str, Any], (await self.request("POST", path("cluster", "accept-time"), body)).body)

    async def events(self, after: str | None = None) -> AsyncIterator[Event]:
        """What happens, as it happens; from behind `after` (an event's id) on, also across nodes and leaders.

        GoneError: the events behind `after` are no longer held; list again, and begin without it.
        """
        breaks = 0
        while True:
            headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
            parser, opened = Parser(), dict[str, str]()
            try:
                async for chunk in self.stream(path("events"), headers=headers, opened=opened):
                    for event in parser.feed(chunk):
                        breaks, after = 0, event.id or after
                        yield event
            except UnavailableError:
                if breaks >= STREAM_BREAKS_MAX:
                    raise
            after = after or behind(opened)
            breaks += 1
            if breaks > STREAM_BREAKS_MAX:
                raise RaftcronError("the stream of events ends at once, each time: look at the nodes' logs")
            await self.pause(RECONNECT_SECONDS)

    def backup(self) -> AsyncIterator[bytes]:
        """A checked archive of jobs, calendars, groups and all that a restore brings back, in pieces."""
        return self.stream(path("backup"))

    async def restore(self, archive: bytes, *, dry_run: bool = False) -> dict[str, Any]:
        """Put an archive in the place of what is there: all or nothing; with `dry_run` say what that would do."""
        query: Query = {"dry_run": dry_run or None}
        answer = await self.request("POST", path("restore"), archive, query, {"Content-Type": BACKUP})
        return cast(dict[str, Any], answer.body)

    def audit(self, limit: int | None = None) -> AsyncIterator[dict[str, Any]]:
        """Who changed what, newest first."""
        return cast(AsyncIterator[dict[str, Any]], self.items(path("audit"), limit=limit))

    # ---- named things beside jobs: calendars, groups, tokens, secrets

    def things(self, kind: str) -> AsyncIterator[dict[str, Any]]:
        """All `calendars`, `groups`, `tokens` or `secrets` (of these last two, never what they hold)."""
        return cast(AsyncIterator[dict[str, Any]], self.items(path(kind)))

    async def get_thing(self, kind: str, name: str) -> dict[str, Any]:
        """One of them."""
        return cast(dict[str, Any], (await self.request("GET", path(kind, name))).body)

    async def put_thing(self, kind: str, name: str, body: Mapping[str, Any]) -> Any:
        """Create or replace one of them."""
        return (await self.request("PUT", path(kind, name), body)).body

    async def delete_thing(self, kind: str, name: str) -> None:
        """Delete one of them."""
        await self.request("DELETE", path(kind, name))

    async def create_token(self, name: str, role: str, prefix: str | None = None) -> dict[str, Any]:
        """A new token; the answer is the only one that ever shows it, as `token`.

        None there: that answer was lost on its way; delete the token, and make another.
        """
        body = {"name": name, "role": role} | ({} if prefix is None else {"prefix": prefix})
        return cast(dict[str, Any], (await self.request("POST", path("tokens"), body)).body)

    # ---- lists

    async def items(self, target: str, query: Query | None = None, limit: int | None = None) -> AsyncIterator[Any]:
        """All items of a list, page by page, at most `limit`."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            answer = await self.request("GET", target, query=dict(query or {}) | {"limit": size, "cursor": cursor})
            page = answer.body
            found = page["items"] if left is None else page["items"][:left]
            for item in found:
                yield item
            left = None if left is None else left - len(found)
            following = page.get("next_cursor")
            if not following or following == cursor:
                return
            cursor = following


def path(*segments: str) -> str:
    """The path of the API under /v1, each segment quoted."""
    return "/".join(("/v1", *(quote(segment, safe="") for segment in segments)))


def target_of(where: str, query: Query | None) -> str:
    """Path and query as they are sent."""
    pairs: list[tuple[str, str | int]] = []
    for name, value in (query or {}).items():
        if isinstance(value, bool):
            pairs.append((name, int(value)))
        elif isinstance(value, str | int):
            pairs.append((name, value))
        elif value is not None:
            pairs.extend((name, one) for one in value)
    return where + ("?" + urlencode(pairs) if pairs else "")


def _matching(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def _run(answer: Answer) -> Run:
    """The run in an answer: 202 wraps it."""
    body = answer.body
    return cast(Run, body["run"] if isinstance(body, dict) and "run" in body else body)
