"""Everything that can be tuned, in one frozen object.

Each field says what it is, in which unit, between which bounds, and which environment variable sets it. Nothing here
is needed to get started. ``docs/settings.md`` is rendered from this file; a test keeps the two equal.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from strandline.errors import Misconfigured

PREFIX = "STRANDLINE_"

AiSdkVersion = Literal[5, 6, 7]
Durability = Literal["full", "normal"]
Collector = Literal["calm", "untouched"]
Submit = Literal["interrupt", "queue", "reject", "steer", "concurrent"]


def _seconds(default: float, low: float, high: float, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"unit": "s", "bounds": (low, high), "text": text})


def _count(default: int, low: int, high: int, text: str, unit: str) -> Any:
    return dataclasses.field(default=default, metadata={"unit": unit, "bounds": (low, high), "text": text})


def _bytes(default: int, low: int, high: int, text: str) -> Any:
    return _count(default, low, high, text, "bytes")


@dataclass(frozen=True, slots=True)
class Settings:
    """The limits and the timing of one Strandline. Immutable and hashable; raises Misconfigured naming the field."""

    heartbeat: float = _seconds(
        15.0, 0.01, 300.0, "How often an idle stream sends a comment, so that proxies and clients see it is alive."
    )
    first_window: float = _seconds(
        0.005, 0.0, 1.0, "Group commit: how long the writer collects before it commits when little is going on."
    )
    max_window: float = _seconds(
        0.05, 0.0, 1.0, "Group commit: how long the writer collects under load. At least `first_window`."
    )
    run_deadline: float = _seconds(
        3600.0, 0.01, 604800.0, "Longest wall time of one run. A run that is older ends as failed."
    )
    max_attempts: int = _count(
        3,
        1,
        1000,
        "How often an agent with `recover` is called for one run, the first time included. Then the run ends as lost.",
        "attempts",
    )
    shutdown_grace: float = _seconds(
        10.0,
        0.0,
        600.0,
        "How long runs may go on after the exit signal. Then they end as lost (or are left to the next process, with"
        " `recover`) and streams close.",
    )
    commit_patience: float = _seconds(
        10.0, 0.0, 600.0, "How long a commit that fails is tried again before the runs that wait for it are cancelled."
    )
    pending_limit: int = _bytes(
        262144, 1, 67108864, "A run with more than this uncommitted waits for a commit (backpressure of the store)."
    )
    delta_limit: int = _bytes(65536, 16, 16777216, "A text delta longer than this is split. At most `chunk_limit`.")
    message_limit: int = _bytes(
        67108864, 1, 536870912, "Longest reply, all of its chunks together. A run that says more fails."
    )
    max_waiting: int = _count(
        64, 1, 100000, "Requests of one session that may wait for the store. More are answered 503.", "requests"
    )
    chunk_limit: int = _bytes(
        1048576, 256, 67108864, "Any other chunk larger than this is refused, in the agent that yields it."
    )
    commit_limit: int = _bytes(1048576, 256, 268435456, "Most that one commit takes, round-robin over the runs.")
    yield_every: int = _count(
        64, 1, 65536, "A run lets the event loop go on after this many chunks, also when it never waits.", "chunks"
    )
    tail_limit: int = _bytes(
        1048576,
        0,
        268435456,
        "Memory for the recent events of one session that are in segments already. A reader further behind is served"
        " from the store.",
    )
    segment_age: float = _seconds(
        10.0, 0.01, 3600.0, "Events older than this are moved from the journal into a compressed segment."
    )
    log_retention: float = _seconds(
        86400.0,
        1.0,
        315360000.0,
        "How long segments are kept. A cursor into an older log gets the full state; the messages themselves stay.",
    )
    session_idle: float = _seconds(
        60.0, 0.0, 86400.0, "A session with no run and no reader leaves memory after this time."
    )
    max_annotations: int = _count(
        500, 1, 100000, "Most annotations of one message. One more is answered 429.", "annotations"
    )
    max_body: int = _bytes(4194304, 64, 1073741824, "Largest request body. A larger one is answered 413.")
    max_sessions_listed: int = _count(200, 1, 10000, "Most sessions in one answer of the session list.", "sessions")
    max_readers_per_session: int = _count(
        64, 1, 100000, "Most connections that may read one session at a time. One more is answered 429.", "readers"
    )
    max_readers: int = _count(
        10000, 1, 1000000, "Most connections that may read at a time, all sessions together. One more: 429.", "readers"
    )
    reader_memory: float = _seconds(
        300.0,
        0.0,
        86400.0,
        "How long a reader that has left is still listed, as not connected. At most 64 of a session, the newest.",
    )
    max_stream_age: float = _seconds(
        3600.0,
        0.0,
        604800.0,
        "How long one response may stream. Then it ends without terminal frame and the client resumes; never that of a"
        " stock AI SDK client. 0: for ever.",
    )
    send_timeout: float = _seconds(
        30.0, 0.01, 3600.0, "A reader whose write does not finish in this time is dropped; it can resume."
    )
    stop_memory: float = _seconds(
        60.0, 0.0, 3600.0, "How long a stop is remembered that names a message which has not arrived yet."
    )
    stop_memory_limit: int = _count(
        1000, 0, 1000000, "Most such stops remembered at a time; the oldest is forgotten first.", "stops"
    )
    claim_timeout: float = _seconds(
        30.0, 0.01, 86400.0, "How long a run waits for a remote agent to take it. Then it fails with `no-agent`."
    )
    decided_timeout: float = _seconds(
        86400.0,
        0.01,
        2592000.0,
        "The same for a run that goes on from what was decided: whoever has approved something is not told a moment"
        " later that nobody was there. `run_deadline` begins when the run is taken.",
    )
    owed_for: float = _seconds(
        30.0,
        0.0,
        3600.0,
        "After a history answer that left out the message of an active run, how long the next resume without a"
        " cursor replays it whole even if the run has ended since.",
    )
    ai_sdk_version: AiSdkVersion = dataclasses.field(
        default=7,
        metadata={
            "choices": (5, 6, 7),
            "text": "Major version of `ai` assumed for clients that do not send `Strandline-Client`.",
        },
    )
    durability: Durability = dataclasses.field(
        default="full",
        metadata={
            "choices": ("full", "normal"),
            "text": "`full`: an event is on disk (fsync) before it is shown. `normal`: it survives a crash of the"
            " process, but the last moments may be lost with the power.",
        },
    )
    collector: Collector = dataclasses.field(
        default="calm",
        metadata={
            "choices": ("calm", "untouched"),
            "text": "Python's garbage collector. `calm`: while the service runs it comes more rarely and leaves out"
            " what was loaded before; else it stops everything for tens of milliseconds several times a second under"
            " load. Thresholds that the application has set are kept. `untouched`: as it is.",
        },
    )
    lock_wait: float = _seconds(
        5.0, 0.0, 600.0, "How long a start waits for another process to let go of the database file."
    )
    max_active_runs: int = _count(
        1000, 1, 100000, "Most runs that may be active at a time. One more is answered 429.", "runs"
    )

    submit: Submit = dataclasses.field(
        default="interrupt",
        metadata={
            "choices": ("interrupt", "queue", "reject", "steer", "concurrent"),
            "text": "What happens to a message that comes while a reply is being written, where neither the message nor"
            " its session says.",
        },
    )
    max_queued: int = _count(
        20, 1, 10000, "Most runs of one session that may wait for their turn. One more is answered 429.", "runs"
    )
    max_concurrent: int = _count(
        16, 1, 10000, "Most runs of one session that may be running at a time. One more is answered 429.", "runs"
    )
    notes_limit: int = _bytes(
        8388608,
        256,
        268435456,
        "Most that one running agent may have been told and not taken, with what came along; at most 100 notes. One"
        " more is answered 429; a single one may be longer.",
    )
    max_decisions: int = _count(
        100,
        1,
        10000,
        "Most decisions that one session may wait for. To ask for one more raises in the agent, and a run that leaves"
        " more fails with `too-many-decisions`.",
        "decisions",
    )
    decisions_limit: int = _bytes(
        8388608,
        256,
        268435456,
        "Longest inputs of the calls that one session waits for, together. A run that leaves more fails likewise; a"
        " single call may be longer.",
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _checked(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if self.max_window < self.first_window:
            raise Misconfigured(
                f"max_window must be at least first_window ({self.first_window:g} s), not {self.max_window:g}"
            )
        if self.delta_limit > self.chunk_limit:
            raise Misconfigured(
                f"delta_limit must be at most chunk_limit ({self.chunk_limit} bytes), not {self.delta_limit}"
            )

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Read ``STRANDLINE_<FIELD>`` (default: from os.environ); ``overrides`` win. An empty value counts as unset.

        Raises Misconfigured naming the variable.
        """
        source = os.environ if env is None else env
        found: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = source.get(variable(field.name), "").strip()
            if text and field.name not in overrides:
                try:
                    found[field.name] = _checked(field, _parsed(field, text))
                except Misconfigured as error:
                    raise Misconfigured(f"environment variable {variable(field.name)}: {error.detail}") from None
        try:
            return cls(**found, **overrides)
        except Misconfigured as error:
            if not found:
                raise
            names = ", ".join(map(variable, found))
            raise Misconfigured(f"{error.detail} (set by the environment: {names})") from None


def variable(name: str) -> str:
    """The environment variable that sets the field ``name``."""
    return PREFIX + name.upper()


def rows() -> Iterator[tuple[str, str, str, str, str]]:
    """(name, environment variable, default with its unit, bounds, text) of every field, as the docs show them."""
    for field in dataclasses.fields(Settings):
        unit = field.metadata.get("unit", "")
        default = f"{_shown(field.default)} {unit}".rstrip()
        yield field.name, variable(field.name), default, _bounds(field), field.metadata["text"]


def table() -> str:
    """The Markdown table of docs/settings.md."""
    lines = ["| setting | environment | default | bounds | what it does |", "|---|---|---|---|---|"]
    for name, env, default, bounds, text in rows():
        lines.append(f"| `{name}` | `{env}` | {default} | {bounds} | {text} |")
    return "\n".join(lines) + "\n"


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """The value in its proper type, or Misconfigured. A bool is an int to Python, but never a meant number here."""
    choices = field.metadata.get("choices")
    if choices is not None:
        if isinstance(value, bool) or value not in choices:
            raise Misconfigured(f"{field.name} must be {_bounds(field)}, not {value!r}")
        return choices[choices.index(value)]
    low, high = field.metadata["bounds"]
    timed = field.metadata["unit"] == "s"
    number = isinstance(value, int | float if timed else int) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # NaN compares false with everything
        unit = "seconds" if timed else field.metadata["unit"]
        raise Misconfigured(f"{field.name} must be {_bounds(field)} {unit}, not {value!r}")
    return float(value) if timed else value


def _parsed(field: dataclasses.Field[Any], text: str) -> Any:
    """What the text of an environment variable means; the text itself where it means nothing."""
    if isinstance(field.default, str):
        return text
    try:
        return float(text) if isinstance(field.default, float) else int(text)
    except ValueError:
        return text


def _bounds(field: dataclasses.Field[Any]) -> str:
    choices = field.metadata.get("choices")
    if choices is not None:
        return " or ".join(map(str, choices))
    low, high = field.metadata["bounds"]
    return f"{_shown(low)} to {_shown(high)}"


def _shown(number: Any) -> str:
    """Plain digits: `1e+06` and `315360000.0` are hard to read."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)
