"""Everything that can go wrong, as one tree.

::

    StrandlineError                    code, status, and a detail that says what to do
    ├── BadRequest                     400 the request cannot be read
    │   ├── BodyTooLarge               413
    │   └── UnsupportedMediaType       415
    ├── Unprocessable                  422 readable, but not something that can be done
    ├── Unauthorized                   401
    ├── Forbidden                      403
    ├── NotFound                       404 unknown, or somebody else's: they look alike
    ├── Conflict                       409 the store has decided otherwise
    │   ├── AlreadyDecided             409 with the decision that was recorded
    │   ├── Busy                       409 a reply is being written, and the policy is to refuse
    │   └── ContinuationUnsupported    409
    ├── TooMany                        429 a limit was reached
    ├── Unavailable                    503 try again
    │   ├── ShuttingDown
    │   ├── StoreUnavailable           the store cannot commit just now; nothing was lost
    │   ├── NotStored                  the store refuses this, and nothing of it was stored
    │   └── NotStarted                 mounted without its lifespan
    ├── StoreRefused                   the database file cannot be used: what to do is in the message
    │   ├── StoreInUse                 another process serves this file
    │   ├── StoreTooNew                written by a newer Strandline
    │   └── StoreDamaged               not a Strandline database, or a corrupted one
    ├── ChunkRefused                   raised in the agent: this chunk would break every client
    ├── RunOver                        raised in the agent: the run has ended, nothing more can be added
    ├── ProducerFailed                 raised in the agent: the stream that it passes on failed or was cut
    └── Misconfigured                  the application was put together wrongly

Each class has a stable ``code`` (``type`` of the problem document, PROTOCOL §10) and an HTTP ``status``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class StrandlineError(Exception):
    """Base class. Raise a subclass; the message is shown to the caller."""

    code: str = "internal"
    status: int = 500
    title: str = "Something went wrong in the server"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        retry_after: float | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """``members``: what the problem document says besides, for programs."""
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.members = dict(members or {})
        if code is not None:
            self.code = code


class BadRequest(StrandlineError):
    """The request cannot be read."""

    code, status, title = "bad-request", 400, "The request cannot be read"


class BodyTooLarge(BadRequest):
    """The request body is larger than the limit."""

    code, status, title = "body-too-large", 413, "The request body is too large"


class UnsupportedMediaType(BadRequest):
    """The request body is not called JSON."""

    code, status, title = "unsupported-media-type", 415, "The request body must be JSON"


class Unprocessable(StrandlineError):
    """The request was read, but it asks for something that cannot be done."""

    code, status, title = "unprocessable", 422, "The request cannot be carried out as it is"


class Unauthorized(StrandlineError):
    """The caller did not say, or could not prove, who they are. ``challenge`` is sent as WWW-Authenticate."""

    code, status, title = "unauthorized", 401, "Who are you?"

    def __init__(
        self, detail: str, *, code: str | None = None, retry_after: float | None = None, challenge: str = "Bearer"
    ) -> None:
        super().__init__(detail, code=code, retry_after=retry_after)
        self.challenge = challenge


class Forbidden(StrandlineError):
    """The caller may not do this."""

    code, status, title = "forbidden", 403, "You may not do this"


class NotFound(StrandlineError):
    """No such thing, or it belongs to somebody else: the two look alike."""

    code, status, title = "not-found", 404, "There is no such thing here"


class Conflict(StrandlineError):
    """The store has already decided otherwise."""

    code, status, title = "conflict", 409, "This contradicts what is already recorded"


class AlreadyDecided(Conflict):
    """Somebody else has decided, or nobody in time. The problem document has what was recorded (PROTOCOL §15.4)."""

    code, title = "already-decided", "This was decided already"

    def __init__(self, detail: str, *, decision: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail, members=None if decision is None else {"decision": decision})


class ContinuationUnsupported(Conflict):
    """The end of a conversation that is not one of the forms in which a reply can be continued."""

    code, title = "continuation-unsupported", "A reply cannot be continued like this"


class Busy(Conflict):
    """A reply is being written and the message may not interrupt it, wait or be told to it. ``run`` is that reply's, as
    history answers tell it."""

    code, title = "busy", "A reply is being written"

    def __init__(self, detail: str, run: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail, members=None if run is None else {"activeRun": run})


class TooMany(StrandlineError):
    """A limit was reached."""

    code, status, title = "too-many", 429, "Too many"


class Unavailable(StrandlineError):
    """Not now; the same request may be sent again."""

    code, status, title = "unavailable", 503, "Not available just now"

    def __init__(self, detail: str, *, code: str | None = None, retry_after: float | None = 1.0) -> None:
        super().__init__(detail, code=code, retry_after=retry_after)


class ShuttingDown(Unavailable):
    """The server is shutting down and takes no new runs."""

    code, title = "shutting-down", "The server is shutting down"


class StoreUnavailable(Unavailable):
    """The store cannot commit just now. Nothing that was acknowledged is lost."""

    code, title = "store-unavailable", "The store cannot be written just now"


class NotStored(Unavailable):
    """The store takes what others say, but refuses this: a defect. Nothing of it was stored."""

    code, title = "not-stored", "The store has refused this"


class NotStarted(Unavailable):
    """Strandline was mounted without its lifespan, so nothing runs."""

    code, title = "not-started", "Strandline is not running in this application"


class StoreRefused(StrandlineError):
    """The database file cannot be used as it is."""

    code, title = "store-refused", "The database file cannot be used"


class StoreInUse(StoreRefused):
    """Another process serves this database file."""

    code, title = "store-in-use", "Another process serves this database file"


class StoreTooNew(StoreRefused):
    """The database file was written by a newer version of Strandline."""

    code, title = "store-too-new", "The database file is from a newer version"


class StoreDamaged(StoreRefused):
    """The file is not a Strandline database, or it is corrupted."""

    code, title = "store-damaged", "The file is not a usable Strandline database"


class ChunkRefused(StrandlineError, ValueError):
    """Raised in the agent: this chunk would break every client that reads it."""

    code, title = "chunk-refused", "This chunk cannot be added to the message"


class RunOver(StrandlineError):
    """Raised in the agent: the run has ended (stopped, superseded, deadline), nothing more can be added."""

    code, title = "run-over", "The run has ended"


class PublicError(Exception):
    """Raise this in an agent to fail the run with a text that the user may read. If it is raised ``from`` another
    exception, that one goes to the log."""


class ProducerFailed(StrandlineError):
    """Raised in the agent: the stream that it passes on was refused, cut, or cannot be read. Not shown to users."""

    code, title = "producer-failed", "The producer of the reply failed"


class Misconfigured(StrandlineError):
    """The application was put together wrongly; the message says how to mend it."""

    code, title = "misconfigured", "The application is not set up correctly"
