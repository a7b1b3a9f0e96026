"""Hypothesis strategies: chunks over the full vocabulary of ai@7, and lists of them that are valid replies.

Ids come from small pools, so that lists collide, reuse and reopen as real ones do when they go wrong.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from strandline.core.chunks import FINISH_REASONS, check
from strandline.core.message import FoldError, FoldState
from strandline.core.parts import Tool

# Derandomized: a run in CI tests the same lists every time; a longer search is a matter of raising max_examples.
BOUNDED = settings(
    derandomize=True,
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

Chunk = dict[str, Any]

_text = st.text(st.characters(codec="utf-8"), max_size=6)
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.sampled_from([0.5, -2.25, 1e30]), _text
)
_keys = st.sampled_from(["a", "b", "key", "ключ", 'qu"ote', "back\\slash", "constructor"])
values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3), max_leaves=6
).filter(lambda value: "prototype" not in json.dumps(value))
_objects = st.dictionaries(_keys, values, max_size=3)
_provider_metadata = st.dictionaries(st.sampled_from(["openai", "anthropic"]), _objects, max_size=2)

_part_ids = st.sampled_from(["p1", "p2", "p3"])
_call_ids = st.sampled_from(["c1", "c2", "c3"])
_approval_ids = st.sampled_from(["a1", "a2", "a3"])
_tool_names = st.sampled_from(["search", "get-weather", "run_code"])
_url = st.sampled_from(["https://example.org/a", "data:text/plain,hi"])
_short = st.sampled_from(["", "some text", "größer 😀"])


def _input_text() -> st.SearchStrategy[str]:
    """Pieces of JSON text, some cut anywhere, some broken."""
    whole = values.map(json.dumps) | _objects.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1))
    cut = st.tuples(whole, st.integers(0, 60)).map(lambda pair: pair[0][: pair[1]])
    return st.one_of(
        whole, cut, st.sampled_from(['{"a": tr', "[1, 2", '{"k": "v\\u00', "not json", "", '{"a":1,', "]"])
    )


def _chunk(kind: str, required: dict[str, Any] | None = None, **optional: Any) -> st.SearchStrategy[Chunk]:
    return st.fixed_dictionaries({"type": st.just(kind), **(required or {})}, optional=optional)


_url_source = st.fixed_dictionaries(
    {"type": st.just("source"), "sourceType": st.just("url"), "id": _part_ids, "url": _url},
    optional={"title": _short, "providerMetadata": _provider_metadata, "unknown": _short},
)
_document_source = st.fixed_dictionaries(
    {
        "type": st.just("source"),
        "sourceType": st.just("document"),
        "id": _part_ids,
        "mediaType": st.just("application/pdf"),
        "title": _short,
    },
    optional={"filename": _short},
)
_citation = st.fixed_dictionaries(
    {"source": _url_source | _document_source},
    optional={"startIndex": st.integers(0, 99), "endIndex": st.integers(0, 99), "citedText": _short, "more": values},
)
_steered = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": _short}, optional={"providerMetadata": _provider_metadata}),
    st.fixed_dictionaries(
        {"type": st.just("file"), "mediaType": st.just("image/png"), "url": _url},
        optional={"filename": _short, "providerReference": st.just({"openai": "file-1"})},
    ),
)

_pm = {"providerMetadata": _provider_metadata}
_dynamic = st.sampled_from([False, False, True])
_tool: dict[str, Any] = {"providerExecuted": st.booleans(), "toolMetadata": _objects, "dynamic": _dynamic, **_pm}
_call: dict[str, Any] = {"toolCallId": _call_ids, "toolName": _tool_names}
_file = {"url": _url, "mediaType": st.just("image/png")}

BY_TYPE: dict[str, st.SearchStrategy[Chunk]] = {
    "start": _chunk("start", {"messageId": st.just("m1")}, messageMetadata=_objects | st.none()),
    "finish": _chunk("finish", finishReason=st.sampled_from(FINISH_REASONS), messageMetadata=_objects),
    "abort": _chunk("abort", reason=_short),
    "error": _chunk("error", {"errorText": _short}),
    "message-metadata": _chunk("message-metadata", {"messageMetadata": _objects | st.none()}),
    "start-step": _chunk("start-step"),
    "finish-step": _chunk("finish-step"),
    "reset-step": _chunk("reset-step"),
    "text-start": _chunk("text-start", {"id": _part_ids}, **_pm),
    "text-delta": _chunk("text-delta", {"id": _part_ids, "delta": _text}, **_pm),
    "text-end": _chunk("text-end", {"id": _part_ids}, citations=st.lists(_citation, max_size=2), **_pm),
    "reasoning-start": _chunk("reasoning-start", {"id": _part_ids}, **_pm),
    "reasoning-delta": _chunk("reasoning-delta", {"id": _part_ids, "delta": _text}, **_pm),
    "reasoning-end": _chunk("reasoning-end", {"id": _part_ids}, **_pm),
    "source-url": _chunk("source-url", {"sourceId": _part_ids, "url": _url}, title=_short, **_pm),
    "source-document": _chunk(
        "source-document",
        {"sourceId": _part_ids, "mediaType": st.just("application/pdf"), "title": _short},
        filename=_short,
        **_pm,
    ),
    "file": _chunk("file", _file, **_pm),
    "reasoning-file": _chunk("reasoning-file", _file, **_pm),
    "custom": _chunk("custom", {"kind": st.just("openai.compaction")}, **_pm),
    "steering-message": _chunk("steering-message", {"id": _part_ids, "parts": st.lists(_steered, max_size=2)}),
    "tool-input-start": _chunk(
        "tool-input-start", _call, inputEncoding=st.sampled_from(["json", "text"]), title=_short, **_tool
    ),
    "tool-input-delta": _chunk("tool-input-delta", {"toolCallId": _call_ids, "inputTextDelta": _input_text()}),
    "tool-input-available": _chunk("tool-input-available", {**_call, "input": values}, title=_short, **_tool),
    "tool-input-error": _chunk(
        "tool-input-error", {**_call, "input": values, "errorText": _short}, title=_short, **_tool
    ),
    "tool-approval-request": _chunk(
        "tool-approval-request",
        {"approvalId": _approval_ids, "toolCallId": _call_ids},
        approvalDescriptor=values,
        inputSchemaInput=values,
        reason=_short,
        isAutomatic=st.booleans(),
        signature=_short,
    ),
    "tool-approval-response": _chunk(
        "tool-approval-response",
        {"approvalId": _approval_ids, "approved": st.booleans()},
        reason=_short,
        providerExecuted=st.booleans(),
        **_pm,
    ),
    "tool-output-available": _chunk(
        "tool-output-available", {"toolCallId": _call_ids, "output": values}, preliminary=st.booleans(), **_tool
    ),
    "tool-output-error": _chunk("tool-output-error", {"toolCallId": _call_ids, "errorText": _short}, **_tool),
    "tool-output-denied": _chunk("tool-output-denied", {"toolCallId": _call_ids}),
    "data-": st.fixed_dictionaries(
        {"type": st.sampled_from(["data-status", "data-"]), "data": values},
        optional={"id": _part_ids, "transient": st.booleans(), "extra": values},
    ),
}
"""One strategy per chunk type; ``data-`` stands for every ``data-*``."""

any_chunk = st.sampled_from(sorted(BY_TYPE)).flatmap(BY_TYPE.__getitem__)
any_chunks = st.lists(any_chunk, max_size=12)
"""Well-formed chunks in an order that mostly makes no sense."""


def _aimed(state: FoldState) -> list[tuple[str, dict[str, Any]]]:
    """Chunks that go on with what is open, each with the fields that make it fit. Replies are mostly made of them."""
    found: list[tuple[str, dict[str, Any]]] = [("start-step", {}), ("finish-step", {})]
    for family, open_ids in (("text", state.open_text), ("reasoning", state.open_reasoning)):
        found.append((f"{family}-start", {}))
        for part_id in open_ids:
            found += [(f"{family}-delta", {"id": part_id})] * 3 + [(f"{family}-end", {"id": part_id})]
    found += [("tool-input-start", {}), ("tool-input-available", {})]
    for tool in {part.id: part for part in state.entries if isinstance(part, Tool)}.values():
        call = {"toolCallId": tool.id}
        found += [(kind, call) for kind in ("tool-output-available", "tool-output-error", "tool-approval-request")]
        if state.in_current_step(tool):
            found += [
                (kind, {**call, "dynamic": tool.dynamic}) for kind in ("tool-input-available", "tool-input-start")
            ]
            if tool.state == "input-streaming":
                found += [("tool-input-delta", call)] * 4 + [("tool-input-error", call)]
        if "approval" in tool.fields:
            answer = ("tool-approval-response", {"approvalId": tool.fields["approval"]["id"]})
            found += [answer, answer, ("tool-output-denied", call)]
    return found


@st.composite
def chunk_lists(draw: st.DrawFn, max_size: int = 30) -> list[Chunk]:
    """The chunks of a reply: each passes ``check`` and fits what was said before it."""
    state = FoldState()
    chunks: list[Chunk] = []
    for index in range(draw(st.integers(0, max_size))):
        aimed = _aimed(state) if index else [("start", {})]
        kind, fields = draw(st.sampled_from(aimed)) if draw(st.integers(0, 3)) else (draw(st.sampled_from(_KINDS)), {})
        chunk = {**draw(BY_TYPE[kind]), **fields}
        check(chunk)
        try:
            state.push(chunk)
        except FoldError:
            continue
        chunks.append(chunk)
    return chunks


_KINDS = sorted(BY_TYPE)
