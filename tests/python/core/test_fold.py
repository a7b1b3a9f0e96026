"""What a reply says so far. That it is what ai@7 shows is tested by ``property/test_fold_differential.py``."""

from __future__ import annotations

import json
from pathlib import Path
from timeit import default_timer
from typing import Any

import pytest

from strandline.core.message import FoldError, FoldState, fold
from strandline.core.unfold import unfold

GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("*.json"))
Chunk = dict[str, Any]


def c(kind: str, **fields: Any) -> Chunk:
    return {"type": kind, **fields}


def start(call: str = "c", **fields: Any) -> Chunk:
    return c("tool-input-start", toolCallId=call, toolName="search", **fields)


def available(call: str = "c", value: Any = None, **fields: Any) -> Chunk:
    return c("tool-input-available", toolCallId=call, toolName="search", input=value, **fields)


def delta(text: str, call: str = "c") -> Chunk:
    return c("tool-input-delta", toolCallId=call, inputTextDelta=text)


def output(value: Any = None, call: str = "c", **fields: Any) -> Chunk:
    return c("tool-output-available", toolCallId=call, output=value, **fields)


STEP = c("start-step")
TEXT = c("text-start", id="t")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_replies_fold_and_unfold_as_recorded(path: Path) -> None:
    golden = json.loads(path.read_text())
    state = fold(golden["chunks"])
    assert state.parts() == golden["shown"]["7"]
    assert unfold(state) == golden["unfolded"]


def test_an_empty_state_says_nothing() -> None:
    state = FoldState()
    assert (state.message_id, state.metadata, state.finish_reason) == (None, None, None)
    assert state.parts() == []
    assert not state.anything_open


def test_start_names_the_message_and_metadata_is_merged_deeply() -> None:
    state = fold(
        [
            c("start", messageId="m1", messageMetadata={"a": {"x": 1, "y": [1]}, "b": 1}),
            c("message-metadata", messageMetadata={"a": {"y": [2], "prototype": 1}, "c": None}),
            c("finish", finishReason="stop", messageMetadata={"b": {"z": 1}}),
            c("finish"),
        ]
    )
    assert state.message_id == "m1"
    assert state.metadata == {"a": {"x": 1, "y": [2]}, "b": {"z": 1}, "c": None}
    assert state.finish_reason == "stop"


def test_a_start_with_the_same_id_goes_on_and_with_another_begins_anew() -> None:
    state = fold([c("start", messageId="m1", messageMetadata={"a": 1}), STEP, TEXT, c("finish", finishReason="stop")])
    state.push(c("start", messageId="m1"))
    state.push(c("start"))
    assert len(state.parts()) == 2
    state.push(c("start", messageId="m2"))
    assert state == fold([c("start", messageId="m2")])


def test_the_end_of_a_run_changes_nothing_in_its_message() -> None:
    state = fold([TEXT])
    unknown = c("from-the-future")  # upstream passes it over, too
    for chunk in (c("abort", reason="user"), c("error", errorText="x"), c("data-x", data=1, transient=True), unknown):
        state.push(chunk)
    assert state == fold([TEXT])


def test_data_with_an_id_is_replaced_in_place_and_keeps_its_first_extras() -> None:
    state = fold([c("data-x", id="1", data=1, extra="first"), TEXT, c("data-x", id="1", data=2, extra="second")])
    assert state.parts()[0] == {"type": "data-x", "id": "1", "data": 2, "extra": "first"}
    assert len(state.parts()) == 2


def test_open_parts_unfinished_calls_and_the_step_can_be_asked_for() -> None:
    state = fold(
        [STEP, TEXT, c("reasoning-start", id="r"), start("c1"), available("c2"), available("c3"), output(1, "c3")]
    )
    assert (state.open_text, state.open_reasoning, state.step_open) == (["t"], ["r"], True)
    assert [tool.id for tool in state.unfinished_tools] == ["c1", "c2"]
    state.push(c("text-end", id="t"))
    state.push(c("finish-step"))
    assert (state.open_text, state.step_open) == ([], False)


def test_used_ids_include_closed_parts_but_not_those_that_were_taken_back() -> None:
    state = fold([TEXT, c("text-end", id="t"), STEP, c("reasoning-start", id="r")])
    assert set(state.used_ids()) == {"t", "r"}
    state.push(c("reset-step"))
    assert set(state.used_ids()) == {"t"}


def test_a_step_that_is_taken_back_frees_its_ids_and_calls() -> None:
    state = fold([available("c"), output(1), STEP, available("c"), TEXT, c("data-x", id="d", data=1), c("reset-step")])
    assert state == fold([available("c"), output(1), STEP])
    state.push(output(2))
    assert state.parts()[0]["output"] == 2
    with pytest.raises(FoldError):
        state.push(c("text-delta", id="t", delta="x"))


REFUSED_LIKE_UPSTREAM: list[tuple[list[Chunk], Chunk, str]] = [
    ([], c("text-delta", id="t", delta="x"), "text-delta for the unknown text part 't'"),
    ([TEXT, c("text-end", id="t")], c("text-delta", id="t", delta="x"), "closed text part 't'"),
    ([c("reasoning-start", id="t")], c("text-end", id="t"), "text-end for the closed text part"),
    ([TEXT], c("reasoning-delta", id="t", delta="x"), "reasoning-delta"),
    ([], c("reasoning-end", id="r"), "reasoning-end for the unknown reasoning part 'r'"),
    ([available()], delta("x", "other"), "tool-input-delta for the unknown tool call 'other'"),
    ([], output(), "tool-output-available for the unknown tool call 'c'"),
    ([], c("tool-output-error", toolCallId="c", errorText=""), "tool-output-error"),
    ([], c("tool-output-denied", toolCallId="c"), "tool-output-denied"),
    ([], c("tool-approval-request", toolCallId="c", approvalId="a"), "tool-approval-request"),
    ([available()], c("tool-approval-response", approvalId="a", approved=True), "unknown approval 'a'"),
]

ASK = c("tool-approval-request", toolCallId="c", approvalId="a")
REFUSED_BEYOND_UPSTREAM: list[tuple[list[Chunk], Chunk, str]] = [
    ([TEXT], TEXT, "which is open: send text-end first"),
    ([start(), delta("{}"), available()], delta("x"), "whose input is complete (input-available)"),
    ([start(), STEP], delta("x"), "an earlier step's tool call"),
    ([start(), STEP], start(), "which an earlier step left unfinished"),
    ([available(), STEP], available(), "which an earlier step left unfinished"),
    ([start(dynamic=True)], available(), "which began with dynamic: true"),
    ([start()], available(dynamic=True), "which began with dynamic: false"),
    ([available("c"), available("d"), ASK], {**ASK, "toolCallId": "d"}, "of another call"),
    (
        [available(), ASK, output(), STEP, available()],
        c("tool-approval-response", approvalId="a", approved=True),
        "which a later call with its id hides",
    ),
    ([TEXT, STEP], c("reset-step"), "text part 't' of an earlier step is open"),
    ([start(), STEP], c("reset-step"), "input of tool call 'c' of an earlier step is open"),
    ([c("start", messageMetadata="text")], c("message-metadata", messageMetadata={}), "when it is an object"),
    ([c("start", messageMetadata={})], c("finish", finishReason="stop", messageMetadata=[1]), "when it is an object"),
]


@pytest.mark.parametrize(("before", "chunk", "text"), REFUSED_LIKE_UPSTREAM + REFUSED_BEYOND_UPSTREAM)
def test_a_chunk_that_does_not_fit_is_refused_and_changes_nothing(before: list[Chunk], chunk: Chunk, text: str) -> None:
    state = fold(before)
    with pytest.raises(FoldError) as refusal:
        state.push(chunk)
    assert text in str(refusal.value)
    assert state == fold(before)


def test_a_call_id_may_come_back_in_a_later_step_once_the_call_is_finished() -> None:
    state = fold([available(value=1), output("first"), STEP, available(value=2), output("second")])
    assert [part.get("output") for part in state.parts()] == ["first", None, "second"]


def test_the_input_shows_while_it_streams() -> None:
    state = fold([start(title="Search"), delta('{"q": "se'), delta('a", "n": 1')])
    assert state.parts() == [
        {
            "type": "tool-search",
            "toolCallId": "c",
            "state": "input-streaming",
            "title": "Search",
            "input": {"q": "sea", "n": 1},
            "rawInput": '{"q": "sea", "n": 1',
        }
    ]
    assert "input" not in fold([start()]).parts()[0]
    assert fold([start(inputEncoding="text"), delta('{"a')]).parts()[0]["input"] == '{"a'


def test_what_was_set_on_a_call_stays_until_it_is_set_again() -> None:
    state = fold(
        [
            start(title="T", providerExecuted=True, providerMetadata={"p": {"a": 1}}),
            available(value={"q": 1}),
            output("o", preliminary=True, providerMetadata={"p": {"b": 1}}),
            output("o2"),
        ]
    )
    assert state.parts() == [
        {
            "type": "tool-search",
            "toolCallId": "c",
            "state": "output-available",
            "title": "T",
            "providerExecuted": True,
            "callProviderMetadata": {"p": {"a": 1}},
            "input": {"q": 1},
            "output": "o2",
            "resultProviderMetadata": {"p": {"b": 1}},
        }
    ]


def test_a_fork_goes_its_own_way() -> None:
    state = fold([TEXT, c("text-delta", id="t", delta="a"), start(), delta("{"), c("data-x", id="1", data=1), STEP])
    fork = state.fork()
    assert fork == state
    for chunk in (
        c("text-delta", id="t", delta="b", providerMetadata={"p": {}}),
        c("data-x", id="1", data=2),
        output(call="c"),
        c("finish-step"),
    ):
        fork.push(chunk)
    assert state == fold(
        [TEXT, c("text-delta", id="t", delta="a"), start(), delta("{"), c("data-x", id="1", data=1), STEP]
    )
    assert fork.parts()[0] == {"type": "text", "text": "ab", "state": "streaming", "providerMetadata": {"p": {}}}


def test_a_step_without_parts_can_be_taken_back() -> None:
    assert fold([c("reset-step")]) == fold([])


def test_an_approval_is_asked_for_and_answered() -> None:
    ask = c(
        "tool-approval-request",
        toolCallId="c",
        approvalId="a",
        approvalDescriptor={"risk": 1},
        inputSchemaInput=None,
        reason="why",
        isAutomatic=True,
        signature="s",
    )
    answer = c("tool-approval-response", approvalId="a", approved=False, reason="no", providerExecuted=True)
    state = fold([available(), ask])
    asked = {
        "id": "a",
        "descriptor": {"risk": 1},
        "inputSchemaInput": None,
        "requestReason": "why",
        "isAutomatic": True,
        "signature": "s",
    }
    assert (state.parts()[0]["state"], state.parts()[0]["approval"]) == ("approval-requested", asked)
    state.push(answer)
    part = state.parts()[0]
    assert (part["state"], part["providerExecuted"]) == ("approval-responded", True)
    assert part["approval"] == {**asked, "approved": False, "reason": "no"}
    assert [tool.id for tool in state.unfinished_tools] == ["c"]
    assert fold(unfold(state)) == state


def test_equal_states_are_those_that_later_chunks_cannot_tell_apart() -> None:
    assert fold([TEXT]) != fold([c("text-start", id="other")])
    assert fold([start(), delta('{"a":1}')]) != fold([start(), delta('{"a": 1}')])
    assert fold([c("data-x", data=1, id="1")]) != fold([c("data-x", data=1)])
    assert fold([TEXT, c("text-delta", id="t", delta="ab")]) == fold(
        [TEXT, c("text-delta", id="t", delta="a"), c("text-delta", id="t", delta="b"), c("abort")]
    )
    assert fold([]) != "something else"
    assert "parts=[]" in repr(fold([]))


@pytest.mark.parametrize(
    ("opening", "one"),
    [
        (TEXT, c("text-delta", id="t", delta="word ")),
        (c("reasoning-start", id="t"), c("reasoning-delta", id="t", delta="word ")),
        (start(), delta("word ")),
    ],
    ids=["text", "reasoning", "tool input"],
)
def test_a_delta_costs_the_same_however_long_the_part_is(opening: Chunk, one: Chunk) -> None:
    def seconds_for(count: int, state: FoldState) -> float:
        begin = default_timer()
        for _ in range(count):
            state.push(one)
        return default_timer() - begin

    state = fold([opening])
    early = min(seconds_for(2_000, state) for _ in range(5))
    seconds_for(400_000, state)
    late = min(seconds_for(2_000, state) for _ in range(5))
    assert late < early * 10
