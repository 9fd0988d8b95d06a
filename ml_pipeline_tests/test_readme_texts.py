"""What the README shows is what the program takes and says: settings, and the words of error messages."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_pipeline.settings import Settings
from ml_pipeline_tests.test_readme import README, ROOT

SHIPPED = yaml.safe_load((ROOT / "pipeline.yaml").read_text(encoding="utf-8"))


def settings_blocks() -> list[dict[str, Any]]:
    """The README's indented blocks that hold settings."""
    blocks = re.findall(r"(?:^ {4,}\S.*\n)+", README, re.MULTILINE)
    found = []
    for block in blocks:
        text = textwrap.dedent(block)
        if re.match(r"[a-z_]+:\s", text) and text.split(":")[0] in Settings.model_fields:
            found.append(yaml.safe_load(text))
    return found


def messages() -> list[str]:
    """The messages that the section on troubleshooting explains."""
    section = README.partition("## Troubleshooting")[2].partition("\n## ")[0]
    return re.findall(r"^\| (?!message|---)([^|]+) \|", section, re.MULTILINE)


@pytest.mark.parametrize("block", settings_blocks(), ids=lambda block: "+".join(block))
def test_settings_shown_are_valid(block: dict[str, Any]) -> None:
    models = block.get("base_models", {})
    if "families" not in block:  # more models beside those that are there
        models = SHIPPED["base_models"] | models
    Settings.model_validate({**SHIPPED, **block, "base_models": models})


def test_there_are_such_blocks() -> None:
    assert len(settings_blocks()) >= 5


@pytest.mark.parametrize("message", messages())
def test_a_message_that_is_explained_is_one_of_the_program(message: str) -> None:
    # Sources break long messages into several literals.
    joint = re.compile(r'"\s*\n\s*f?"')
    sources = "".join(
        joint.sub("", path.read_text(encoding="utf-8")) for path in Path(ROOT, "ml_pipeline").rglob("*.py")
    )
    assert message in sources


def test_messages_are_explained() -> None:
    assert len(messages()) >= 10
