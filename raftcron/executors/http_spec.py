"""What an http job's executor object may hold, and which statuses mean success.  Pure; sending is in http.py."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from yarl import URL

from raftcron.core.vault import REFERENCE
from raftcron.errors import Fault
from raftcron.executors.addresses import BY_DEFAULT, AddressRules, is_address
from raftcron.executors.signature import key_of
from raftcron.executors.validation import Findings, has_control, json_type, pointer

FIELDS = {"type", "method", "url", "headers", "body", "expect_status", "expect_body", "secret", "async"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DEFAULT_METHOD = "POST"
DEFAULT_STATUS = "200-299"
URL_BYTES = 8 << 10
BODY_BYTES = 1 << 20
HEADERS = 100
HEADER_BYTES = 8 << 10
ANSWER_BYTES = 64 << 10  # of an answer count, and are kept
READ_BYTES = 1 << 20  # so far an answer that is a failure is read in search of its end, which proves it

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_STATUS = re.compile(r"\s*([1-9][0-9]{2})\s*(?:-\s*([1-9][0-9]{2})\s*)?")
_USUAL_URL = re.compile(r"(?P<origin>https?://[A-Za-z0-9.-]{1,255}(?::[0-9]{1,5})?)(?:[/?][A-Za-z0-9/._~?&=+,-]*)?")
_NUMBERS = re.compile(r"[0-9.]+")
_OWN_HEADERS = {"idempotency-key", "traceparent", "webhook-id", "webhook-timestamp", "webhook-signature"}
_FRAMING_HEADERS = {
    "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
    "upgrade",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StatusSet:
    """Which statuses mean success; `text` is as it was written."""

    text: str
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str | int | None) -> Self:
        """`"200-299"`, `"200,204"`, `"200, 300-302"`, 204; None is the default.  ValueError says what is wrong."""
        written = DEFAULT_STATUS if text is None else str(text)
        spans = []
        for part in written.split(","):
            match = _STATUS.fullmatch(part)
            if match is None:
                raise ValueError(f"{part.strip()!r} is not a status; write 200-299 or 200,204")
            first = int(match[1])
            last = int(match[2] or first)
            if not 100 <= first <= last <= 599:
                raise ValueError(f"{part.strip()!r} is not a rising span between 100 and 599")
            spans.append((first, last))
        return cls(written, tuple(spans))

    def __contains__(self, code: int) -> bool:
        return any(first <= code <= last for first, last in self.spans)

    def __str__(self) -> str:
        return self.text


def validate(spec: Mapping[str, Any], rules: AddressRules = BY_DEFAULT) -> list[Fault]:
    """Every fault of an http executor object; pointers are relative to it."""
    findings = Findings()
    findings.unknown_fields(spec, FIELDS)
    _check_url(findings, spec.get("url"), rules)
    method = spec.get("method")
    if method is not None and method not in METHODS:
        findings.invalid("/method", f"must be one of {', '.join(METHODS)}")
    if spec.get("headers") is not None:
        _check_headers(findings, spec["headers"])
    if spec.get("body") is not None:
        findings.text("/body", spec["body"], bytes_max=BODY_BYTES, nul=True, secret=True)
    _check_status(findings, spec.get("expect_status"))
    if spec.get("expect_body") is not None:
        _check_expected_body(findings, spec["expect_body"], method)
    if spec.get("secret") is not None:
        _check_secret(findings, spec["secret"])
    if spec.get("async") is not None and not isinstance(spec["async"], bool):
        findings.invalid("/async", f"must be true or false, not {json_type(spec['async'])}")
    return findings.items


def _check_expected_body(findings: Findings, text: Any, method: Any) -> None:
    if method == "HEAD":
        findings.invalid("/expect_body", "cannot be met: the answer to HEAD has no body")
    elif findings.text("/expect_body", text, bytes_max=ANSWER_BYTES) and not text:
        findings.invalid("/expect_body", "is empty, which every answer holds: leave it out")


def _check_secret(findings: Findings, secret: Any) -> None:
    if not isinstance(secret, str):
        findings.invalid("/secret", f"must be a string, not {json_type(secret)}")
        return
    try:
        key_of(secret)
    except ValueError as error:
        findings.invalid("/secret", str(error))


def _check_url(findings: Findings, url: Any, rules: AddressRules) -> None:
    usual = _USUAL_URL.fullmatch(url) if isinstance(url, str) and len(url) <= URL_BYTES else None
    if usual is None or not _is_sound(usual["origin"], rules):
        _walk_url(findings, url, rules)


@functools.lru_cache(maxsize=4_096)
def _is_sound(origin: str, rules: AddressRules) -> bool:
    """Whether nothing is wrong with an origin; what may stand behind it in a usual URL is never at fault."""
    findings = Findings()
    _walk_url(findings, origin, rules)
    return not findings.items


def _walk_url(findings: Findings, url: Any, rules: AddressRules) -> None:
    if url is None:
        findings.invalid("/url", "is missing")
        return
    if not findings.text("/url", url, bytes_max=URL_BYTES, secret=True):
        return
    url = REFERENCE.sub("x", url)  # what stands there later is judged with the rest when it does
    if has_control(url) or " " in url:
        findings.invalid("/url", "must not hold spaces or control characters; write them as %20 and the like")
        return
    try:
        parts = urlsplit(url)
        host = URL(url).host  # as the client will read it; checks the port, too
        _ = parts.port
    except ValueError as error:
        findings.invalid("/url", f"is not a URL: {error}")
        return
    if parts.scheme not in {"http", "https"}:
        findings.invalid("/url", "must begin with http:// or https://")
    elif not host:
        findings.invalid("/url", "has no host")
    elif _NUMBERS.fullmatch(host) and not is_address(host):
        findings.invalid("/url", f"{host!r} is neither a name nor an address; write an address as 127.0.0.1")
    elif parts.username is not None or parts.password is not None:
        findings.invalid("/url", "must not hold a user or password: everybody who may read the job would see them")
    elif (reason := rules.refusal(host)) is not None:
        findings.invalid("/url", f"the host is {reason}; such addresses are refused")


def _check_headers(findings: Findings, headers: Any) -> None:
    if not isinstance(headers, Mapping):
        findings.invalid("/headers", f"must be an object of strings, not {json_type(headers)}")
        return
    if len(headers) > HEADERS:
        findings.invalid("/headers", f"has {len(headers)} headers; at most {HEADERS} are possible")
        return
    seen: dict[str, str] = {}
    for name, value in headers.items():
        where, lower = pointer("headers", name), name.lower()
        if not _TOKEN.fullmatch(name):
            findings.invalid(where, f"{name!r} is not a header name")
        elif lower in seen:
            findings.invalid(where, f"{name} is there twice, as {seen[lower]}, too")
        elif lower in _OWN_HEADERS or lower.startswith("raftcron-"):
            findings.invalid(where, f"{name} is set by raftcron itself")
        elif lower in _FRAMING_HEADERS:
            findings.invalid(where, f"{name} belongs to the connection, not to the job")
        seen[lower] = name
        if not findings.text(where, value, bytes_max=HEADER_BYTES, secret=True):
            continue
        if has_control(value.replace("\t", " ")):
            findings.invalid(where, "must not hold line ends or control characters")


def _check_status(findings: Findings, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, str | int):
        findings.invalid("/expect_status", f"must be a string such as {DEFAULT_STATUS!r}, not {json_type(value)}")
    elif len(str(value)) > 200:
        findings.invalid("/expect_status", "is longer than 200 characters")
    else:
        try:
            StatusSet.parse(value)
        except ValueError as error:
            findings.invalid("/expect_status", str(error))
