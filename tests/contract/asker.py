"""Asks a node what its /openapi.json says, and what it does not, and judges each answer by the same document.

What is asked is schemathesis's: bodies, parameters and headers that fit the schemas, and such that do not.  Names are
half of the time those of records that are there.  Left out are operations that change the cluster itself, or never
end: they have tests of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation
from yarl import URL

from raftcron.api.query import INDEX_MAX

LEFT_OUT = ("/v1/events", "/v1/restore", "/v1/cluster/")
load_all_checks()
JUDGED = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)
REFUSED = CHECKS.get_by_names(["negative_data_rejection"])  # what does not fit is not taken
TIMEOUT_SECONDS = 30.0
CERTAIN = frozenset({503, 504})  # of the statuses from 500 on: they are documented, and no mistake of the node
THERE = {"/v1/jobs/": "backup-db", "/v1/calendars/": "holidays", "/v1/groups/": "database", "/v1/secrets/": "smtp"}
JOB = {"schedule": "*/5 * * * *", "executor": {"type": "noop"}, "history": {"runs": 50}}


@schemathesis.serializer("application/x-ndjson")
def lines(ctx: Any, value: Any) -> bytes:
    return str(value).encode("utf-8", "replace")


LIKELY: dict[str, Any] = {
    "schedule": ["*/5 * * * *", "@daily"],
    "schedules": ["* * 25 12 *"],
    "timezone": "Europe/Berlin",
    "executor": {"type": "noop"},
    "exclude": [],
    "group": None,
    "after": [],
    "alerts": [],
    "jitter": "1s",
    "start_deadline": None,
    "from": "2026-01-31T00:00:00Z",
    "to": "2026-01-31T01:00:00Z",
    "until": "2100-01-01T00:00:00Z",
}


class WrongAnswerError(AssertionError):
    """An answer that the document does not have; the message holds the request as a curl command."""


@dataclass
class Asker:
    """One caller of one node."""

    url: str
    token: str | None = None
    document: dict[str, Any] = field(default_factory=dict)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)  # (operation, status) -> answers

    def __post_init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self.headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        self.document = self.get("/openapi.json")
        schema = schemathesis.openapi.from_dict(self.document)
        schema.config.generation.update(with_security_parameters=False)
        schema.config.checks.negative_data_rejection.expected_statuses = ["4xx"]
        self.operations = {
            found.label: found
            for found in (result.ok() for result in schema.get_all_operations())
            if not found.path.startswith(LEFT_OUT)
        }

    def get(self, path: str) -> Any:
        answer = self._session.get(self.url + path, headers=self.headers, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        return answer.json()

    def close(self) -> None:
        self._session.close()

    def prepare(self) -> None:
        """Records for what is asked to be about."""
        for path, body in (
            ("jobs/backup-db", JOB),
            ("calendars/holidays", {"dates": ["2026-12-25"]}),
            ("groups/database", {"max_running": 2}),
            ("secrets/smtp", {"value": "x"}),
            ("alerts/default", {"alerts": [{"url": "http://127.0.0.1:9/"}]}),
        ):
            self._session.put(f"{self.url}/v1/{path}", json=body, headers=self.headers, timeout=TIMEOUT_SECONDS)
        self._session.post(f"{self.url}/v1/jobs/backup-db/runs", headers=self.headers, timeout=TIMEOUT_SECONDS)

    def ask(self, label: str, examples: int, seed: int = 0) -> None:
        """So many requests of one operation.  WrongAnswerError."""
        operation = self.operations[label]
        cases = operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE)
        self.prepare()
        names = st.sampled_from((*self._names(operation.path), None))

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=not seed,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        @given(case=cases, name=names, is_likely=st.booleans())
        def each(case: Any, name: str | None, is_likely: bool) -> None:
            if name is not None and is_right(case, ParameterLocation.PATH):
                for parameter in case.path_parameters or ():
                    case.path_parameters[parameter] = name
            if is_likely and case.meta.generation.mode.is_positive:
                for header in ("If-Match", "If-None-Match"):
                    (case.headers or {}).pop(header, None)
                case.body = likely(case.body)
            shorten(case.query or {})
            self._judge(label, case)

        (hypothesis.seed(seed)(each) if seed else each)()

    def _names(self, path: str) -> tuple[str, ...]:
        """Of what is there, as far as the caller may see it."""
        if not path.startswith("/v1/runs/"):
            return tuple(name for start, name in THERE.items() if path.startswith(start))
        return tuple(item["id"] for item in self.get("/v1/runs?limit=3")["items"])

    def _judge(self, label: str, case: Any) -> None:
        answer = case.call(base_url=self.url, session=self._session, headers=self.headers, timeout=TIMEOUT_SECONDS)
        self.statuses[label, answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code not in CERTAIN:
            raise WrongAnswerError(f"{answer.status_code}: {answer.text[:500]}\n{case.as_curl_command()}")
        try:
            is_wrong = is_sent_wrong(case, answer.request)
            case.validate_response(answer, checks=[*JUDGED, *(REFUSED if is_wrong else ())])
        except FailureGroup as error:
            raise WrongAnswerError(f"{label}: {error}") from None


def is_sent_wrong(case: Any, sent: requests.PreparedRequest) -> bool:
    """Whether what does not fit has gone out: an empty array is not in a URL, and null may stand for no body."""
    wrong = {location for location, part in case.meta.components.items() if not part.mode.is_positive}
    if not sent.body or case.body is None:
        wrong.discard(ParameterLocation.BODY)
    if not (case.query or {}).keys() <= set(URL(str(sent.url)).query):
        wrong.discard(ParameterLocation.QUERY)
    return bool(wrong)


def is_right(case: Any, location: ParameterLocation) -> bool:
    """Whether that part of a request fits its schema."""
    part = case.meta.components.get(location)
    return part is None or part.mode.is_positive


def likely(body: Any) -> Any:
    """The same body with texts that mean something, where a schema alone cannot say which do."""
    if isinstance(body, list):
        return [likely(one) for one in body]
    if isinstance(body, dict):
        return {key: LIKELY.get(key, likely(value)) for key, value in body.items()}
    return body


def shorten(query: dict[str, Any]) -> None:
    """Without what would only wait: for an index to come, or for a run to end."""
    index = str(query.get("min_index", ""))
    if index.isascii() and index.isdigit() and int(index) <= INDEX_MAX:
        query["min_index"] = "1"
    if query.get("follow") in ("1", "true"):
        query["follow"] = "0"


def summary(statuses: Counter[tuple[str, int]]) -> Iterator[str]:
    """`status: answers`, one a line."""
    totals: Counter[int] = Counter()
    for (_, status), count in statuses.items():
        totals[status] += count
    for status, count in sorted(totals.items()):
        yield f"{status}: {count}"
