"""Every error that raftcron raises on purpose: one tree, one meaning each.

    RaftcronError
    |- InvalidError            422  what was asked makes no sense; every fault is named
    |- MalformedError          400  not readable at all
    |- UnauthorizedError       401
    |- ForbiddenError          403
    |- NotFoundError           404
    |- ConflictError           409  exists already, or the key was used for something else
    |  `- UnsafeChangeError    409  a change of the members that would leave no working majority
    |- GoneError               410
    |- RevisionError           412  somebody else changed it first
    |- TooLargeError           413
    |- MediaTypeError          415
    |- TooManyError            429
    |- UnavailableError        503  certainly not written: no leader, no quorum, shutting down
    |- UnknownOutcomeError     504  may or may not have been written
    `- FatalError                   the process must end: it must not guess and must not go on
       |- DamagedError              bytes on disk that were synced are not what was written
       |- NewerVersionError         a file or entry of a version that this release does not know
       `- ConfigurationError        the settings cannot be used

`code` is stable and shows in problem documents, `http_status` is what the API answers, `exit_code` what the command
line ends with, `retryable` whether the same request may succeed later.  A message says what, which, why and what to
do next.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, NamedTuple

FAULTS_SHOWN: Final = 3  # in the text of an error that nobody catches


class Fault(NamedTuple):
    """One fault of a request body: `pointer` is a JSON pointer (RFC 6901), `message` says what is wrong and right."""

    pointer: str
    message: str


class RaftcronError(Exception):
    """The root.  `detail` is for people; `faults` names every fault of a body, where there is one."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, faults: tuple[Fault, ...] = (), retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        """For who sees no more than this: the detail, and the first faults that it does not name."""
        told = [f"{fault.pointer or '/'}: {fault.message}" for fault in self.faults if fault.message not in self.detail]
        if len(told) > FAULTS_SHOWN:
            told = [*told[:FAULTS_SHOWN], f"and {len(told) - FAULTS_SHOWN} more"]
        return ": ".join((self.detail, "; ".join(told))) if told else self.detail


class InvalidError(RaftcronError):
    """`results` is what each job of a bulk request met, where none of them was taken."""

    code, title, http_status, exit_code = "invalid", "The request is not valid", 422, 2
    results: tuple[Any, ...] = ()


class MalformedError(RaftcronError):
    code, title, http_status, exit_code = "malformed", "The request cannot be read", 400, 2


class UnauthorizedError(RaftcronError):
    code, title, http_status, exit_code = "unauthorized", "Who are you?", 401, 6


class ForbiddenError(RaftcronError):
    code, title, http_status, exit_code = "forbidden", "Not allowed", 403, 6


class NotFoundError(RaftcronError):
    code, title, http_status, exit_code = "not_found", "There is no such thing", 404, 3


class MethodError(RaftcronError):
    code, title, http_status, exit_code = "method_not_allowed", "That method does not exist here", 405, 2


class ConflictError(RaftcronError):
    code, title, http_status, exit_code = "conflict", "It conflicts with what is there", 409, 4


class UnsafeChangeError(ConflictError):
    code, title = "unsafe_change", "The cluster would lose its quorum"


class GoneError(RaftcronError):
    code, title, http_status, exit_code = "gone", "It is no longer held", 410, 3


class RevisionError(RaftcronError):
    code, title, http_status, exit_code = "revision", "It has changed meanwhile", 412, 4


class TooLargeError(RaftcronError):
    code, title, http_status, exit_code = "too_large", "Over the limit", 413, 2


class MediaTypeError(RaftcronError):
    code, title, http_status, exit_code = "media_type", "Not a type that this route takes", 415, 2


class TooManyError(RaftcronError):
    code, title, http_status, exit_code, retryable = "too_many", "Too many", 429, 5, True


class UnavailableError(RaftcronError):
    """Nothing was written, for certain."""

    code, title, http_status, exit_code, retryable = "unavailable", "No leader or no quorum", 503, 5, True


class UnknownOutcomeError(RaftcronError):
    """It may have been written or not; repeat it with the same idempotency key."""

    code, title, http_status, exit_code, retryable = "unknown_outcome", "The outcome is not known", 504, 5, True


class FatalError(RaftcronError):
    """Ends the process."""

    code, title = "fatal", "The node cannot go on"


class DamagedError(FatalError):
    code, title = "damaged", "Bytes on disk are damaged"


class NewerVersionError(FatalError):
    code, title = "newer_version", "Written by a newer version"


class ConfigurationError(FatalError):
    code, title, exit_code = "configuration", "The settings cannot be used", 2
