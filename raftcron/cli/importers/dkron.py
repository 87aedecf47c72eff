"""Jobs of Dkron, as its `GET /v1/jobs` shows them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from raftcron.cli.importers import (
    NO_LIMIT,
    Imported,
    differs_from_go,
    labels_of,
    mapping,
    meets_dst,
    name_of,
    schedule_fault,
)

HTTP_SECONDS: Final = "30"  # the timeout of its http executor, where it is not said
MANUAL: Final = ("", "@manually", "@manual")
DROPPED: Final = {
    "owner_email": "`alerts` of a job name who is told of failures",
    "processors": "output is kept with each run (`raftcron run logs`)",
    "notifications": "`alerts` of a job name who is told",
}
TLS_FIELDS: Final = ("tlsCertificateFile", "tlsCertificateKeyFile", "tlsNoVerifyPeer", "tlsRootCAsFile")
_PARTS: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|us|µs|ns)")
_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1, "us": 0.001, "µs": 0.001, "ns": 0.000_001}
_PLAIN: Final = re.compile(r"[^\\.+*?()|\[\]{}^$]+")


def read(documents: list[Any], now_ms: int = 0) -> Imported:
    """The jobs in these documents: one each, or lists of them."""
    warnings: list[str] = []
    found: list[Mapping[str, Any]] = []
    for document in documents:
        for one in document if isinstance(document, list) else [document]:
            if isinstance(one, dict) and one.get("name"):
                found.append(one)
            else:
                warnings.append("something is no job of Dkron: left out")
    taken: set[str] = set()
    names: dict[str, str] = {}
    for one in found:
        names[str(one["name"])] = name_of(str(one["name"]), taken)
    jobs = [job for one in found if (job := _Job(one, names, warnings, now_ms).job()) is not None]
    return Imported(_parents_first(jobs), warnings)


def _parents_first(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In an order in which each can be written; what goes round stays behind, to be refused by name."""
    names = {job["name"] for job in jobs}
    ordered: list[dict[str, Any]] = []
    done: set[str] = set()
    left = jobs
    while left:
        ready = [
            job for job in left if all(one["job"] in done or one["job"] not in names for one in job.get("after", ()))
        ]
        if not ready:
            return ordered + left
        ordered += ready
        done |= {job["name"] for job in ready}
        left = [job for job in left if job["name"] not in done]
    return ordered


class _Job:
    """One of them, on its way to a definition."""

    def __init__(self, one: Mapping[str, Any], names: Mapping[str, str], warnings: list[str], now_ms: int) -> None:
        self._one = one
        self._config = mapping(one.get("executor_config"))
        self._names = names
        self._name = str(one["name"])
        self._warnings = warnings
        self._now_ms = now_ms

    def _warn(self, text: str) -> None:
        self._warnings.append(f"{self._name}: {text}")

    def job(self) -> dict[str, Any] | None:
        """The definition; None where it has to be left out."""
        one = self._one
        zone = str(one.get("timezone") or "UTC")
        schedule, zone = self._schedule(str(one.get("schedule") or "").strip(), zone)
        executor = None if schedule is None else self._executor()
        if executor is None:
            return None
        body: dict[str, Any] = {
            "name": self._names[self._name],
            "schedule": schedule,
            "timezone": zone,
            "executor": executor,
            "overlap": {"policy": "skip" if one.get("concurrency") == "forbid" else "allow"},
            "timeout": self._timeout(),
            "placement": self._placement(),
        }
        if schedule is not None and meets_dst(schedule, zone, self._now_ms):
            body["dst"] = {"gap": "skip", "fold": "both"}
            self._warn(
                "meets a change of the clocks: Dkron leaves out a time that is jumped over and runs one that comes "
                "twice both times; so does this job (`dst`)"
            )
        if parent := one.get("parent_job"):
            body["after"] = [{"job": self._names.get(str(parent), str(parent)), "on": "success"}]
        retries = one.get("retries")
        if isinstance(retries, int) and not isinstance(retries, bool) and retries > 0:
            body["retry"] = {"max_attempts": retries + 1}
        if one.get("disabled"):
            body["paused"] = True
        labels = labels_of(({"owner": one["owner"]} if one.get("owner") else {}) | mapping(one.get("metadata")))
        if labels:
            body["labels"] = labels
        if one.get("displayname"):
            body["description"] = str(one["displayname"])
        for field, to in (("starts_at", "start_at"), ("expires_at", "end_at")):
            if one.get(field):
                body[to] = one[field]
        if one.get("ephemeral"):
            body["max_runs"] = 1
            self._warn(
                "ephemeral: Dkron deletes it after a success; here `max_runs: 1` ends it, and it stays to be seen"
            )
        for field, instead in DROPPED.items():
            if one.get(field):
                self._warn(f"{field} is left out: {instead}")
        return body

    def _schedule(self, text: str, zone: str) -> tuple[str | None, str]:
        """Dkron has six fields, seconds first, as this has; `@every` and `@at` too."""
        if text.startswith(("TZ=", "CRON_TZ=")):
            zone, _, text = text.partition("=")[2].partition(" ")
            text = text.strip()
        if self._one.get("parent_job"):
            if text not in MANUAL:
                self._warn(
                    f"has a parent and a schedule, {text[:80]!r}: Dkron starts it after its parent alone, as here"
                )
            return "@manual", zone
        if text in MANUAL:
            return "@manual", zone
        if text == "@minutely":
            text = "* * * * *"
        if len(text.split()) == 5 and not text.startswith("@"):
            self._warn("five fields are minutes first here; Dkron wants six, seconds first: look at it")
        if text.startswith("@every"):
            self._warn("@every counts from the job's creation here, in Dkron from the start of its leader")
        if (difference := differs_from_go(text)) is not None:
            self._warn(difference)
        fault = schedule_fault(text, zone)
        if fault is not None:
            self._warn(f"left out: {fault}")
            return None, zone
        return text, zone

    def _placement(self) -> dict[str, Any]:
        tags = {str(key): str(value) for key, value in mapping(self._one.get("tags")).items()}
        counts = [value.partition(":")[2] for value in tags.values() if ":" in value]
        wanted = {key: value.split(":")[0] for key, value in tags.items()}
        if not tags:
            self._warn("has no tags, so Dkron runs it on every node, and so does this (placement.on all); `any` is one")
            return {"on": "all"}
        told = ", ".join(f"--tag {key}={value}" for key, value in wanted.items())
        self._warn(f"its tags are `placement.tags`: the nodes that they mean have to be started with {told}")
        if not counts:
            self._warn("has tags without a count, so every node that has them runs it (placement.on all)")
            return {"on": "all", "tags": wanted}
        if counts != ["1"]:
            self._warn(
                f"a count behind a tag ({', '.join(counts)}) is left out: one node runs it; `on: all` is every one"
            )
        return {"on": "any", "tags": wanted}

    def _timeout(self) -> str:
        is_http = self._one.get("executor") == "http"
        text = str(self._config.get("timeout") or (HTTP_SECONDS if is_http else ""))
        seconds = text + "s" if is_http and text.isascii() and text.isdigit() else text
        found = _duration(seconds)
        if found is None:
            if text:
                self._warn(f"its timeout, {text[:40]!r}, cannot be read: left out")
            else:
                self._warn(f"has no timeout: this job ends after {NO_LIMIT}")
            return NO_LIMIT
        return found

    # ---- what runs

    def _executor(self) -> dict[str, Any] | None:
        kind = self._one.get("executor")
        if kind == "shell":
            return self._shell()
        if kind == "http":
            return self._http()
        told = "is not known here" if kind else "is not said"
        self._warn(f"its executor {str(kind)[:40]!r} {told}: left out; a command or a webhook may do the same")
        return None

    def _shell(self) -> dict[str, Any] | None:
        config, command = self._config, str(self._config.get("command") or "")
        is_shell = str(config.get("shell", "false")).lower() == "true"
        try:
            words = shlex.split(command)
        except ValueError as error:
            if not is_shell:
                self._warn(f"left out: its command cannot be split into words: {error}: {command[:80]!r}")
                return None
            words = [command]
        if not words:
            self._warn("left out: it has no command")
            return None
        found: dict[str, Any] = {"type": "shell", "command": command if is_shell else words}
        if not is_shell and re.search(r"&&|\|\||[|;<>]|\$\w", command):
            self._warn("its command has signs of a shell, but `shell` is not true: they are plain words, as in Dkron")
        if config.get("cwd"):
            found["cwd"] = str(config["cwd"])
        if config.get("env"):
            found["env"] = dict(pair.split("=", 1) for pair in str(config["env"]).split(",") if "=" in pair)
            self._warn(
                "its command gets the variables named in `env` and few others; in Dkron it has those of the agent"
            )
        memory = str(config.get("mem_limit_kb") or "")
        if memory.isascii() and memory.isdigit():
            found["memory_limit"] = f"{memory}KiB"
        if config.get("payload"):
            self._warn("payload is left out: put it into `stdin`")
        if config.get("allowed_exitcodes"):
            self._warn(
                f"allowed_exitcodes {str(config['allowed_exitcodes'])[:80]!r} is left out: only 0 is a success here; "
                "let the command end with 0"
            )
        self._warn("its command runs on a node of this cluster, which needs --allow-shell")
        return found

    def _http(self) -> dict[str, Any]:
        config = self._config
        found: dict[str, Any] = {
            "type": "http",
            "method": str(config.get("method") or "GET").upper(),
            "url": str(config.get("url", "")),
        }
        if config.get("headers"):
            found["headers"] = self._headers(str(config["headers"]))
        if config.get("body"):
            found["body"] = str(config["body"])
        code = str(config.get("expectCode") or "")
        if re.fullmatch(r"[0-9]{3}(,\s*[0-9]{3})*,?", code):
            found["expect_status"] = code.replace(" ", "").rstrip(",")
        elif code:
            self._warn(f"expectCode {code[:80]!r} cannot be read: 200-299 is a success here")
        else:
            self._warn("has no expectCode, so any answer was a success; here 200-299 is (`expect_status`)")
        text = str(config.get("expectBody") or "")
        if _PLAIN.fullmatch(text):
            found["expect_body"] = text
        elif text:
            self._warn(f"expectBody {text[:80]!r} is a regular expression: left out; `expect_body` is plain text")
        self._warn("a redirect is followed by Dkron, and is a failure here")
        for field in TLS_FIELDS:
            if config.get(field):
                self._warn(f"{field} is left out: `--receiver-ca` of the nodes says whom to trust")
        return found

    def _headers(self, text: str) -> dict[str, str]:
        try:
            lines = json.loads(text)
            return {line.split(":", 1)[0].strip(): line.split(":", 1)[1].strip() for line in lines}
        except (ValueError, IndexError, TypeError, AttributeError):
            self._warn("its headers cannot be read: left out")
            return {}


def _duration(text: str) -> str | None:
    """A duration of Go as one of ours, in whole milliseconds; None if it is none, or is nothing."""
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    milliseconds = round(sum(float(number) * _MS[unit] for number, unit in parts))
    if milliseconds <= 0:
        return None
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"
