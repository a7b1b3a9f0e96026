"""Help and docs/cli.md: neither may lag behind the commands (STYLE §1.2.14)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from strandline.cli import exits
from strandline.cli.arguments import parser

DOCS = (Path(__file__).parents[3] / "docs" / "cli.md").read_text("utf-8")


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = [each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(found.choices)


def flags(made: argparse.ArgumentParser) -> Iterator[str]:
    for action in made._actions:
        yield from (each for each in action.option_strings if each.startswith("--") and each != "--help")
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            yield str(action.metavar)


def section(name: str) -> str:
    match = re.search(rf"^## `strandline {re.escape(name)}`\n(.*?)(?=^## |\Z)", DOCS, re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/cli.md has no section about {name}"
    return match[1]


@pytest.mark.parametrize("name", commands())
def test_every_command_and_flag_is_documented(name: str) -> None:
    text = section(name)
    for flag in flags(commands()[name]):
        if flag != "--debug":
            assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), f"{name} {flag} is not in docs/cli.md"
    assert f"[`{name}`](#strandline-{name})" in DOCS


@pytest.mark.parametrize("name", commands())
def test_nothing_is_documented_that_does_not_exist(name: str) -> None:
    usage = section(name).split("```")[1]
    assert set(re.findall(r"--[a-z-]+", usage)) == {
        each for each in flags(commands()[name]) if each.startswith("--")
    } - {"--debug"}


def test_general_flags_and_exit_codes_are_documented() -> None:
    for flag in flags(parser()):
        assert f"`{flag}`" in DOCS or f"strandline {flag}" in DOCS
    for code, meaning in exits.MEANINGS.items():
        assert f"| {code} | {meaning}" in DOCS


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for args in ([], *([name] for name in commands())):
        with pytest.raises(SystemExit) as caught:
            parser().parse_args([*args, "--help"])
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert "examples:\n  strandline" in out and "exit codes:\n  0 " in out
        assert max(map(len, out.splitlines())) <= 120


def test_every_flag_says_what_it_is() -> None:
    for name, made in commands().items():
        for action in made._actions:
            assert action.help, f"{name} {action.dest}"
