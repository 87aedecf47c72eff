"""CronJobs of Kubernetes (batch/v1), alone, in lists, or in a file of many documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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

OVERLAPS: Final = {"Allow": "allow", "Forbid": "skip", "Replace": "replace"}
GRACE_SECONDS: Final = 30  # terminationGracePeriodSeconds, where it is not said
TRIES: Final = 6  # backoffLimit, where it is not said
_VARIABLE: Final = re.compile(r"\$(\$)?\(([A-Za-z_][A-Za-z0-9_.-]*)\)")

# What is not carried over, and what there is instead; of the job's template, of the pod, and of its container.
OF_SPEC: Final = {
    "ttlSecondsAfterFinished": "runs are kept by number, `history.runs`",
    "podFailurePolicy": "`retry.on` says which ends are tried again",
    "backoffLimitPerIndex": "`retry.max_attempts` counts for each part",
    "successPolicy": "a run succeeds when all of its parts have",
    "suspend": "`paused` is of the whole job",
}
OF_POD: Final = {
    "initContainers": "what they do before the command is not done here",
    "serviceAccountName": "a command has the rights of its user on the node, `executor.user`",
    "serviceAccount": "a command has the rights of its user on the node, `executor.user`",
    "affinity": "`placement.tags` choose nodes",
    "tolerations": "`placement.tags` choose nodes",
    "topologySpreadConstraints": "`placement.on: least_loaded` spreads runs",
    "priorityClassName": "`placement.priority` says who is first",
    "securityContext": "`executor.user` says as whom it runs",
    "volumes": "the files have to be on the nodes",
    "hostNetwork": "a command has the node's network",
    "dnsPolicy": "a command has the node's names",
    "dnsConfig": "a command has the node's names",
    "hostAliases": "a command has the node's names",
    "runtimeClassName": "a command is a process of the node",
}
OF_CONTAINER: Final = {
    "envFrom": "name each variable in `executor.env`",
    "volumeMounts": "the files have to be on the nodes",
    "resources": "`executor.memory_limit` bounds its memory",
    "securityContext": "`executor.user` says as whom it runs",
    "livenessProbe": "`timeout` ends what hangs",
    "readinessProbe": "there is nothing like it",
    "startupProbe": "there is nothing like it",
    "lifecycle": "before it is killed it gets SIGTERM, and `kill_after` of time",
}


def read(documents: list[Any], now_ms: int = 0) -> Imported:
    """The CronJobs among these documents; others are passed over with a word."""
    jobs: list[dict[str, Any]] = []
    warnings: list[str] = []
    taken: set[str] = set()
    for one in _each(documents):
        if not isinstance(one, Mapping) or one.get("kind") != "CronJob":
            kind = str(one.get("kind") or "a document") if isinstance(one, Mapping) else "a document"
            warnings.append(f"{kind[:80]} is no CronJob: left out")
            continue
        job = _CronJob(one, warnings, now_ms).job(taken)
        if job is not None:
            jobs.append(job)
    if jobs:
        warnings.append("a run may be on any node (placement.on any), which needs --allow-shell")
    return Imported(jobs, warnings)


def _each(documents: list[Any]) -> Iterator[Any]:
    """Items of a list know their kind by the list's, if not by themselves."""
    for document in documents:
        if isinstance(document, dict) and isinstance(document.get("items"), list):
            kind = str(document.get("kind", "")).removesuffix("List")
            yield from ({"kind": kind} | item if isinstance(item, dict) else item for item in document["items"])
        elif isinstance(document, list):
            yield from document
        else:
            yield document


class _CronJob:
    """One of them, on its way to a definition."""

    def __init__(self, one: Mapping[str, Any], warnings: list[str], now_ms: int) -> None:
        self._meta, self._spec = mapping(one.get("metadata")), mapping(one.get("spec"))
        self._template = mapping(mapping(self._spec.get("jobTemplate")).get("spec"))
        self._pod = mapping(mapping(self._template.get("template")).get("spec"))
        self._name = str(self._meta.get("name") or self._meta.get("generateName") or "job").rstrip("-")
        self._warnings = warnings
        self._now_ms = now_ms

    def _warn(self, text: str) -> None:
        self._warnings.append(f"{self._name}: {text}")

    def _drop(self, found: Mapping[str, Any], reasons: Mapping[str, str], of: str) -> None:
        for field, instead in reasons.items():
            if found.get(field):
                self._warn(f"{field} of the {of} is left out: {instead}")

    def job(self, taken: set[str]) -> dict[str, Any] | None:
        """The definition; None where it has to be left out."""
        schedule, zone = self._times()
        fault = schedule_fault(schedule, zone)
        if fault is not None:
            self._warn(f"left out: {fault}")
            return None
        executor = self._executor()
        if executor is None:
            return None
        namespace = self._meta.get("namespace")
        job: dict[str, Any] = {
            "name": name_of(f"{namespace}.{self._name}" if namespace else self._name, taken),
            "schedule": schedule,
            "timezone": zone,
            "executor": executor,
            "overlap": {"policy": self._overlap()},
            "placement": {"on": "any"},
        }
        self._judge_times(job, schedule, zone)
        if self._spec.get("suspend") is True:
            job["paused"] = True
        self._ends(job)
        self._retries(job)
        if labels := labels_of(mapping(self._meta.get("labels"))):
            job["labels"] = labels
        if mapping(self._meta.get("annotations")):
            self._warn("its annotations are left out: `labels` and `description` are what a job has")
        self._nodes(job)
        self._history(job)
        self._drop(self._template, OF_SPEC, "job")
        self._drop(self._pod, OF_POD, "pod")
        return job

    def _times(self) -> tuple[str, str]:
        schedule, zone = str(self._spec.get("schedule", "")), str(self._spec.get("timeZone") or "UTC")
        if schedule.startswith(("TZ=", "CRON_TZ=")):
            zone, _, schedule = schedule.partition("=")[2].partition(" ")
        elif self._spec.get("timeZone") is None:
            self._warn("names no timeZone: Kubernetes takes that of its controller, this job UTC")
        return schedule.strip(), zone

    def _judge_times(self, job: dict[str, Any], schedule: str, zone: str) -> None:
        if (difference := differs_from_go(schedule)) is not None:
            self._warn(difference)
        if meets_dst(schedule, zone, self._now_ms):
            job["dst"] = {"gap": "skip", "fold": "both"}
            self._warn(
                "meets a change of the clocks: Kubernetes leaves out a time that is jumped over and runs one that "
                "comes twice both times; so does this job (`dst`)"
            )
        if schedule.startswith("@every"):
            self._warn("@every counts from the job's creation here")
        deadline = self._spec.get("startingDeadlineSeconds")
        if isinstance(deadline, int) and deadline > 0:
            job["start_deadline"] = f"{deadline}s"
        elif deadline is not None:
            self._warn(f"startingDeadlineSeconds {deadline} would let nothing start: left out")

    def _overlap(self) -> str:
        policy = str(self._spec.get("concurrencyPolicy") or "Allow")
        if policy not in OVERLAPS:
            self._warn(f"concurrencyPolicy {policy[:40]!r} is not known: read as Allow")
        return OVERLAPS.get(policy, "allow")

    def _ends(self, job: dict[str, Any]) -> None:
        seconds = self._template.get("activeDeadlineSeconds", self._pod.get("activeDeadlineSeconds"))
        if isinstance(seconds, int) and seconds > 0:
            job["timeout"] = f"{seconds}s"
            self._warn(f"activeDeadlineSeconds bounds all tries together, `timeout` ({seconds}s) each of them")
        else:
            job["timeout"] = NO_LIMIT
            self._warn(f"has no activeDeadlineSeconds, so no limit: this job ends after {NO_LIMIT} (timeout)")
        grace = self._pod.get("terminationGracePeriodSeconds", GRACE_SECONDS)
        job["kill_after"] = f"{grace if isinstance(grace, int) and grace >= 0 else GRACE_SECONDS}s"

    def _retries(self, job: dict[str, Any]) -> None:
        tries = self._template.get("backoffLimit")
        tries = TRIES if tries is None else tries
        if isinstance(tries, int) and not isinstance(tries, bool) and tries > 0:
            job["delivery"] = "at_least_once"
            job["retry"] = {"max_attempts": tries + 1, "backoff": "10s", "max_backoff": "6m"}
            self._warn(
                f"a failed try, or one whose node died, is repeated, {tries} times at most, as backoffLimit says "
                "(delivery at_least_once, retry)"
            )
        for field in ("parallelism", "completions"):
            if self._template.get(field) not in (None, 1):
                self._warn(f"{field} {self._template[field]} is left out: `placement.shards` splits a run in parts")
        if self._template.get("completionMode") == "Indexed":
            self._warn("completionMode Indexed: a part knows its place as RAFTCRON_SHARD_INDEX")

    def _nodes(self, job: dict[str, Any]) -> None:
        selector = {str(key): str(value) for key, value in mapping(self._pod.get("nodeSelector")).items()}
        if selector:
            job["placement"]["tags"] = selector
            told = ", ".join(f"--tag {key}={value}" for key, value in selector.items())
            self._warn(f"nodeSelector is `placement.tags`: the nodes that it means have to be started with {told}")

    def _history(self, job: dict[str, Any]) -> None:
        limits = [self._spec.get(f"{kind}JobsHistoryLimit") for kind in ("successful", "failed")]
        counts = [limit for limit in limits if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0]
        if not counts:
            return
        if sum(counts) > 20:
            job["history"] = {"runs": sum(counts)}
        self._warn(
            f"history limits count successes and failures apart; here the last {max(20, sum(counts))} runs are kept, "
            "whatever became of them (`history.runs`)"
        )

    # ---- what runs

    def _executor(self) -> dict[str, Any] | None:
        found = self._pod.get("containers")
        containers = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        if not containers:
            self._warn("has no container: left out")
            return None
        container = containers[0]
        if len(containers) > 1:
            names = ", ".join(str(each.get("name")) for each in containers[1:])
            self._warn(f"only the first container is taken, not {names}")
        environment = self._environment(container)
        words = [*_words(container.get("command")), *_words(container.get("args"))]
        image = container.get("image")
        if not words:
            self._warn(f"names no command: what the image {image} runs by itself is not known: left out")
            return None
        if not container.get("command"):
            self._warn(
                f"names only args: the program that the image {image} gives them to is not known: left out; write it "
                f"in front of {words[0][:80]!r}"
            )
            return None
        self._warn(f"the command runs on the node itself, not in the image {image}: what it needs has to be there")
        executor: dict[str, Any] = {"type": "shell", "command": [self._filled(word, environment) for word in words]}
        if environment:
            executor["env"] = environment
        if isinstance(container.get("workingDir"), str):
            executor["cwd"] = container["workingDir"]
        self._drop(container, OF_CONTAINER, "container")
        return executor

    def _environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        environment: dict[str, str] = {}
        listed = container.get("env")
        for each in listed if isinstance(listed, list) else []:
            if not isinstance(each, dict) or not each.get("name"):
                continue
            name, source = str(each["name"]), mapping(each.get("valueFrom"))
            secret = mapping(source.get("secretKeyRef"))
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("RAFTCRON_"):
                self._warn(f"{name[:80]!r} cannot be a variable here: left out")
            elif secret.get("name") and secret.get("key"):
                kept = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{secret['name']}.{secret['key']}").lstrip("-._")[:128]
                environment[name] = f"${{secret:{kept}}}"
                self._warn(
                    f"the value of {name} comes from a Secret (valueFrom): write it to /v1/secrets/{kept}, or runs fail"
                )
            elif source:
                self._warn(f"the value of {name} comes from elsewhere (valueFrom {', '.join(source)}): left out")
            else:
                value = each.get("value")
                environment[name] = self._filled("" if value is None else str(value), environment)
        return environment

    def _filled(self, text: str, environment: Mapping[str, str]) -> str:
        """What Kubernetes puts in the place of `$(NAME)` before anything runs; `$$(` is its way to write `$(`."""

        def put(found: re.Match[str]) -> str:
            value = environment.get(found[2])
            if found[1]:
                return found[0][1:]
            if value is not None and value.startswith("${secret:"):
                self._warn(f"$({found[2]}) holds a secret, which is no part of a command here: write it as ${found[2]}")
                return found[0]
            return found[0] if value is None else value

        return _VARIABLE.sub(put, text)


def _words(value: Any) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []
