"""Of who may, and what was done: tokens, secrets, the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raftcron.api.openapi.answered import WHOLE
from raftcron.api.openapi.operations.parts import (
    KEY,
    LIMIT,
    LOCAL,
    MAKE,
    READ,
    READ_HEADERS,
    SEES_READ,
    WRITTEN,
    Answer,
    Operation,
    Parameter,
    delete_of,
    json_body,
    list_of,
    one,
    or_null,
    put_of,
)

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/v1/whoami"): Operation(
        id="whoami",
        summary="Who asks, and what that may do",
        tag="access",
        answers={200: one("Caller", "the caller")},
        problems=(*LOCAL, 422),
    ),
    ("GET", "/v1/tokens"): list_of("tokens, without what proves them", "listTokens", "TokenPage", tag="access"),
    ("POST", "/v1/tokens"): Operation(
        id="createToken",
        summary="Make a token",
        tag="access",
        headers=KEY,
        body=json_body("TokenBody", {"deploy": {"name": "deploy", "role": "operate", "prefix": "team-a."}}),
        answers={201: Answer("made; its text is shown this once", or_null("NewToken"), headers=WRITTEN)},
        problems=MAKE,
    ),
    ("DELETE", "/v1/tokens/{name}"): delete_of("a token", "revokeToken", "ci", tag="access", is_tagged=False),
    ("GET", "/v1/secrets"): list_of("the names of secrets", "listSecrets", "SecretPage", tag="access"),
    ("PUT", "/v1/secrets/{name}"): put_of(
        "a secret, which is never answered",
        "putSecret",
        "Secret",
        "smtp",
        json_body("SecretBody", {"password": {"value": "correct horse battery staple"}}),
        tag="access",
        is_tagged=False,
    ),
    ("DELETE", "/v1/secrets/{name}"): delete_of("a secret", "deleteSecret", "smtp", tag="access", is_tagged=False),
    ("GET", "/v1/audit"): Operation(
        id="listAudit",
        summary="Every write that took effect, newest first, hash-chained",
        tag="access",
        query=(*READ, LIMIT, Parameter("cursor", WHOLE, "`next_cursor` of the page before", example=1_000)),
        answers={200: one("Audit", "a page of it", READ_HEADERS)},
        problems=SEES_READ,
    ),
}
