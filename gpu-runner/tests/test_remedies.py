"""What the runner tells people to set or to give exists."""

from __future__ import annotations

import argparse
import ast
import json
import re
from pathlib import Path
from typing import Any

from yaqa_runner.cli.main import COMMANDS
from yaqa_runner.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gpu-runner/yaqa_runner"
SECTIONS = set(json.loads((ROOT / "config/yaqa-bot.schema.json").read_text(encoding="utf-8"))["properties"])
DOTTED = re.compile(r"(?<![\w./@:$-])[a-z][A-Za-z]*(?:\.[a-z][A-Za-z]*)+(?![\w/(@:-])")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def texts() -> list[tuple[str, str]]:
    """Every text of several words in the package, docstrings aside, with its file."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
            if isinstance(text, str) and " " in text:
                found.append((path.relative_to(PACKAGE).as_posix(), text))
    return found


def setting_names(schema: dict[str, Any], prefix: str = "") -> set[str]:
    names: set[str] = set()
    items = [schema["items"]] if "items" in schema else []
    for part in [*schema.get("anyOf", []), *schema.get("oneOf", []), *items]:
        names |= setting_names(part, prefix)
    for key, value in schema.get("properties", {}).items():
        name = f"{prefix}.{key}" if prefix else key
        names |= {name} | setting_names(value, name)
    return names


def options(parser: argparse.ArgumentParser) -> set[str]:
    names: set[str] = set()
    for action in parser._actions:
        names |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                names |= options(inner)
    return names


def test_every_setting_that_a_message_names_is_in_the_schema() -> None:
    known = setting_names(json.loads((ROOT / "config/yaqa-bot.schema.json").read_text(encoding="utf-8")))
    assert "database.dataDirectory" in known
    wrong = [
        f"{path}: {name}"
        for path, text in texts()
        for name in DOTTED.findall(text)
        if name.partition(".")[0] in SECTIONS and name not in known
    ]
    assert wrong == []


def test_every_option_that_a_message_names_is_on_the_command_line() -> None:
    # torchrun's, and pip's in a file of requirements.
    known = options(build_parser(COMMANDS, "")) | {"--nproc-per-node", "--hash"}
    named = [(path, name) for path, text in texts() for name in OPTION.findall(text)]
    assert len(named) > 5
    assert [f"{path}: {name}" for path, name in named if name not in known] == []
