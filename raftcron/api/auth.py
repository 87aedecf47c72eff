"""Who asks, and whether they may: tokens, the table of roles, and what a node tells the leader of its caller.

A node is *open* where it listens and is reached on loopback alone, or with --insecure: there nobody needs a token, and
who brings none may do everything.  A token that is brought counts everywhere, and has to be right.

A forwarded write carries no token.  The node that took it vouches for its caller under a key that follows from the
cluster secret: for this method, path and body, in this epoch, once.  What the caller may do the leader reads in its own
state, so a token that was revoked there is worth nothing on the way.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections import deque
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web

from raftcron.api.context import NODE, NodeContext
from raftcron.api.guard import host_of, is_loopback
from raftcron.core.access import ADMIN, EVERYBODY, OPERATE, READ, Principal, known, principal_of
from raftcron.core.audit import clean
from raftcron.core.commands import Origin
from raftcron.errors import ForbiddenError, NotFoundError, RaftcronError, UnauthorizedError, UnavailableError

VOUCH: Final = "Raftcron-Vouch"
FREE: Final = frozenset({"/livez", "/readyz", "/", "/ui/{name}"})  # never need a token: signs of life, the page's files
NONCE_BYTES = 16
NONCES_KEPT = 65_536  # forwarded writes of an epoch that are not taken a second time
PATH_SHOWN = 200  # characters
_SCHEME = "bearer"
_PRINCIPAL: Final = web.RequestKey("principal", Principal)
_BODY: Final = web.RequestKey("vouched_body", bytes)

# What a prefix means for a route.
JOB: Final = "job"  # the job in its path has to be within the prefix
RUN: Final = "run"  # the job of the run in its path
NAME: Final = "name"  # the name in its path (of a secret)
SEES: Final = "sees"  # the handler shows, or takes, what is within the prefix
ALL: Final = "all"  # concerns no job, or all alike: open to any prefix
WHOLE: Final = "whole"  # reaches beyond every prefix: not for a token that has one


class Rule(NamedTuple):
    """The least role that a route needs, and what a prefix means for it."""

    role: str
    scope: str


def _rules(role: str, scope: str, *routes: str) -> dict[tuple[str, str], Rule]:
    found = {}
    for route in routes:
        method, path = route.split(" ")
        found[method, path] = Rule(role, scope)
    return found


# The one table; docs/security.md shows it.  A route that does not stand here needs an admin's token without a prefix.
RULES: Final[Mapping[tuple[str, str], Rule]] = {
    **_rules(READ, SEES, "GET /v1/jobs", "GET /v1/runs", "GET /v1/events"),
    **_rules(
        READ, JOB, "GET /v1/jobs/{name}", "GET /v1/jobs/{name}/next", "GET /v1/jobs/{name}/runs",
        "GET /v1/jobs/{name}/why",
    ),
    **_rules(READ, RUN, "GET /v1/runs/{id}", "GET /v1/runs/{id}/output"),
    **_rules(
        READ, ALL, "GET /openapi.json", "GET /metrics", "GET /v1/whoami", "GET /v1/cluster", "GET /v1/calendars",
        "GET /v1/calendars/{name}", "GET /v1/groups", "GET /v1/groups/{name}", "POST /v1/schedules:explain",
    ),
    **_rules(OPERATE, SEES, "POST /v1/jobs", "POST /v1/jobs:apply", "GET /v1/secrets"),
    **_rules(
        OPERATE, JOB, "PUT /v1/jobs/{name}", "PATCH /v1/jobs/{name}", "DELETE /v1/jobs/{name}",
        "POST /v1/jobs/{name}/pause", "POST /v1/jobs/{name}/resume", "POST /v1/jobs/{name}/skip-next",
        "POST /v1/jobs/{name}/runs", "POST /v1/jobs/{name}/backfill",
    ),
    **_rules(
        OPERATE, RUN, "POST /v1/runs/{id}/cancel", "POST /v1/runs/{id}/retry", "POST /v1/runs/{id}/finish",
        "POST /v1/runs/{id}/heartbeat",
    ),
    **_rules(OPERATE, NAME, "PUT /v1/secrets/{name}", "DELETE /v1/secrets/{name}"),
    **_rules(
        OPERATE, WHOLE, "PUT /v1/calendars/{name}", "DELETE /v1/calendars/{name}", "PUT /v1/groups/{name}",
        "DELETE /v1/groups/{name}",
    ),
    **_rules(
        ADMIN, WHOLE, "GET /v1/tokens", "POST /v1/tokens", "DELETE /v1/tokens/{name}", "GET /v1/audit",
        "GET /v1/backup", "POST /v1/restore", "POST /v1/cluster/members", "DELETE /v1/cluster/members/{name}",
        "POST /v1/cluster/members/{name}/replace", "POST /v1/cluster/transfer", "POST /v1/cluster/drain",
        "POST /v1/cluster/accept-time", "GET /v1/alerts/default", "PUT /v1/alerts/default", "DELETE /v1/alerts/default",
    ),
}  # fmt: skip
UNKNOWN: Final = Rule(ADMIN, WHOLE)


def principal(request: web.Request) -> Principal:
    """Who asks; known as soon as a handler runs."""
    who: Principal = request.get(_PRINCIPAL, EVERYBODY)
    return who


def check_name(request: web.Request, name: Any, pointer: str = "/name") -> None:
    """Raises ForbiddenError where a name that a body holds is beyond the caller's prefix."""
    who = principal(request)
    if isinstance(name, str) and not who.may_name(name):
        raise _beyond(who, f"{name[:PATH_SHOWN]!r} ({pointer})")


def check_parents(request: web.Request, body: Any, name: Any) -> None:
    """Raises ForbiddenError where a job would be after one beyond the caller's prefix, and is not yet.

    It would tell of the ends of runs that the caller may not see.
    """
    who = principal(request)
    after = body.get("after") if who.prefix and isinstance(body, dict) else None
    if not isinstance(after, list):
        return
    state = request.app[NODE].machine.state
    job = state.jobs.get(name) if isinstance(name, str) else None
    kept = set() if job is None else {parent for parent, _ in state.policy(job.uid).after}
    for place, item in enumerate(after):
        parent = item.get("job") if isinstance(item, dict) else None
        if isinstance(parent, str) and parent not in kept:
            check_name(request, parent, f"/after/{place}/job")


class Doorkeeper:
    """Admits the requests of one node."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self.is_open = node.insecure or (is_loopback(host_of(node.listen)) and is_loopback(host_of(node.advertise)))
        self._vouching = Vouching(node)

    async def admit(self, request: web.Request) -> Origin:
        """Who asks, kept with the request; it may do what it asks for.  Raises UnauthorizedError, ForbiddenError."""
        resource = request.match_info.route.resource
        path = "" if resource is None else resource.canonical
        if path in FREE:
            return self._origin(request, EVERYBODY)
        if VOUCH in request.headers:
            who, origin = self._vouched(request)
        else:
            who = await self._caller(request)
            origin = self._origin(request, who)
        request[_PRINCIPAL] = who
        method = "GET" if request.method == "HEAD" else request.method
        if resource is not None and request.match_info.http_exception is None:
            await self._check(request, who, RULES.get((method, path), UNKNOWN))
        return origin

    def vouch(self, request: web.Request, body: bytes | None) -> str:
        """The value of VOUCH under which this node carries the request on to the leader, once.

        None for a body that is passed on as it comes: the word does not say what it holds.
        """
        who = principal(request)
        return self._vouching.write(request, body, who, self._origin(request, who))

    # ---- who

    async def _caller(self, request: web.Request) -> Principal:
        given = request.headers.getall("Authorization", [])
        if not given:
            if self.is_open:
                return EVERYBODY
            raise UnauthorizedError(
                "this node is reached from other machines, so each request needs a token: send the header "
                "Authorization: Bearer TOKEN (raftcron: RAFTCRON_TOKEN or --token-file); an operator on a node's "
                "machine makes the first one with `raftcron token create --bootstrap --data-dir DIR`"
            )
        scheme, _, text = given[0].partition(" ")
        if len(given) > 1 or scheme.lower() != _SCHEME or not text.strip():
            raise UnauthorizedError("Authorization has to be there once, as `Bearer TOKEN`")
        text = text.strip()
        who = known(self._node.machine.state.tokens, text)
        if who is None:
            who = await self._known_later(text)
        if who is None:
            raise UnauthorizedError(
                "this token is not known here: it was revoked, replaced, or mistyped; an admin makes another one with "
                "`raftcron token create`"
            )
        return who

    async def _known_later(self, text: str) -> Principal | None:
        """A token may be younger than what this node has applied."""
        try:
            await self._node.reads.at()
        except RaftcronError:
            return None
        return known(self._node.machine.state.tokens, text)

    def _vouched(self, request: web.Request) -> tuple[Principal, Origin]:
        said = self._vouching.read(request)
        request[_BODY] = said.body
        origin = Origin(said.principal, said.by, said.remote, request.method, _path(request))
        if said.made_at == 0:
            if not self.is_open:
                raise UnauthorizedError(
                    f"node {said.by} takes requests without a token, and {self._node.name} does not"
                )
            return EVERYBODY, origin
        token = self._node.machine.state.tokens.get(said.principal)
        if token is None or token.made_at != said.made_at:
            raise UnauthorizedError("this token was revoked or replaced meanwhile")
        return principal_of(token), origin

    def _origin(self, request: web.Request, who: Principal) -> Origin:
        return Origin(who.name, self._node.name, request.remote or "", request.method, _path(request))

    # ---- whether

    async def _check(self, request: web.Request, who: Principal, rule: Rule) -> None:
        if not who.has_role(rule.role):
            raise ForbiddenError(
                f"token {who.name!r} has the role {who.role}, and {request.method} {_path(request)} needs {rule.role}"
            )
        if not who.prefix or rule.scope in (ALL, SEES):
            return
        if rule.scope == WHOLE:
            raise ForbiddenError(
                f"token {who.name!r} is for what begins with {who.prefix!r}, and {request.method} {_path(request)} "
                "reaches beyond: use a token without a prefix"
            )
        if rule.scope == RUN:
            await self._check_run(request.match_info["id"], who)
            return
        name = request.match_info["name"]
        if not who.may_name(name):
            raise _beyond(who, repr(name[:PATH_SHOWN]))

    async def _check_run(self, run_id: str, who: Principal) -> None:
        """Runs beyond the prefix are not even known to be there."""
        if run_id not in self._node.machine.state.runs:
            await self._node.reads.at()  # it may be younger than what this node has applied
        run = self._node.machine.state.runs.get(run_id)
        if run is None or not who.may_name(run.job):
            raise NotFoundError(f"there is no run {run_id[:PATH_SHOWN]!r} of a job that begins with {who.prefix!r}")


def _beyond(who: Principal, what: str) -> ForbiddenError:
    return ForbiddenError(f"token {who.name!r} is for what begins with {who.prefix!r}, and {what} does not")


def _path(request: web.Request) -> str:
    """The path as it came, percent signs and all, in one line: the query may hold what is nobody's business."""
    return clean(request.rel_url.raw_path)


# ---- what one node tells another of a caller ------------------------------------------------------------------------


class _Word(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    by: str
    principal: str
    made_at: int  # of the token; 0: none was needed
    remote: str
    epoch: int
    nonce: bytes
    body: bytes  # SHA-256, empty where it comes in pieces


_encode_word = msgspec.msgpack.Encoder().encode
_decode_word = msgspec.msgpack.Decoder(_Word).decode


class Vouching:
    """Writes and reads the words of nodes about callers."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._key = hmac.digest(b"raftcron callers 1", node.cluster_secret, "sha256")
        self._epoch = 0
        self._order: deque[bytes] = deque()
        self._seen: set[bytes] = set()

    def write(self, request: web.Request, body: bytes | None, who: Principal, origin: Origin) -> str:
        epoch = self._node.machine.state.epoch
        nonce = self._node.entropy(NONCE_BYTES)
        hashed = b"" if body is None else sha256(body).digest()
        word = _Word(self._node.name, who.name, who.made_at, origin.remote, epoch, nonce, hashed)
        said = base64.urlsafe_b64encode(_encode_word(word)).decode()
        return f"{said}.{self._tag(said, request)}"

    def read(self, request: web.Request) -> _Word:
        """Raises ForbiddenError: no node of this cluster said so, or it was said before; UnavailableError: another
        epoch's."""
        headers = request.headers.getall(VOUCH)
        said, _, tag = headers[0].rpartition(".")
        is_ours = len(headers) == 1 and hmac.compare_digest(
            tag.encode("utf-8", "surrogatepass"), self._tag(said, request).encode()
        )
        if not is_ours:
            raise ForbiddenError(f"{VOUCH} is for nodes of this cluster, and no node of it has said this")
        try:
            word = _decode_word(base64.urlsafe_b64decode(said))
        except (msgspec.DecodeError, binascii.Error, ValueError):
            raise ForbiddenError(f"{VOUCH} cannot be read by this version") from None
        epoch = self._node.machine.state.epoch
        if word.epoch != epoch:
            raise UnavailableError(f"node {word.by} is in epoch {word.epoch}, and the log is in {epoch}; not written")
        self._once(word, epoch)
        return word

    def _tag(self, said: str, request: web.Request) -> str:
        parts = (part.encode("utf-8", "surrogatepass") for part in (said, request.method, request.raw_path))
        return hmac.digest(self._key, b"\n".join(parts), "sha256").hex()

    def _once(self, word: _Word, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order.clear()
            self._seen.clear()
        if word.nonce in self._seen:
            raise ForbiddenError("this request was forwarded before; it is not taken a second time")
        self._seen.add(word.nonce)
        self._order.append(word.nonce)
        if len(self._order) > NONCES_KEPT:
            self._seen.discard(self._order.popleft())


DOORKEEPER: Final = web.AppKey("doorkeeper", Doorkeeper)


def check_body(request: web.Request, body: bytes) -> None:
    """Raises ForbiddenError where another node has vouched for another body than the one that came."""
    vouched = request.get(_BODY)
    if vouched is not None and not hmac.compare_digest(vouched, sha256(body).digest()):
        raise ForbiddenError("the body is not the one that the forwarding node has vouched for")
