"""Jobs of Dkron, as its `GET /v1/jobs` shows them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from raftcron.cli.importers import Imported, name_of, schedule_fault


def read(documents: list[Any]) -> Imported:
    """The jobs in these documents: one each, or lists of them."""
    jobs: list[dict[str, Any]] = []
    warnings: list[str] = []
    taken: set[str] = set()
    for document in documents:
        for one in document if isinstance(document, list) else [document]:
            if not isinstance(one, dict) or not one.get("name"):
                warnings.append("something is no job of Dkron: left out")
                continue
            job = _job(one, taken, warnings)
            if job is not None:
                jobs.append(job)
    return Imported(jobs, warnings)


def _job(one: Mapping[str, Any], taken: set[str], warnings: list[str]) -> dict[str, Any] | None:
    name = str(one["name"])
    zone = str(one.get("timezone") or "UTC")
    schedule = _schedule(name, str(one.get("schedule") or ""), zone, warnings)
    parent = one.get("parent_job")
    if schedule is None and not parent:
        return None
    executor = _executor(name, one, warnings)
    if executor is None:
        return None
    body: dict[str, Any] = {
        "name": name_of(name, taken),
        "schedule": "@manual" if schedule is None else schedule,
        "timezone": zone,
        "executor": executor,
        "overlap": {"policy": "skip" if one.get("concurrency") == "forbid" else "allow"},
    }
    if parent:
        body["after"] = [{"job": str(parent), "on": "success"}]
    timeout = _map(one.get("executor_config")).get("timeout")
    if isinstance(timeout, str) and _duration(timeout):
        body["timeout"] = _duration(timeout)
    if isinstance(one.get("retries"), int) and one["retries"] > 0:
        body["retry"] = {"max_attempts": one["retries"] + 1}
    if one.get("disabled"):
        body["paused"] = True
    if one.get("owner"):
        body["labels"] = {"owner": str(one["owner"])[:256]}
    labels = {str(key)[:128]: str(value)[:256] for key, value in _map(one.get("metadata")).items()}
    if labels:
        body["labels"] = body.get("labels", {}) | labels
    if one.get("displayname"):
        body["description"] = str(one["displayname"])
    for field, to in (("starts_at", "start_at"), ("expires_at", "end_at")):
        if one.get(field):
            body[to] = one[field]
    tags = _map(one.get("tags"))
    if tags:
        body["placement"] = {"on": "any", "tags": {str(key): str(value).split(":")[0] for key, value in tags.items()}}
        if any(":" in str(value) for value in tags.values()):
            warnings.append(
                f"{name}: a count behind a tag is left out: one node runs it; `placement.on: all` is a broadcast"
            )
    else:
        warnings.append(
            f"{name}: without tags Dkron runs a job on every node, this one runs on the leader: `placement.on`"
        )
    if one.get("processors"):
        warnings.append(f"{name}: processors are left out: output is kept with each run")
    if one.get("ephemeral"):
        warnings.append(f"{name}: ephemeral is left out: `max_runs: 1` ends a job after its first run")
        body["max_runs"] = 1
    return body


def _schedule(name: str, text: str, zone: str, warnings: list[str]) -> str | None:
    """Dkron has six fields, seconds first, as this has; `@every` and `@at` too."""
    if text.startswith(("TZ=", "CRON_TZ=")):
        warnings.append(f"{name}: the zone in its schedule is left out: set `timezone`")
        text = text.partition(" ")[2]
    if not text or text in ("@manually", "@manual"):
        return "@manual"
    if text == "@minutely":
        text = "* * * * *"
    if len(text.split()) == 5 and not text.startswith("@"):
        warnings.append(f"{name}: five fields are minutes first here; Dkron wants six, seconds first: look at it")
    fault = schedule_fault(text, zone)
    if fault is not None:
        warnings.append(f"{name}: left out: {fault}")
        return None
    return text


def _executor(name: str, one: Mapping[str, Any], warnings: list[str]) -> dict[str, Any] | None:
    kind, config = one.get("executor"), _map(one.get("executor_config"))
    if kind == "shell":
        command = str(config.get("command", ""))
        is_shell = str(config.get("shell", "false")).lower() == "true"
        found: dict[str, Any] = {"type": "shell", "command": command if is_shell else shlex.split(command)}
        if config.get("cwd"):
            found["cwd"] = str(config["cwd"])
        if config.get("env"):
            found["env"] = dict(pair.split("=", 1) for pair in str(config["env"]).split(",") if "=" in pair)
        if config.get("payload"):
            warnings.append(f"{name}: payload is left out: put it into `stdin`")
        return found
    if kind == "http":
        found = {"type": "http", "method": str(config.get("method", "GET")).upper(), "url": str(config.get("url", ""))}
        if config.get("headers"):
            found["headers"] = _headers(name, str(config["headers"]), warnings)
        if config.get("body"):
            found["body"] = str(config["body"])
        code = str(config.get("expectCode") or "")
        if re.fullmatch(r"[0-9]{3}(,\s*[0-9]{3})*", code):
            found["expect_status"] = code.replace(" ", "")
        if config.get("expectBody"):
            warnings.append(f"{name}: expectBody is a regular expression of Go: check `expect_body`")
            found["expect_body"] = str(config["expectBody"])
        warnings.extend(
            f"{name}: {field} is left out: `--receiver-ca` of the nodes says whom to trust"
            for field in ("tlsCertificateFile", "tlsNoVerifyPeer", "tlsRootCAsFile")
            if config.get(field)
        )
        return found
    warnings.append(f"{name}: the executor {kind!r} is not known here: left out")
    return None


def _headers(name: str, text: str, warnings: list[str]) -> dict[str, str]:
    try:
        lines = json.loads(text)
        return {line.split(":", 1)[0].strip(): line.split(":", 1)[1].strip() for line in lines}
    except (ValueError, IndexError, TypeError, AttributeError):
        warnings.append(f"{name}: its headers cannot be read: left out")
        return {}


def _duration(text: str) -> str | None:
    """Go's durations, as far as they are ours: a fraction is refused."""
    return text if re.fullmatch(r"([0-9]+(h|m|s|ms))+", text) else None


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
