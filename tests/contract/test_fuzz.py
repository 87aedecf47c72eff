"""A real node is asked all that its /openapi.json says, and what it does not: no 500, and no answer it does not have.

`scripts/fuzz` asks more, as each role.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raftcron.api.app import ROUTES
from raftcron.api.openapi.document import document
from tests.contract.asker import LEFT_OUT, Asker
from tests.contract.fuzzed import fuzzed_node

EXAMPLES = 40
DOCUMENT = document([(method, path) for method, path, _ in ROUTES], ["noop"])
LABELS = [
    f"{method.upper()} {path}"
    for path, operations in DOCUMENT["paths"].items()
    for method in operations
    if not path.startswith(LEFT_OUT)
]


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    with fuzzed_node(folder) as node:
        asker = Asker(node.url)
        yield asker
        asker.close()
        assert "request_failed" not in node.output


@pytest.mark.parametrize("label", LABELS)
def test_every_answer_is_described(asker: Asker, label: str) -> None:
    """As admin: each answer's status, type, headers and body, and no body that does not fit is taken."""
    asker.ask(label, EXAMPLES)


def test_most_operations_have_succeeded(asker: Asker) -> None:
    """What is asked is not only refused: else little would be learnt."""
    if len({label for label, _ in asker.statuses}) < len(LABELS):
        pytest.skip("a part of the tests was selected")
    taken = {label for label, status in asker.statuses if status < 300}
    assert set(LABELS) - taken <= {
        "POST /v1/runs/{id}/cancel",
        "POST /v1/runs/{id}/finish",
        "POST /v1/runs/{id}/heartbeat",
    }
