"""The docs cannot lag: what they name exists, and what exists is named."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import strandline
import strandline.errors as errors
from strandline.core.plain import KINDS
from strandline.http.auth import Action
from strandline.remote import RemoteRun
from strandline.settings import Settings, variable

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "python" / "strandline").rglob("*.py"))


def tree(cls: type[errors.StrandlineError]) -> list[type[errors.StrandlineError]]:
    return [cls, *(each for child in cls.__subclasses__() for each in tree(child))]


def codes_in_source() -> set[str]:
    found = {cls.code for cls in tree(errors.StrandlineError) if cls.__module__ == "strandline.errors"}
    for path in SOURCES:
        found |= set(re.findall(r'\bcode="([a-z-]+)"', path.read_text()))
        found |= set(re.findall(r'Refuse\(\s*"([a-z-]+)"', path.read_text()))
    return found


@pytest.mark.parametrize("code", sorted(codes_in_source()))
def test_every_error_code_is_documented(code: str) -> None:
    assert f"`{code}`" in (ROOT / "docs" / "errors.md").read_text()


def test_the_exception_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    defined = {cls.__name__ for cls in tree(errors.StrandlineError) if cls.__module__ == "strandline.errors"}
    assert drawn | {"StrandlineError"} == defined


WHERE = ("*.md", "docs/**/*.md", "examples/*.md", "examples/*/*.md", "js-adapter/*.md", "benchmarks/*.md")
PRODUCT = "".join(path.read_text() for path in SOURCES)
PAGES = [path for where in WHERE for path in sorted(ROOT.glob(where))]


def anchors(page: Path) -> set[str]:
    """Where a link into a page can lead: its headings, as GitHub names them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose, re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        found.add(next(each for n in range(99) if (each := f"{name}-{n}" if n else name) not in found))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_ours_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            to = page.parent / target if target else page
            assert to.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(to), f"{page.name} links to {target}#{anchor}"


CLAUSES = set(re.findall(r"^(?:## )?(\d+(?:\.\d+)?)\.? ", (ROOT / "PROTOCOL.md").read_text(), re.MULTILINE))
OURS = [*PAGES, *SOURCES, *ROOT.glob("js-adapter/src/*.ts")]


def test_every_clause_of_the_protocol_that_is_named_exists() -> None:
    for path in OURS:
        text = path.read_text()
        inside = path.suffix == ".md" and "decisions" not in path.parts
        named = re.findall(r"§(\d+(?:\.\d+)?)", text) if inside else re.findall(r"PROTOCOL §(\d+(?:\.\d+)?)", text)
        assert set(named) <= CLAUSES, path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    """The variables, what an agent calls, what an application calls, and files of the product."""
    text = page.read_text()
    code = PRODUCT + "".join(path.read_text() for path in page.parent.glob("*.ts"))
    variables = {variable(field.name) for field in dataclasses.fields(Settings)}
    assert {name for name in re.findall(r"STRANDLINE_[A-Z_]+", text) if name not in code} <= variables
    attributes = {*dir(strandline.Run), *dir(RemoteRun), *RemoteRun.__annotations__}
    assert set(re.findall(r"\brun\.([a-z_]+)\b", text)) <= attributes
    # Names without an underscore may be those of a chat in the browser.
    assert set(re.findall(r"\bchat\.([a-z]+_[a-z_]+)\b", text)) <= set(dir(strandline.Strandline))
    for path in re.findall(r"`((?:core|codecs|stores|runtime|agents|http|saying|cli)/[\w./]+)`", text):
        assert (ROOT / "python" / "strandline" / path).exists(), path


def test_every_tests_folder_that_the_guarantees_name_exists() -> None:
    for pattern in re.findall(r"`(tests/[\w./*-]+)`", (ROOT / "docs" / "guarantees.md").read_text()):
        assert list(ROOT.glob(pattern)), pattern


@pytest.mark.parametrize("decision", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda p: p.name)
def test_a_decision_has_a_number_and_a_status(decision: Path) -> None:
    text = decision.read_text()
    assert text.startswith(f"# {int(decision.name[:4])}. ")
    assert re.search(r"^Status: (accepted|superseded by \d+), \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)


def first_column(text: str) -> set[str]:
    """What the tables of a page have in backticks in their first columns."""
    return {
        name for line in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", line)
    }


def section(page: str, heading: str) -> str:
    """One section of a page, down to the next heading."""
    text = (ROOT / page).read_text()
    return re.split(r"^## ", text.split(f"## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_actions_of_a_policy_are_documented() -> None:
    assert first_column(section("docs/auth.md", "The actions")) == set(Action)


def test_every_event_that_a_reader_is_told_is_documented() -> None:
    told = set(KINDS) - {"erased"}  # comes as "resync"
    in_protocol = section("PROTOCOL.md", "8. Sessions (default prefix `/api/sessions`)")
    assert first_column(in_protocol) == told
    frames = {"snapshot", "resync", "session-deleted", "replaced", "readers", "position"}
    assert first_column(section("docs/sessions.md", "Follow")) - {"type"} == told | frames
