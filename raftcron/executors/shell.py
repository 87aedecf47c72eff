"""ShellExecutor: what a shell job may say, and the process that it asks for.  Processes and signals are not here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from raftcron.config.kinds import MIB, SIZE
from raftcron.errors import Fault
from raftcron.executors.context import OF_THE_USER, environment
from raftcron.executors.output import output_name
from raftcron.executors.registry import Surroundings
from raftcron.executors.spawned import carry_out
from raftcron.executors.spawner import SpawnRequest
from raftcron.executors.validation import Findings, json_type, pointer
from raftcron.ports import Attempt, Control, Ending

FIELDS = {"type", "command", "cwd", "env", "stdin", "user", "group", "memory_limit"}
ARGUMENT_BYTES = (128 << 10) - 1  # the kernel's bound for one argument or one variable
ARGUMENTS = 1_000
VARIABLES = 500
STDIN_BYTES = 1 << 20
MEMORY_BYTES = (MIB, 1 << 42)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


class ShellExecutor:
    """`{"type": "shell", "command": "..." | ["argv", ...], "cwd", "env", "stdin", "user", "group", "memory_limit"}`.

    A string goes to `/bin/sh -c`.  Without `cwd` it runs where the daemon runs.  Exit code 0 is success.  What a
    command leaves in the background is killed when the command itself is over.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._allowed = surroundings.allow_shell
        self._spawner = surroundings.spawner
        self._environment = surroundings.environment

    @classmethod
    def create(cls, surroundings: Surroundings) -> Self:
        return cls(surroundings)

    async def close(self) -> None:
        """The spawner belongs to the node."""

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        if not self._allowed or self._spawner is None:
            return Ending(
                "failed",
                error=f"node {attempt.node} runs no commands; start it with --allow-shell or RAFTCRON_ALLOW_SHELL=1",
                error_kind="not_allowed",
            )
        return await carry_out(self._spawner, self._request(attempt), attempt, control)

    def _request(self, attempt: Attempt) -> SpawnRequest:
        spec = attempt.executor
        command, user = spec["command"], spec.get("user")
        daemon = self._environment
        if user is not None:
            daemon = {name: value for name, value in daemon.items() if name not in OF_THE_USER}
        return SpawnRequest(
            request_id=str(attempt.fencing_token),
            run_id=attempt.run_id,
            token=attempt.fencing_token,
            argv=["/bin/sh", "-c", command] if isinstance(command, str) else list(command),
            env=environment(attempt, spec.get("env") or {}, daemon),
            timeout_seconds=attempt.timeout_seconds,
            kill_after_seconds=attempt.kill_after_seconds,
            cwd=spec.get("cwd"),
            stdin=(spec.get("stdin") or "").encode(),
            user=user,
            group=spec.get("group"),
            memory_bytes=None if spec.get("memory_limit") is None else SIZE.read(spec["memory_limit"]),
            output_name=output_name(attempt.run_id, attempt.fencing_token),
            self_stop=attempt.self_stop,
        )

    @staticmethod
    def validate(spec: Mapping[str, Any]) -> list[Fault]:
        findings = Findings()
        findings.unknown_fields(spec, FIELDS)
        _check_command(findings, spec.get("command"))
        if spec.get("env") is not None:
            _check_environment(findings, spec["env"])
        cwd, user, stdin = spec.get("cwd"), spec.get("user"), spec.get("stdin")
        if cwd is not None and findings.text("/cwd", cwd, bytes_max=4095) and not cwd.startswith("/"):
            findings.invalid("/cwd", "must be an absolute path")
        if stdin is not None:
            findings.text("/stdin", stdin, bytes_max=STDIN_BYTES, nul=True)
        for field, name in (("user", user), ("group", spec.get("group"))):
            where = pointer(field)
            if name is not None and findings.text(where, name, bytes_max=256) and not _NAME.fullmatch(name):
                findings.invalid(where, f"{name!r} is not the name of a {field}")
        if spec.get("memory_limit") is not None:
            _check_memory(findings, spec["memory_limit"])
        return findings.items


def _check_memory(findings: Findings, value: Any) -> None:
    low, high = MEMORY_BYTES
    try:
        size = SIZE.read(value)
    except ValueError as error:
        findings.invalid("/memory_limit", str(error))
        return
    if not low <= size <= high:
        findings.invalid("/memory_limit", f"is outside {SIZE.show(low)} to {SIZE.show(high)}")


def _check_command(findings: Findings, command: Any) -> None:
    if command is None:
        findings.invalid("/command", "is missing; a string for /bin/sh -c, or an array of program and arguments")
    elif isinstance(command, str):
        if findings.text("/command", command, bytes_max=ARGUMENT_BYTES) and not command.strip():
            findings.invalid("/command", "is empty")
    elif not isinstance(command, list):
        findings.invalid("/command", f"must be a string or an array of strings, not {json_type(command)}")
    elif not command:
        findings.invalid("/command", "is empty; the first element is the program")
    elif len(command) > ARGUMENTS:
        findings.invalid("/command", f"has {len(command)} elements; at most {ARGUMENTS} are possible")
    else:
        for place, argument in enumerate(command):
            is_text = findings.text(pointer("command", place), argument, bytes_max=ARGUMENT_BYTES)
            if place == 0 and is_text and not argument:
                findings.invalid("/command/0", "is empty; the first element is the program")


def _check_environment(findings: Findings, variables: Any) -> None:
    if not isinstance(variables, Mapping):
        findings.invalid("/env", f"must be an object of strings, not {json_type(variables)}")
        return
    if len(variables) > VARIABLES:
        findings.invalid("/env", f"has {len(variables)} variables; at most {VARIABLES} are possible")
        return
    for name, value in variables.items():
        where = pointer("env", name)
        if not _VARIABLE.fullmatch(name):
            findings.invalid(where, f"{name!r} is not a variable name: letters, digits and _, no digit in front")
        elif name.startswith("RAFTCRON_") or name == "TRACEPARENT":
            findings.invalid(where, f"{name} is set by raftcron itself")
        findings.text(where, value, bytes_max=ARGUMENT_BYTES - len(name) - 1, secret=True)
