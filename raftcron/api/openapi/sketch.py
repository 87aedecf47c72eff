"""What a check of core/fields.py takes, as a JSON schema: learnt by letting it check, with a walk that notes what is
asked.  So the document cannot say anything else than what is checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raftcron.core.fields import LIST_MAX, NAME, TEXT_MAX, Check, Walk

Schema = dict[str, Any]

NAME_SCHEMA: Schema = {"type": "string", "pattern": f"^{NAME.pattern}$"}
INSTANT: Schema = {"type": "string", "format": "date-time"}
DURATION: Schema = {
    "anyOf": [
        {"type": "string", "pattern": "^([0-9]{1,9}(ms|s|m|h|d|w))+$"},
        {"type": "number", "minimum": 0, "description": "seconds"},
    ],
    "description": "as in 90s, 5m or 1h30m (units w d h m s ms, each at most once), or a number of seconds",
}


def accepted(check: Check) -> Schema:
    """The schema of what one check takes."""
    sketch, of_null = _Sketch(), _Sketch()
    check(sketch, "", {})
    check(of_null, "", None)
    schema = sketch.schema()
    return schema if of_null.asked or of_null.faults else nullable(schema)


def nullable(schema: Mapping[str, Any]) -> Schema:
    """The same, or null."""
    if isinstance(schema.get("type"), str) and "enum" not in schema and "const" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [dict(schema), {"type": "null"}]}


def strict(properties: Mapping[str, Any], required: Iterable[str] = ()) -> Schema:
    """An object of these fields and no others."""
    schema: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if names := list(required):
        schema["required"] = names
    return schema


class _Sketch(Walk):
    """Notes by pointer what it is asked to check, and whether there was anything to check."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, Schema] = {}
        self.missing: set[str] = set()

    def schema(self) -> Schema:
        """Of the value at the root: what was asked of itself, or else of its fields."""
        if "" in self.asked:
            return self.asked[""]
        if not self.asked:
            return {"type": "object"}
        fields = {pointer.removeprefix("/"): schema for pointer, schema in self.asked.items()}
        return strict(fields, sorted(pointer.removeprefix("/") for pointer in self.missing))

    def _note(self, pointer: str, value: Any, schema: Schema) -> None:
        self.asked[pointer] = schema
        if value is None:
            self.missing.add(pointer)

    def text(self, pointer: str, value: Any, longest: int = TEXT_MAX) -> None:
        self._note(pointer, value, {"type": "string", "maxLength": longest})

    def name(self, pointer: str, value: Any) -> None:
        self._note(pointer, value, NAME_SCHEMA)

    def duration(self, pointer: str, value: Any, least_ms: int = 0) -> None:
        self._note(pointer, value, DURATION)

    def whole(self, pointer: str, value: Any, least: int, most: int) -> None:
        self._note(pointer, value, {"type": "integer", "minimum": least, "maximum": most})

    def choice(self, pointer: str, value: Any, allowed: Iterable[str]) -> None:
        self._note(pointer, value, {"type": "string", "enum": list(allowed)})

    def instant(self, pointer: str, value: Any) -> None:
        self._note(pointer, value, INSTANT)

    def texts(self, pointer: str, value: Any) -> None:
        self._note(
            pointer,
            value,
            {
                "type": "object",
                "maxProperties": LIST_MAX,
                "propertyNames": {"minLength": 1, "maxLength": 128},
                "additionalProperties": {"type": "string", "maxLength": 256},
            },
        )

    def each(self, pointer: str, value: Any, check: Check, most: int = LIST_MAX) -> None:
        self._note(pointer, value, {"type": "array", "items": accepted(check), "maxItems": most})
