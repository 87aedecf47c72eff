"""CronJobs of Kubernetes (batch/v1), alone, in lists, or in a file of many documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from raftcron.cli.importers import Imported, name_of, schedule_fault

OVERLAPS: Final = {"Allow": "allow", "Forbid": "skip", "Replace": "replace"}
LABEL_MAX: Final = 128


def read(documents: list[Any]) -> Imported:
    """The CronJobs among these documents; others are passed over with a word."""
    jobs: list[dict[str, Any]] = []
    warnings: list[str] = []
    taken: set[str] = set()
    for one in _each(documents):
        if one.get("kind") != "CronJob":
            warnings.append(f"{one.get('kind', 'a document')} is no CronJob: left out")
            continue
        job = _job(one, taken, warnings)
        if job is not None:
            jobs.append(job)
    return Imported(jobs, warnings)


def _each(documents: list[Any]) -> Iterator[Mapping[str, Any]]:
    for document in documents:
        if isinstance(document, dict) and isinstance(document.get("items"), list):
            yield from (item for item in document["items"] if isinstance(item, dict))
        elif isinstance(document, dict):
            yield document


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _job(one: Mapping[str, Any], taken: set[str], warnings: list[str]) -> dict[str, Any] | None:
    meta, spec = _map(one.get("metadata")), _map(one.get("spec"))
    name, namespace = str(meta.get("name", "job")), meta.get("namespace")
    schedule, zone = str(spec.get("schedule", "")), str(spec.get("timeZone") or "UTC")
    if schedule.startswith(("TZ=", "CRON_TZ=")):
        zone, _, schedule = schedule.partition("=")[2].partition(" ")
    if spec.get("timeZone") is None and zone == "UTC":
        warnings.append(f"{name}: names no timeZone: Kubernetes takes that of its controller, this job UTC")
    fault = schedule_fault(schedule, zone)
    if fault is not None:
        warnings.append(f"{name}: left out: {fault}")
        return None
    template = _map(_map(spec.get("jobTemplate")).get("spec"))
    pod = _map(_map(template.get("template")).get("spec"))
    executor = _executor(name, pod, warnings)
    if executor is None:
        return None
    job: dict[str, Any] = {
        "name": name_of(f"{namespace}.{name}" if namespace else name, taken),
        "schedule": schedule,
        "timezone": zone,
        "executor": executor,
        "overlap": {"policy": OVERLAPS.get(str(spec.get("concurrencyPolicy", "Allow")), "allow")},
    }
    if spec.get("suspend") is True:
        job["paused"] = True
    if isinstance(spec.get("startingDeadlineSeconds"), int):
        job["start_deadline"] = f"{spec['startingDeadlineSeconds']}s"
    seconds = template.get("activeDeadlineSeconds", pod.get("activeDeadlineSeconds"))
    if isinstance(seconds, int) and seconds > 0:
        job["timeout"] = f"{seconds}s"
    else:
        warnings.append(f"{name}: has no activeDeadlineSeconds: this job ends after the default timeout, 1h")
    tries = template.get("backoffLimit", 6)
    if isinstance(tries, int) and pod.get("restartPolicy", "Never") in ("Never", "OnFailure"):
        job["retry"] = {"max_attempts": tries + 1, "backoff": "10s", "max_backoff": "6m"}
    labels = {str(key)[:LABEL_MAX]: str(value) for key, value in _map(meta.get("labels")).items()}
    if labels:
        job["labels"] = labels
    warnings.extend(
        f"{name}: {field} {template[field]} is left out: `placement.shards` splits a run in parts"
        for field in ("parallelism", "completions")
        if template.get(field, 1) not in (None, 1)
    )
    kept = spec.get("successfulJobsHistoryLimit")
    if isinstance(kept, int) and kept > 20:
        job["history"] = {"runs": kept}
    return job


def _executor(name: str, pod: Mapping[str, Any], warnings: list[str]) -> dict[str, Any] | None:
    found = pod.get("containers")
    containers = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    if not containers:
        warnings.append(f"{name}: has no container: left out")
        return None
    if len(containers) > 1 or pod.get("initContainers"):
        warnings.append(f"{name}: only the first container is taken")
    container = containers[0]
    command = [str(word) for word in (container.get("command") or [])]
    command += [str(word) for word in (container.get("args") or [])]
    if not command:
        warnings.append(
            f"{name}: names no command: what the image {container.get('image')} runs by itself is not known: left out"
        )
        return None
    warnings.append(
        f"{name}: the command runs on the node itself, not in the image {container.get('image')}: "
        "what it needs has to be there"
    )
    executor: dict[str, Any] = {"type": "shell", "command": command}
    environment: dict[str, str] = {}
    for each in container.get("env") or []:
        if isinstance(each, dict) and isinstance(each.get("value"), str | int | float):
            environment[str(each.get("name"))] = str(each["value"])
        elif isinstance(each, dict):
            warnings.append(
                f"{name}: the value of {each.get('name')} comes from elsewhere (valueFrom): left out; "
                "a secret is written as ${secret:name}"
            )
    if container.get("envFrom"):
        warnings.append(f"{name}: envFrom is left out")
    if environment:
        executor["env"] = environment
    if isinstance(container.get("workingDir"), str):
        executor["cwd"] = container["workingDir"]
    warnings.extend(
        f"{name}: {field} of the container is left out"
        for field in ("volumeMounts", "resources", "securityContext")
        if container.get(field)
    )
    return executor
