"""Settings: bounded, immutable, settable by environment, and documented."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from strandline.errors import Misconfigured
from strandline.settings import Settings, rows, table, variable

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
NUMBERS = [field for field in dataclasses.fields(Settings) if "bounds" in field.metadata]


def test_the_defaults_are_those_that_were_decided() -> None:
    assert dataclasses.asdict(Settings()) == {
        "heartbeat": 15.0,
        "first_window": 0.005,
        "max_window": 0.05,
        "run_deadline": 3600.0,
        "max_attempts": 3,
        "shutdown_grace": 10.0,
        "commit_patience": 10.0,
        "pending_limit": 262144,
        "delta_limit": 65536,
        "chunk_limit": 1048576,
        "message_limit": 67108864,
        "max_waiting": 64,
        "commit_limit": 1048576,
        "yield_every": 64,
        "tail_limit": 1048576,
        "segment_age": 10.0,
        "log_retention": 86400.0,
        "session_idle": 60.0,
        "max_annotations": 500,
        "max_body": 4194304,
        "max_sessions_listed": 200,
        "max_readers_per_session": 64,
        "max_readers": 10000,
        "reader_memory": 300.0,
        "max_stream_age": 3600.0,
        "send_timeout": 30.0,
        "stop_memory": 60.0,
        "stop_memory_limit": 1000,
        "claim_timeout": 30.0,
        "decided_timeout": 86400.0,
        "owed_for": 30.0,
        "ai_sdk_version": 7,
        "durability": "full",
        "collector": "calm",
        "lock_wait": 5.0,
        "max_active_runs": 1000,
        "submit": "interrupt",
        "max_queued": 20,
        "max_concurrent": 16,
        "notes_limit": 8_388_608,
        "max_decisions": 100,
        "decisions_limit": 8_388_608,
    }


def test_settings_never_change_and_can_be_a_key() -> None:
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.heartbeat = 1.0  # type: ignore[misc]
    assert {settings: 1}[Settings()] == 1
    assert dataclasses.replace(settings, heartbeat=1).heartbeat == 1.0


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_every_bound_is_inclusive_and_named_when_it_is_crossed(field: dataclasses.Field[Any]) -> None:
    low, high = field.metadata["bounds"]
    room: dict[str, Any] = {"max_window": {"first_window": 0.0}, "first_window": {"max_window": 1.0}}
    room |= {"chunk_limit": {"delta_limit": 16}, "delta_limit": {"chunk_limit": 67108864}}
    for value in (low, high):
        settings = Settings(**{field.name: value}, **room.get(field.name, {}))
        assert getattr(settings, field.name) == value
        assert type(getattr(settings, field.name)) is type(field.default)
    wrong: list[Any] = [low - 1, high + 1, float("nan"), float("inf"), True, None, "5"]
    for value in wrong:
        with pytest.raises(Misconfigured, match=rf"^{field.name} must be .* to .*, not {value!r}"):
            Settings(**{field.name: value})


def test_a_count_is_not_a_fraction() -> None:
    with pytest.raises(Misconfigured, match="max_body"):
        Settings(max_body=1000.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("ai_sdk_version", 4), ("ai_sdk_version", True), ("durability", "off")])
def test_a_choice_is_one_of_those_offered(name: str, value: Any) -> None:
    with pytest.raises(Misconfigured, match=rf"^{name} must be .* or .*, not {value!r}"):
        Settings(**{name: value})


def test_fields_that_depend_on_each_other_are_checked_together() -> None:
    with pytest.raises(Misconfigured, match=r"max_window must be at least first_window"):
        Settings(first_window=0.2)
    with pytest.raises(Misconfigured, match=r"delta_limit must be at most chunk_limit"):
        Settings(chunk_limit=1000)


def test_every_field_can_be_set_by_its_environment_variable() -> None:
    env = {variable(field.name): str(field.default) for field in dataclasses.fields(Settings)}
    assert Settings.from_env(env) == Settings()
    changed = Settings.from_env(
        {
            "STRANDLINE_HEARTBEAT": " 2.5 ",
            "STRANDLINE_MAX_BODY": "1000",
            "STRANDLINE_AI_SDK_VERSION": "5",
            "STRANDLINE_DURABILITY": "normal",
            "STRANDLINE_LOCK_WAIT": "",
            "STRANDLINE_UNRELATED": "x",
        }
    )
    assert changed == Settings(heartbeat=2.5, max_body=1000, ai_sdk_version=5, durability="normal")


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRANDLINE_OWED_FOR", "7")
    assert Settings.from_env().owed_for == 7.0


def test_what_the_code_says_wins_over_the_environment() -> None:
    assert Settings.from_env({"STRANDLINE_HEARTBEAT": "nonsense"}, heartbeat=3).heartbeat == 3.0
    with pytest.raises(TypeError):
        Settings.from_env({}, hearbeat=3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("STRANDLINE_HEARTBEAT", "soon"),
        ("STRANDLINE_HEARTBEAT", "nan"),
        ("STRANDLINE_HEARTBEAT", "0"),
        ("STRANDLINE_MAX_BODY", "4MiB"),
        ("STRANDLINE_MAX_BODY", "1e6"),
        ("STRANDLINE_AI_SDK_VERSION", "8"),
        ("STRANDLINE_AI_SDK_VERSION", "seven"),
        ("STRANDLINE_DURABILITY", "FULL"),
        ("STRANDLINE_FIRST_WINDOW", "0.5"),
    ],
)
def test_a_bad_environment_variable_is_named(name: str, text: str) -> None:
    with pytest.raises(Misconfigured, match=name):
        Settings.from_env({name: text})


def test_the_docs_have_the_table_as_it_is() -> None:
    assert table() in DOCS.read_text(encoding="utf-8"), "render it again with strandline.settings.table()"


def test_every_field_is_documented() -> None:
    described = {row[0]: row for row in rows()}
    assert list(described) == [field.name for field in dataclasses.fields(Settings)]
    for name, env, default, bounds, text in described.values():
        assert env == "STRANDLINE_" + name.upper()
        assert default
        assert bounds
        assert "|" not in text
        assert text.endswith(".")
