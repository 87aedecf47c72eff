"""Names of executor types -> the classes that run them: the built-in ones, and others by entry point."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from raftcron.clock import Clock, SystemClock
from raftcron.errors import ConfigurationError, Fault
from raftcron.executors.addresses import BY_DEFAULT, AddressRules
from raftcron.executors.output import Shelf
from raftcron.executors.validation import Findings, json_type
from raftcron.ports import Attempt, Control, Ending, is_cancelled

if TYPE_CHECKING:
    from raftcron.executors.handlers import Handlers
    from raftcron.executors.spawner import Spawner

log = logging.getLogger(__name__)

GROUP = "raftcron.executors"
BUILT_IN = {
    "http": "raftcron.executors.http:HttpExecutor",
    "shell": "raftcron.executors.shell:ShellExecutor",
    "python": "raftcron.executors.python:PythonExecutor",
    "noop": "raftcron.executors.noop:NoopExecutor",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a node gives to its executors."""

    allow_shell: bool = False
    spawner: Spawner | None = None  # there if the node allows shell, or has handlers that run in a process
    handlers: Handlers | None = None  # of the application that embeds the node
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))  # the daemon's
    answers: Shelf | None = None  # where the bodies of long answers are kept
    clock: Clock = field(default_factory=SystemClock)
    addresses: AddressRules = BY_DEFAULT  # that jobs may call
    trust: ssl.SSLContext | None = None  # what https jobs go by; None: the system's CAs


def unsent(reason: str) -> Ending:
    """The end of an attempt that was told to stop before anything of it left this node."""
    text = f"stopped ({reason}) before it could start"
    return Ending("cancelled" if reason == "cancelled" else "not_started", error=text, error_kind=reason)


class ExecutorKind(Protocol):
    """One executor type: made once a node, runs many attempts at a time.

    `validate` is pure: it names every fault of the executor object, with pointers relative to that object.
    `run` never raises for what user code or a receiver does; `close` is awaited once, when nothing runs any more.
    """

    @classmethod
    def create(cls, surroundings: Surroundings) -> Self: ...

    @staticmethod
    def validate(spec: Mapping[str, Any]) -> list[Fault]: ...

    async def run(self, attempt: Attempt, control: Control) -> Ending: ...

    async def close(self) -> None: ...


Judge = Callable[[Mapping[str, Any]], list[Fault]]  # as `ExecutorKind.validate`


class Registry:
    """The types that this installation knows.  Classes are loaded when they are first used."""

    def __init__(self, extra: Iterable[EntryPoint] = (), judges: Mapping[str, Judge] | None = None) -> None:
        """`judges` stand in for the `validate` of their types: what this node in particular allows."""
        self._points = {name: EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items()}
        for point in extra:
            self._points.setdefault(point.name, point)  # a package cannot replace what comes with raftcron
        self._kinds: dict[str, type[ExecutorKind]] = {}
        self._judges = judges or {}

    @classmethod
    def installed(cls, judges: Mapping[str, Judge] | None = None) -> Self:
        """With what the installed packages add under the entry point group `raftcron.executors`."""
        return cls(entry_points(group=GROUP), judges)

    @property
    def types(self) -> list[str]:
        return sorted(self._points)

    def kind(self, name: str) -> type[ExecutorKind]:
        """The class of a type.  ConfigurationError if nobody has it, or if it cannot be loaded."""
        if name not in self._kinds:
            point = self._points.get(name)
            if point is None:
                raise ConfigurationError(f"there is no executor type {name!r} here; there are {', '.join(self.types)}")
            try:
                loaded = point.load()
            except (ImportError, AttributeError) as error:
                raise ConfigurationError(
                    f"the executor type {name!r} ({point.value}) cannot be loaded: {error}; "
                    "repair or uninstall the package it comes from"
                ) from error
            self._kinds[name] = cast("type[ExecutorKind]", loaded)
        return self._kinds[name]

    def validate(self, spec: Any) -> list[Fault]:
        """Every fault of a job's executor object; pointers are relative to it.  ConfigurationError as in `kind`."""
        findings = Findings()
        if not isinstance(spec, Mapping):
            findings.invalid("", f'must be an object such as {{"type": "http", ...}}, not {json_type(spec)}')
        elif "type" not in spec:
            findings.invalid("/type", f"is missing; one of {', '.join(self.types)}")
        elif not isinstance(spec["type"], str):
            findings.invalid("/type", f"must be a string, not {json_type(spec['type'])}")
        elif spec["type"] in self._points:
            return self._judged(spec)
        else:
            findings.invalid("/type", f"unknown executor type {spec['type']!r}; one of {', '.join(self.types)}")
        return findings.items

    def _judged(self, spec: Mapping[str, Any]) -> list[Fault]:
        name = spec["type"]
        judge = self._judges.get(name) or self.kind(name).validate
        if name in BUILT_IN:
            return judge(spec)
        try:
            return [Fault(str(where), str(message)) for where, message in judge(spec)]
        except Exception as error:  # the rim of code that others have written
            log.exception("validation_failed type=%s", name)
            raise ConfigurationError(f"the executor type {name!r} cannot judge this: {error!r}") from error

    def executors(self, surroundings: Surroundings) -> Executors:
        """The executors of one node."""
        return Executors(self, surroundings)


class Executors:
    """Runs an attempt with the executor of its type; is an Executor itself."""

    def __init__(self, registry: Registry, surroundings: Surroundings) -> None:
        self._registry = registry
        self._surroundings = surroundings
        self._made: dict[str, ExecutorKind] = {}

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        """As the type's own `run`; an attempt of a type that this node does not have certainly does not start."""
        name = str(attempt.executor.get("type"))
        executor = self._made.get(name)
        if executor is None:
            try:
                executor = self._registry.kind(name).create(self._surroundings)
            except ConfigurationError as error:
                return Ending("failed", error=f"{error.detail}, on node {attempt.node}", error_kind="not_allowed")
            except Exception as error:  # nothing has begun
                log.exception("executor_not_made type=%s", name)
                text = f"the executor {name!r} cannot be made on node {attempt.node}: {error!r}"
                return Ending("failed", error=text, error_kind="executor")
            self._made[name] = executor
        try:
            ending = await executor.run(attempt, control)
            if not isinstance(ending, Ending):
                raise TypeError(f"it returned {ending!r} and no Ending")
            return ending
        except (Exception, asyncio.CancelledError) as error:  # the rim of code that others may have written
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            log.exception("executor_failed type=%s job=%s run_id=%s", name, attempt.job, attempt.run_id)
            text = f"the executor {name!r} itself failed: {error!r}; see this node's log"
            return Ending("failed", proven=False, error=text, error_kind="executor")

    async def close(self) -> None:
        for executor in self._made.values():
            await executor.close()
        self._made.clear()
