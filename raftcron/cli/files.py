"""Job definitions in files: JSON, YAML (also many documents), a line each, whole directories, or stdin."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from raftcron.errors import Fault, InvalidError

MAX_FILE_BYTES: Final = 256 << 20  # 100,000 jobs are about 25 MB
_BOOLEAN: Final = re.compile("true|True|TRUE|false|False|FALSE")
ENDINGS: Final = (".json", ".yaml", ".yml", ".ndjson", ".jsonl")


def jobs_of(source: str) -> list[dict[str, Any]]:
    """All jobs of a file, a directory (its files, by name) or `-` (stdin): one, a list, or an object with `jobs`.

    InvalidError: something there cannot be read, is no job, or has no name.
    """
    found = list(_read(source))
    faults = tuple(
        Fault(f"/{at}/name", f"job {at + 1} has no name") for at, one in enumerate(found) if not _is_named(one)
    )
    if faults:
        raise InvalidError(f"{source}: nothing was sent", faults)
    return found


def json_of(text: bytes | str, where: str) -> Any:
    """A JSON value.  InvalidError names `where` it is not one."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{where}: not JSON: {error}") from error


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

    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("tTfF"))
    try:
        found = [document for document in yaml.load_all(text, Loader) if document is not None]
        json.dumps(found)  # keys that are no text
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise InvalidError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    return found


def _is_named(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("name"), str) and bool(one["name"])


def _read(source: str) -> Iterator[Any]:
    place = Path(source)
    if source == "-" or not place.is_dir():
        yield from _jobs(source)
        return
    files = sorted(path for path in place.iterdir() if path.suffix in ENDINGS)
    if not files:
        raise InvalidError(f"{place}: no file there ends with {', '.join(ENDINGS)}")
    for file in files:
        yield from _jobs(str(file))


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


def _jobs(source: str) -> Iterator[Any]:
    where = "stdin" if source == "-" else source
    values = _values(text_of(source), where)
    if not values:
        raise InvalidError(f"{where}: is empty: expected a job, a list of jobs, or an object with `jobs`")
    for value in values:
        if isinstance(value, list):
            yield from value
            continue
        if not isinstance(value, dict):
            raise InvalidError(f"{where}: expected a job, a list of jobs, or an object with `jobs`")
        inner = next((value[key] for key in ("jobs", "items") if isinstance(value.get(key), list)), None)
        if inner is not None and "name" not in value:
            yield from inner
        else:
            yield value


def _values(text: str, where: str) -> list[Any]:
    """JSON is read as JSON, which is much faster; then a line each; then YAML, of which JSON is a part."""
    if where.endswith((".yaml", ".yml")):
        return documents_of(text, where)
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and lines[0].lstrip().startswith("{") and lines[0].rstrip().endswith("}"):
            return [json_of(line, f"{where}, line {place}") for place, line in enumerate(lines, 1)]
        if where.endswith((".json", ".ndjson", ".jsonl")) or text.lstrip()[:1] in ("{", "["):
            raise InvalidError(f"{where}: not JSON: {error}") from error
    return documents_of(text, where)
