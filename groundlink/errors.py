"""Every error a caller can meet, and the one table that says what each becomes outside Python.

A message names the input and the remedy, in one or two sentences. What a backend raises that is none of these comes
to the caller as a plain `GroundlinkError`, with the original as its cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ErrorCode:
    """How one class of errors looks to a program that is not written in Python.

    `tool` is the word in JSON answers and tool results, `exit_code` that of the command line (0 is found, 1 is not
    found), `http` the HTTP status, `ros` the number in the `status` field of ROS answers (0 is fine).
    """

    tool: str
    exit_code: int
    http: int
    ros: int


class GroundlinkError(Exception):
    """The root of all errors that a caller of Groundlink can meet."""

    @property
    def code(self) -> ErrorCode:
        """This error's row of `ERROR_CODES`; a subclass without a row of its own has that of its parent."""
        return next(ERROR_CODES[cls] for cls in type(self).__mro__ if cls in ERROR_CODES)

    def to_json(self) -> dict[str, str]:
        """Return `{"code": …, "message": …}`, the value of `error` in the JSON form."""
        return {"code": self.code.tool, "message": str(self)}


class BadQuery(GroundlinkError):
    """The words asked for cannot be a question: empty, too long, or with characters that no text has."""


class BadImage(GroundlinkError):
    """The picture cannot be opened or is not one that Groundlink takes."""


class BadOutput(GroundlinkError):
    """A result cannot be written where the caller wants it."""


class BadData(GroundlinkError):
    """Data given to a converter does not have the form that the converter reads."""


class UnsupportedTask(GroundlinkError):
    """The backend does not do this task."""


class BackendUnavailable(GroundlinkError):
    """The backend is unknown, not installed, cannot run on this machine, or refuses its settings."""


class WeightsNotFound(GroundlinkError):
    """The model's files are neither here nor to be had."""


class WeightsInvalid(GroundlinkError):
    """The model's files are here but are not a model that the backend can run."""


class OutOfMemory(GroundlinkError):
    """The device has too little memory for this picture and question."""


class Busy(GroundlinkError):
    """Too many questions are waiting already; ask again later."""


class DeadlineExceeded(GroundlinkError):
    """The deadline passed before anything was found."""


class Cancelled(GroundlinkError):
    """The question was withdrawn before it was answered."""


class NoDisplay(GroundlinkError):
    """There is no screen to look at, or it may not be looked at."""


class ActionDenied(GroundlinkError):
    """The owner's policy does not allow this action."""


class ActionHadNoEffect(GroundlinkError):
    """The action was carried out and nothing changed; `result` has the pictures before and after."""

    def __init__(self, message: str = "", result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class _Unsettled(Exception):
    """What errors about a target have in common.

    `candidates` are what comes into question, in reading order, and `picture` shows them numbered from 1 (a PIL
    image, None where there is none).
    """

    def __init__(self, message: str = "", candidates: Sequence[Any] = (), picture: Any = None) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)
        self.picture = picture


class TargetNotFound(_Unsettled, GroundlinkError):
    """What should be acted upon is not there; the message names what comes closest."""


class TargetAmbiguous(_Unsettled, GroundlinkError):
    """What should be acted upon is there more than once."""


ERROR_CODES: dict[type[GroundlinkError], ErrorCode] = {
    GroundlinkError: ErrorCode("error", 70, 500, 1),
    BadQuery: ErrorCode("bad_query", 2, 422, 2),
    BadImage: ErrorCode("bad_image", 3, 422, 3),
    BadOutput: ErrorCode("bad_output", 4, 500, 4),
    UnsupportedTask: ErrorCode("unsupported_task", 5, 422, 5),
    BackendUnavailable: ErrorCode("backend_unavailable", 6, 503, 6),
    WeightsNotFound: ErrorCode("weights_not_found", 7, 503, 7),
    WeightsInvalid: ErrorCode("weights_invalid", 8, 503, 8),
    OutOfMemory: ErrorCode("out_of_memory", 9, 507, 9),
    Busy: ErrorCode("busy", 10, 429, 10),
    DeadlineExceeded: ErrorCode("deadline_exceeded", 11, 504, 11),
    Cancelled: ErrorCode("cancelled", 12, 499, 12),
    NoDisplay: ErrorCode("no_display", 13, 503, 13),
    ActionDenied: ErrorCode("action_denied", 14, 403, 14),
    ActionHadNoEffect: ErrorCode("action_had_no_effect", 15, 409, 15),
    TargetNotFound: ErrorCode("target_not_found", 16, 404, 16),
    TargetAmbiguous: ErrorCode("target_ambiguous", 17, 409, 17),
    BadData: ErrorCode("bad_data", 18, 422, 18),
}
