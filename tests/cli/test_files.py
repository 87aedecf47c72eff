"""Job definitions in files: every fault is told with its file and its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftcron.cli.files import jobs_of
from raftcron.errors import InvalidError
from tests.cli.conftest import StandIn, call

YAML = """\
# two of them
name: a
schedule: "@daily"
executor:
  type: http
  url: ftp://x
---
jobs:
- name: b
  retry: {on: [failed, odd]}
- name: c
"""


@pytest.mark.parametrize(
    ("number", "pointer", "line"),
    [
        (0, "", 2),
        (0, "/executor/url", 6),
        (0, "/executor/method", 4),  # it is missing there
        (0, "/schedule", 3),
        (1, "/retry/on/1", 10),
        (2, "/name", 11),
    ],
)
def test_a_field_has_its_line(tmp_path: Path, number: int, pointer: str, line: int) -> None:
    """As far as the pointer leads."""
    (tmp_path / "a.yaml").write_text(YAML)
    assert jobs_of(str(tmp_path / "a.yaml")).place(number, pointer) == f"{tmp_path / 'a.yaml'}:{line}"


@pytest.mark.parametrize(
    ("name", "text", "number", "line"),
    [
        ("a.json", '[\n {"name": "a"},\n {"name": "b",\n  "timeout": 1}\n]', 1, 4),
        ("a.ndjson", '{"name": "a"}\n\n{"name": "b", "timeout": 1}\n', 1, 3),
        ("a.json", '{"jobs": [\n\t{"name": "a"}]}', 0, None),  # tabs are JSON, but no YAML
    ],
)
def test_json_has_lines_too(tmp_path: Path, name: str, text: str, number: int, line: int | None) -> None:
    """Where they cannot be found the file is told alone."""
    (tmp_path / name).write_text(text)
    place = jobs_of(str(tmp_path / name)).place(number, "/timeout")
    assert place == f"{tmp_path / name}" + ("" if line is None else f":{line}")


async def test_the_faults_of_a_refused_job_stand_in_its_file(node: StandIn, tmp_path: Path) -> None:
    """Of a whole directory, each with file, line, pointer and what is wrong."""
    (tmp_path / "a.yaml").write_text("name: a\ntimeout: -1\n")
    (tmp_path / "b.json").write_text('{"name": "b",\n "fuu": 1}')
    node.answers(
        200,
        {
            "results": [
                {"name": "a", "status": 422, "result": "invalid", "errors": [{"pointer": "/timeout", "message": "m1"}]},
                {"name": "b", "status": 422, "result": "invalid", "errors": [{"pointer": "/fuu", "message": "m2"}]},
            ]
        },
    )
    result = await call("job", "apply", "-f", str(tmp_path), addr=node.address)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "a: invalid",
        f"  {tmp_path}/a.yaml:2 /timeout: m1",
        "b: invalid",
        f"  {tmp_path}/b.json:2 /fuu: m2",
        "raftcron: 2 invalid",
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", "name: a\n  b: c\n", "a.yaml:2:4: not YAML: mapping values are not allowed here"),
        ("a.yaml", "name: a\nschedule: {{ .Values.x }}\n", "is it a template? Render it first"),
        ("a.yaml", "name: a\nx: 1\nname: b\n", "a.yaml:3:1: not YAML: 'name' stands there twice"),
        ("a.json", '{"name": "a",\n "x" 1}', "a.json:2:6: not JSON: Expecting ':' delimiter"),
        ("a.json", '{"name": "a", "x": {"y": 1, "y": 2}}', "'y' stands there twice"),
        ("a.ndjson", '{"name": "a"}\n{"name": }\n', "a.ndjson:2:10: not JSON"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path, name: str, text: str, told: str) -> None:
    """Line and column; and a key that is there twice is no silent choice between the two."""
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidError) as caught:
        jobs_of(str(tmp_path / name))
    assert told in caught.value.detail


def test_nameless_and_double_jobs_are_all_told(tmp_path: Path) -> None:
    """Across files; nothing is sent then."""
    (tmp_path / "a.yaml").write_text("name: x\n---\nname: y\n---\nschedule: s\n")
    (tmp_path / "b.yaml").write_text("- name: y\n- 7\n")
    with pytest.raises(InvalidError) as caught:
        jobs_of(str(tmp_path))
    assert [(fault.pointer.rpartition("/")[2], fault.message) for fault in caught.value.faults] == [
        ("a.yaml:5", "job 3 has no name"),
        ("b.yaml:1", f"'y' stands there twice: also in {tmp_path}/a.yaml:3"),
        ("b.yaml:2", "job 5 has no name"),
    ]
