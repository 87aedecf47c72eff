"""Job definitions in files: JSON, YAML (also many documents), a line each, whole directories, or stdin."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from raftcron.errors import Fault, InvalidError

MAX_FILE_BYTES: Final = 256 << 20  # 100,000 jobs are about 25 MB
MAX_PLACED: Final = 2 << 20  # characters of a text whose faults are told with their lines; a second or two
_BOOLEAN: Final = re.compile("true|True|TRUE|false|False|FALSE")
ENDINGS: Final = (".json", ".yaml", ".yml", ".ndjson", ".jsonl")


class Jobs:
    """Job definitions, and where each of them stands."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._homes: list[_Home] = []

    def add(self, body: Any, home: _Home) -> None:
        self.bodies.append(body)
        self._homes.append(home)

    def place(self, number: int, pointer: str = "") -> str:
        """File and line of a job, counted from 0, or of the field that `pointer` names; empty where there is none."""
        return self._homes[number].place(pointer) if number < len(self._homes) else ""


class _Text:
    """A file's text; its lines are looked up only when something is wrong there."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    @functools.cached_property
    def documents(self) -> list[Any]:
        """Its YAML nodes, which know their lines; none where that would take long, or it cannot be read so."""
        import yaml

        if len(self.text) > MAX_PLACED:
            return []
        try:
            return [node for node in yaml.compose_all(self.text, yaml.SafeLoader) if node is not None]
        except (yaml.YAMLError, RecursionError):  # JSON may hold what YAML does not take, a tab for one
            return []


class _Home(NamedTuple):
    """Where a job stands: in which text, at which line if that is known, else on which way through its documents."""

    text: _Text
    line: int | None
    way: tuple[int | str, ...]

    def place(self, pointer: str) -> str:
        line = self.line if self.line is not None else self._line(pointer)
        return self.text.name if line is None else f"{self.text.name}:{line}"

    def _line(self, pointer: str) -> int | None:
        """Of what the pointer names, as far as it is there."""
        at, documents = self.way[0], self.text.documents
        if not isinstance(at, int) or at >= len(documents):
            return None
        node, line = documents[at], documents[at].start_mark.line + 1
        steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
        for step in (*self.way[1:], *steps):
            if isinstance(node.value, str):
                break
            found = [
                (key, value)
                for key, value in _children(node)
                if str(step) == str(key if isinstance(key, int) else key.value)
            ]
            if not found:
                break
            key, node = found[-1]
            line = (node if isinstance(key, int) else key).start_mark.line + 1
        return int(line)


def _children(node: Any) -> list[tuple[Any, Any]]:
    """Of a mapping its pairs of nodes, of a sequence its items with their numbers."""
    return list(node.value) if node.id == "mapping" else list(enumerate(node.value))


def jobs_of(source: str) -> Jobs:
    """All jobs of a file, a directory (its files, by name) or `-` (stdin): one, a list, or an object with `jobs`.

    InvalidError: something there cannot be read, is no job, has no name, or one that another has.
    """
    found = Jobs()
    for file in _files(source):
        _read(file, found)
    faults = []
    seen: dict[str, int] = {}
    for number, one in enumerate(found.bodies):
        if not _is_named(one):
            faults.append(Fault(found.place(number), f"job {number + 1} has no name"))
        elif one["name"] in seen:
            other = found.place(seen[one["name"]])
            faults.append(Fault(found.place(number), f"{one['name']!r} stands there twice: also in {other}"))
        else:
            seen[one["name"]] = number
    if faults:
        raise InvalidError(f"{source}: nothing was sent", tuple(faults))
    return found


def json_of(text: bytes | str, where: str) -> Any:
    """A JSON value.  InvalidError names `where` it is not one."""
    try:
        return _parsed(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(where, error) from error


def _parsed(text: bytes | str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are there once: of two, one would be passed over in silence."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return found


def _not_json(where: str, error: Exception) -> InvalidError:
    if isinstance(error, json.JSONDecodeError):
        return InvalidError(f"{where}:{error.lineno}:{error.colno}: not JSON: {error.msg}")
    return InvalidError(f"{where}: not JSON: {error}")


def text_of(source: str) -> str:
    """A file's text, or that of stdin.  InvalidError: it cannot be read."""
    raw = _bytes(source)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidError(f"{source}: is not UTF-8: byte {error.start} has no place there") from error


def documents_of(text: str, where: str) -> list[Any]:
    """All documents of a YAML (or JSON) text, read as JSON's types alone.  InvalidError: it is neither.

    So `on` is a word and an instant is a text: YAML 1.1 would make them true and a date.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] in ("int", "float", "null")]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key for key, _ in node.value if isinstance(key.value, str) and key.value != "<<"]
            for at, key in enumerate(keys):
                if any(key.value == earlier.value for earlier in keys[:at]):
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("tTfF"))
    try:
        found = [document for document in yaml.load_all(text, Loader) if document is not None]
        json.dumps(found)  # keys that are no text
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise _not_yaml(where, error) from error
    return found


def _not_yaml(where: str, error: Exception) -> InvalidError:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return InvalidError(f"{where}: not YAML: {' '.join(str(error).split())}")
    hint = "; is it a template? Render it first" if "{{" in (mark.get_snippet() or "") else ""
    return InvalidError(f"{where}:{mark.line + 1}:{mark.column + 1}: not YAML: {problem}{hint}")


def _is_named(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("name"), str) and bool(one["name"])


def _files(source: str) -> list[str]:
    place = Path(source)
    if source == "-" or not place.is_dir():
        return [source]
    files = sorted(path for path in place.iterdir() if path.suffix in ENDINGS)
    if not files:
        raise InvalidError(f"{place}: no file there ends with {', '.join(ENDINGS)}")
    return [str(file) for file in files]


def _bytes(source: str) -> bytes:
    try:
        if source == "-":
            raw = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(source).open("rb") as stream:
                raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidError(f"{source}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise InvalidError(f"{source}: over {MAX_FILE_BYTES:,} bytes")
    return raw


def _read(source: str, into: Jobs) -> None:
    where = "stdin" if source == "-" else source
    text = _Text(where, text_of(source))
    values, are_lines = _values(text.text, where)
    if not values:
        raise InvalidError(f"{where}: is empty: expected a job, a list of jobs, or an object with `jobs`")
    for at, value in enumerate(values):
        line = int(value[0]) if are_lines else None
        for way, job in _jobs(value[1] if are_lines else value, where):
            into.add(job, _Home(text, line, (at, *way)))


def _jobs(value: Any, where: str) -> Iterator[tuple[tuple[int | str, ...], Any]]:
    """The jobs in a value, each with the way to it."""
    if isinstance(value, list):
        yield from (((at,), one) for at, one in enumerate(value))
        return
    if not isinstance(value, dict):
        raise InvalidError(f"{where}: expected a job, a list of jobs, or an object with `jobs`")
    key = next((key for key in ("jobs", "items") if isinstance(value.get(key), list)), None)
    if key is not None and "name" not in value:
        yield from (((key, at), one) for at, one in enumerate(value[key]))
    else:
        yield (), value


def _values(text: str, where: str) -> tuple[list[Any], bool]:
    """The values of a text, or its lines' numbers and values, and which it is.

    JSON is read as JSON, which is much faster; then a line each; then YAML, of which JSON is a part.
    """
    if where.endswith((".yaml", ".yml")):
        return documents_of(text, where), False
    try:
        return [_parsed(text)], False
    except (ValueError, RecursionError) as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) > 1 and lines[0][1].lstrip().startswith("{") and lines[0][1].rstrip().endswith("}"):
            return [(number, _json_line(line, where, number)) for number, line in lines], True
        if where.endswith((".json", ".ndjson", ".jsonl")) or text.lstrip()[:1] in ("{", "["):
            raise _not_json(where, error) from error
    return documents_of(text, where), False


def _json_line(line: str, where: str, number: int) -> Any:
    try:
        return _parsed(line)
    except (ValueError, RecursionError) as error:
        place = f":{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidError(f"{where}:{number}{place}: not JSON: {getattr(error, 'msg', error)}") from error
