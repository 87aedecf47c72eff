"""One class, one code, one status, one exit code, one place in the documentation: the map, held."""

from __future__ import annotations

from pathlib import Path

from raftcron.api.problems import TYPE_PREFIX
from raftcron.cli import errors_page
from raftcron.cli.root import Failure
from raftcron.client.answers import Answer, error_of

DOCS = Path(__file__).parents[2] / "docs"

# What clients and scripts rely on: a change of a row breaks them.
MAP = {
    "error": ("RaftcronError", 500, 1),
    "malformed": ("MalformedError", 400, 2),
    "unauthorized": ("UnauthorizedError", 401, 6),
    "forbidden": ("ForbiddenError", 403, 6),
    "not_found": ("NotFoundError", 404, 3),
    "method_not_allowed": ("MethodError", 405, 2),
    "conflict": ("ConflictError", 409, 4),
    "unsafe_change": ("UnsafeChangeError", 409, 4),
    "gone": ("GoneError", 410, 3),
    "revision": ("RevisionError", 412, 4),
    "too_large": ("TooLargeError", 413, 2),
    "media_type": ("MediaTypeError", 415, 2),
    "invalid": ("InvalidError", 422, 2),
    "too_many": ("TooManyError", 429, 5),
    "unavailable": ("UnavailableError", 503, 5),
    "unknown_outcome": ("UnknownOutcomeError", 504, 5),
    "fatal": ("FatalError", 500, 1),
    "damaged": ("DamagedError", 500, 1),
    "newer_version": ("NewerVersionError", 500, 1),
    "configuration": ("ConfigurationError", 500, 2),
}


def test_the_map_of_errors_stands() -> None:
    """Each class has a code of its own, and the map is all of them."""
    kinds = list(errors_page.kinds())
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert {kind.code: (kind.__name__, kind.http_status, kind.exit_code) for kind in kinds} == MAP


def test_an_error_is_the_same_on_each_way() -> None:
    """From the class to the document, to the client's class, to the exit code, and into its section of the page."""
    sections = (DOCS / "errors.md").read_text().split("\n### ")[1:]
    by_code = {section.partition("\n")[0]: section for section in sections}
    for kind in errors_page.kinds():
        document = {"type": TYPE_PREFIX + kind.code, "code": kind.code, "detail": "why"}
        raised = error_of(Answer(kind.http_status, {}, document))
        assert type(raised) is kind
        assert Failure(raised).exit_code == kind.exit_code
        assert kind.exit_code in errors_page.EXIT_CODES
        assert f"`{kind.__name__}`" in by_code[kind.code]
    assert set(by_code) == set(MAP)


def test_the_page_is_that_of_the_code() -> None:
    """docs/errors.md is printed."""
    told = "python -m raftcron.cli.errors_page > docs/errors.md"
    assert (DOCS / "errors.md").read_text() == errors_page.page(), told
