"""What the log says about a run, an outage and a shutdown, and what it must never say."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from rig import Rig, running
from strandline import PublicError, Run
from strandline.http.auth import Auth, Identity
from strandline.testing import until

SECRET = "swordfish"


def lines(caplog: pytest.LogCaptureFixture, action: str | None = None) -> list[dict[str, Any]]:
    """What a collector would get of our lines: the extras, and the message."""
    plain = set(vars(logging.makeLogRecord({})))
    found = [
        {name: value for name, value in vars(record).items() if name not in plain or name in ("levelname", "message")}
        for record in caplog.records
        if record.name.split(".")[0] == "strandline"
    ]
    return [line for line in found if action in (None, line["action"])]


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "strandline")


async def test_a_run_is_one_line_at_its_end_with_what_people_look_for(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    answer, call = await rig.begun()
    call.run.usage(input_tokens=3, output_tokens=5, model="m")
    await rig.clock.advance(2.5)
    call.finish()
    await answer.end()
    [started] = lines(caplog, "run-started")
    [ended] = lines(caplog, "run-ended")
    assert (started["levelname"], ended["levelname"]) == ("DEBUG", "INFO")
    assert started["run"] == ended["run"] == call.run.id
    assert (ended["session"], ended["status"], ended["reason"], ended["seconds"]) == (
        "c",
        "completed",
        "completed",
        2.5,
    )
    assert ended["usage"] == {"input_tokens": 3, "output_tokens": 5}


async def test_a_clock_that_was_set_back_does_not_make_a_run_end_before_it_began(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    answer, call = await rig.begun()
    rig.clock._start -= 3_600_000
    call.finish()
    await answer.end()
    assert lines(caplog, "run-ended")[0]["seconds"] == 0


@pytest.mark.parametrize(("said", "logged"), [(None, "user"), (SECRET, "other"), ("superseded", "superseded")])
async def test_the_reason_of_a_stop_is_logged_where_it_is_one_of_ours(
    rig: Rig, said: str | None, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.begun()
    await rig.stop("c", **({"reason": said} if said else {}))
    await until(lambda: lines(caplog, "run-ended"))
    assert (lines(caplog, "run-ended")[0]["status"], lines(caplog, "run-ended")[0]["reason"]) == ("stopped", logged)


async def test_nothing_that_anybody_wrote_or_is_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """At its most talkative, over everything that an ordinary day brings."""

    async def who() -> Identity:
        return Identity("ann", claims={"email": SECRET}, roles=frozenset({SECRET}))

    async with running(auth=Auth(who), log_retention=60.0) as rig:
        answer, call = await rig.begun("a", SECRET, id="a")
        call.say(f"{SECRET} ", {"type": "data-x", "data": SECRET})
        call.run.usage(note=SECRET, input_tokens=1)
        call.finish()
        await answer.end()
        answer, call = await rig.begun("b", SECRET, id="b", user=SECRET)
        await rig.stop("b", reason=SECRET)
        await answer.end()
        answer, call = await rig.begun("c", SECRET, id="c")
        call.fail(PublicError(f"Your {SECRET} is used up."))
        await answer.end()
        await rig.ask("PATCH", "/api/sessions/a", {"title": SECRET})
        await rig.ask("POST", "/api/chat", {"id": "a", "messages": [{"id": "x", "role": SECRET, "parts": []}]})
        await rig.ask("DELETE", "/api/sessions/a")
        answer, call = await rig.begun("d", SECRET, id="d")
        rig.store.fail()
        call.say(SECRET)
        for _ in range(15):
            await rig.clock.advance(1)
        rig.store.mend()
        await rig.clock.advance(3)
        await until(lambda: rig.chat.service.ready)
        await rig.go_cold("c")
        await rig.clock.jump(200)
        await rig.passing(lambda: lines(caplog, "log-expired"))
    seen = {line["action"] for line in lines(caplog)}
    assert seen >= {
        "started", "run-started", "run-ended", "agent-declined", "session-deleted", "commit-failed", "store-lost",
        "store-back", "log-expired", "drain-begun", "drain-ended", "stopped",
    }  # fmt: skip
    assert SECRET not in str(lines(caplog)) + caplog.text


async def test_a_commit_of_more_than_a_second_is_worth_a_line(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    answer, call = await rig.begun()
    for seconds in (0.9, 1.5):
        rig.store.hang()
        call.say(f"{seconds} ")
        await until(lambda: rig.store.attempts > len(rig.store.committed))
        await rig.clock.advance(seconds)
        rig.store.mend()
        await answer.until_text(f"{seconds} ")
    [slow] = lines(caplog, "commit-slow")
    assert (slow["seconds"], slow["levelname"]) == (1.5, "WARNING")
    assert slow["batch"] == rig.store.committed[-1].number


async def test_a_shutdown_says_who_is_waited_for_and_who_was_left(caplog: pytest.LogCaptureFixture) -> None:
    async with running(shutdown_grace=0.05) as rig:
        for name in ("a", "b", "c"):
            await rig.begun(name, id=name)
        draining = rig.chat.service.drain()
        await until(lambda: lines(caplog, "drain-begun"))
        rig.agent.calls[0].finish()
        await draining
    [begun], [ended] = lines(caplog, "drain-begun"), lines(caplog, "drain-ended")
    assert (begun["runs"], begun["grace"], ended["runs"]) == (3, 0.05, 2)
    assert [line["status"] for line in lines(caplog, "run-ended")] == ["completed", "lost", "lost"]
    assert [line["action"] for line in lines(caplog)][-2:] == ["drain-ended", "stopped"]


@pytest.mark.parametrize("public", [False, True])
async def test_an_agents_own_error_is_logged_with_its_traceback_and_ids(
    public: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def agent(run: Run) -> None:
        error = RuntimeError("the provider is away")
        if public:
            raise PublicError("Please come back tomorrow.") from error
        raise error

    async with running(agent=agent) as rig:
        await (await rig.post("c")).end()
    [failed] = lines(caplog, "agent-failed")
    assert (failed["session"], failed["levelname"]) == ("c", "ERROR")
    assert "the provider is away" in caplog.text


async def test_what_an_application_hangs_into_its_logging_cannot_stop_the_writer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise LookupError(record.action)  # type: ignore[attr-defined]

    broken = Broken()
    for name in ("runner", "session", "journal"):
        logger = logging.getLogger(f"strandline.{name}")
        monkeypatch.setattr(logger, "filters", [broken])
    commit = rig.store.inner.commit

    async def slow(batch: Any) -> None:
        await rig.clock.advance(1.5)
        await commit(batch)

    for number in (1, 2):
        answer, call = await rig.begun(id=f"u{number}")
        if number == 2:
            monkeypatch.setattr(rig.store.inner, "commit", slow)
        call.say("said").finish()
        await answer.end()
        assert answer.text == "said"
    assert (await rig.ask("DELETE", "/api/sessions/c")).status == 204
    assert rig.chat.service.ready
    assert {"run-started", "run-ended", "commit-slow", "session-deleted"} == {error.args[0] for error in raised}

    monkeypatch.undo()
    monkeypatch.setattr(logging.getLogger("strandline.journal"), "filters", [broken])
    answer, call = await rig.begun("d")
    rig.store.fail()
    call.say("never stored")
    await rig.passing(lambda: not rig.chat.service.ready)
    rig.store.mend()
    await rig.passing(lambda: rig.chat.service.ready)
    assert {"commit-failed", "store-lost", "store-back"} <= {error.args[0] for error in raised}
