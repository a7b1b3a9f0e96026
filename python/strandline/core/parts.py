"""What a message is made of while it is being folded, and how each piece looks as a UIMessage part.

The pieces are mutable and belong to one ``FoldState``. The JSON values in them (inputs, outputs, data, metadata) are
those of the chunks themselves and are never changed in place, so copies may share them. A plain dict is a part that
looks exactly like the chunk that added it (files, sources, ``data-*``, …), and a step boundary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from strandline.core.chunks import CITATION, CITED_SOURCES, STEERING
from strandline.core.partial_json import ABSENT, parse_partial

UNFINISHED = frozenset({"input-streaming", "input-available", "approval-requested", "approval-responded"})

_CALL_FIELDS = ("title", "toolMetadata", "providerExecuted")
_RESULT_FIELDS = ("toolMetadata", "providerExecuted")
_REPLACED = ("input", "output", "errorText", "preliminary", "inputEncoding")


class FoldError(ValueError):
    """The chunk does not fit the message so far: an unknown or closed id, or an ambiguous one."""


class Text:
    """A text or reasoning part. Its text is a list of fragments, so that a delta costs the same at any length."""

    __slots__ = ("citations", "fragments", "id", "kind", "open", "provider_metadata")

    def __init__(self, kind: str, part_id: str) -> None:
        self.kind = kind
        self.id = part_id
        self.fragments: list[str] = []
        self.open = True
        self.provider_metadata: Any = None
        self.citations: list[dict[str, Any]] | None = None

    def text(self) -> str:
        return joined(self.fragments)

    def copy(self) -> Text:
        twin = Text(self.kind, self.id)
        text = self.text()
        twin.fragments = [text] if text else []
        twin.open = self.open
        twin.provider_metadata = self.provider_metadata
        twin.citations = self.citations
        return twin

    def close(self, chunk: Mapping[str, Any]) -> None:
        self.open = False
        if self.kind == "text" and "citations" in chunk:
            self.citations = [_cited(citation) for citation in chunk["citations"]]

    def shown(self) -> dict[str, Any]:
        part: dict[str, Any] = {"type": self.kind}
        if self.kind == "reasoning":
            part["id"] = self.id
        part["text"] = self.text()
        if self.provider_metadata is not None:
            part["providerMetadata"] = self.provider_metadata
        part["state"] = "streaming" if self.open else "done"
        if self.citations is not None:
            part["citations"] = self.citations
        return part

    def observable(self) -> tuple[Any, ...]:
        return (self.id, self.shown())


class Tool:
    """A tool part: the fields that it shows, and what is left of the input's raw text.

    ``base`` names the chunk that last replaced its content: ``input-streaming``, ``input-available``,
    ``input-error``, ``output-available`` or ``output-error``. Approvals and denials change only its state.
    While ``base`` is ``input-streaming`` the shown input is read off ``raw``, and only when somebody looks.
    """

    __slots__ = ("base", "dynamic", "fields", "id", "raw")

    def __init__(self, call_id: str, dynamic: bool) -> None:
        self.id = call_id
        self.dynamic = dynamic
        self.base = ""
        self.fields: dict[str, Any] = {"type": "dynamic-tool"} if dynamic else {}
        self.raw: list[str] | None = None

    @property
    def state(self) -> str:
        return str(self.fields["state"])

    @property
    def name(self) -> str:
        return str(self.fields["toolName"] if self.dynamic else self.fields["type"].removeprefix("tool-"))

    @property
    def finished(self) -> bool:
        """True when it has an output, an error or a denial: nothing has to follow."""
        return self.fields["state"] not in UNFINISHED

    @property
    def raw_text(self) -> str | None:
        return None if self.raw is None else joined(self.raw)

    def input(self) -> Any:
        """The input as far as it is known: ABSENT when there is none."""
        if self.base != "input-streaming":
            return self.fields.get("input", ABSENT)
        if self.raw is None:
            return ABSENT
        text = joined(self.raw)
        return text if self.fields.get("inputEncoding") == "text" else parse_partial(text)

    def copy(self) -> Tool:
        twin = Tool(self.id, self.dynamic)
        twin.base = self.base
        twin.fields = dict(self.fields)
        twin.raw = None if self.raw is None else [joined(self.raw)]
        return twin

    def call(self, base: str, chunk: Mapping[str, Any]) -> None:
        """Begin the input anew (``tool-input-start``, ``tool-input-available``)."""
        self._replace(base, base, chunk["toolName"])
        self._keep(chunk, _CALL_FIELDS, "callProviderMetadata")

    def refuse_input(self, chunk: Mapping[str, Any]) -> None:
        self._replace("input-error", "output-error", chunk["toolName"])
        self._keep(chunk, _RESULT_FIELDS, "resultProviderMetadata")
        self.fields["input"] = chunk["input"]
        self.fields["errorText"] = chunk["errorText"]

    def end(self, base: str, chunk: Mapping[str, Any]) -> None:
        """Take an output or an error; the input stays."""
        known = self.input()
        # Upstream keeps the raw text of a static tool's failed call, and of no other.
        raw = self.raw if base == "output-error" and not self.dynamic else None
        self._replace(base, base, self.name)
        self._keep(chunk, _RESULT_FIELDS, "resultProviderMetadata")
        self.raw = raw
        if known is not ABSENT:
            self.fields["input"] = known
        for key in ("errorText",) if base == "output-error" else ("output", "preliminary"):
            if key in chunk:
                self.fields[key] = chunk[key]

    def ask(self, chunk: Mapping[str, Any]) -> None:
        approval: dict[str, Any] = {"id": chunk["approvalId"]}
        if chunk.get("approvalDescriptor") is not None:
            approval["descriptor"] = chunk["approvalDescriptor"]
        if "inputSchemaInput" in chunk:
            approval["inputSchemaInput"] = chunk["inputSchemaInput"]
        if "reason" in chunk:
            approval["requestReason"] = chunk["reason"]
        if chunk.get("isAutomatic"):
            approval["isAutomatic"] = True
        if "signature" in chunk:
            approval["signature"] = chunk["signature"]
        self.fields["approval"] = approval
        self.fields["state"] = "approval-requested"

    def answer(self, chunk: Mapping[str, Any]) -> None:
        approval = {**self.fields["approval"], "approved": chunk["approved"]}
        if "reason" in chunk:
            approval["reason"] = chunk["reason"]
        self.fields["approval"] = approval
        self.fields["state"] = "approval-responded"
        self._keep(chunk, ("providerExecuted",), "callProviderMetadata")

    def deny(self) -> None:
        self.fields["state"] = "output-denied"

    def shown(self) -> dict[str, Any]:
        part = dict(self.fields)
        if self.base == "input-streaming":
            known = self.input()
            if known is not ABSENT:
                part["input"] = known
        if self.raw is not None:
            part["rawInput"] = joined(self.raw)
        return part

    def observable(self) -> tuple[Any, ...]:
        return (self.base, self.fields, self.raw_text)

    def _replace(self, base: str, state: str, name: str) -> None:
        fields = self.fields
        for key in _REPLACED:
            fields.pop(key, None)
        self.raw = None
        self.base = base
        if self.dynamic:
            fields["toolName"] = name
        else:
            fields["type"] = f"tool-{name}"
        fields["toolCallId"] = self.id
        fields["state"] = state

    def _keep(self, chunk: Mapping[str, Any], names: tuple[str, ...], metadata: str) -> None:
        """Take over the fields that, once set, stay until they are set again."""
        for name in names:
            if name in chunk:
                self.fields[name] = chunk[name]
        if "providerMetadata" in chunk:
            self.fields[metadata] = chunk["providerMetadata"]


Part = Text | Tool | dict[str, Any]


def notes_in(entries: Iterable[Part]) -> list[dict[str, Any]]:
    """What the agent was told and has taken, as parts and as chunks (they look the same)."""
    return [entry for entry in entries if isinstance(entry, dict) and entry["type"] == STEERING]


def is_step(entry: Part) -> bool:
    """True for a step boundary."""
    return isinstance(entry, dict) and entry["type"] == "step-start"


def joined(fragments: list[str]) -> str:
    """The whole text. The fragments are joined for good, so that looking often does not cost more each time."""
    if len(fragments) > 1:
        fragments[:] = ["".join(fragments)]
    return fragments[0] if fragments else ""


def _cited(citation: Mapping[str, Any]) -> dict[str, Any]:
    """A citation without unknown fields: the only place where the upstream schema drops them."""
    known = _known(citation, {**CITATION.required, **CITATION.optional})
    shape = CITED_SOURCES[citation["source"]["sourceType"]]
    known["source"] = _known(citation["source"], {**shape.required, **shape.optional})
    return known


def _known(value: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name in names}
