"""The pages in `docs`: what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SECURITY = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
THREATS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in SECURITY.partition("## Threat model")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| from", "| ---"))
]


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: f"{threat[0]}: {threat[1]}"[:60])
def test_every_threat_names_a_test_that_there_is(threat: list[str]) -> None:
    assert len(threat) == 4
    named = re.findall(r"`([^`]+\.py)`", threat[3])
    assert named
    for name in named:
        assert "def test_" in (TESTS / name).read_text(encoding="utf-8")


def test_the_readme_leads_to_the_pages() -> None:
    readme = (TESTS.parent / "README.md").read_text(encoding="utf-8")
    for page in (TESTS.parent / "docs").glob("*.md"):
        assert f"](docs/{page.name})" in readme


def test_the_page_on_security_says_what_the_program_does() -> None:
    from ml_pipeline.settings import Settings

    assert "shared_files" in Settings.model_fields
    for name in ("`shared_files: group`", "ML_PIPELINE__ALERTS__WEBHOOK", "data/dagster/home", "~/.cache/ml_pipeline"):
        assert name in SECURITY
