"""Who may import whom: a stage knows the stages before it, never those after it, and never Dagster."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ml_pipeline

PACKAGE = Path(ml_pipeline.__file__).parent
SETTINGS = {"source_settings", "backend_settings", "judge_settings", "monitoring_settings", "suite_settings"}
ALWAYS = {"errors", "printable", "addresses", "yaml_file", "settings", "base_models", *SETTINGS}
# What everything comes through that others send.
OUTSIDE = {"http_bodies", "json_streams", "parquet_sizes"}
ALLOWED = {
    "errors": {"printable"},
    "printable": set(),
    "yaml_file": {"errors"},
    "settings": ALWAYS,
    "source_settings": {"addresses"},
    "backend_settings": {"source_settings"},
    "judge_settings": {"source_settings"},
    "monitoring_settings": {"source_settings"},
    "suite_settings": {"source_settings"},
    "base_models": ALWAYS,
    "settings_file": ALWAYS,
    "progress": {"printable"},
    "files": ALWAYS,
    "http_bodies": set(),
    "json_streams": set(),
    "parquet_sizes": set(),
    "addresses": set(),
    "markdown": {"printable"},
    "web_server": {"dagster_dev"},
    "dagster_dev": set(),
    "json_lines": {"errors", "files"},
    "checkpoints": {*ALWAYS, "files"},
    "adapters": {*ALWAYS, "files", "json_streams", "checkpoints"},
    "backends": {*ALWAYS, "files", *OUTSIDE, "checkpoints", "adapters"},
    "suites": {*ALWAYS, "files", *OUTSIDE},
    "scoring": {*ALWAYS, "backends", "suites"},
    "stores": {*ALWAYS, "files", *OUTSIDE, "suites", "scoring"},
    "alerts": {*ALWAYS, "files", *OUTSIDE, "markdown"},
    "training": {*ALWAYS, "files", "checkpoints", "stores"},
    "reports": {*ALWAYS, "files", "suites", "scoring", "stores"},
    "history": {*ALWAYS, "files", "json_lines", "json_streams", "checkpoints", "scoring", "stores"},
    "notebook": {*ALWAYS, "settings_file", "stores", "reports"},
    "exports": {*ALWAYS, "files", "suites", "scoring", "stores", "reports"},
    "responses": {*ALWAYS, "files", "json_lines", "checkpoints", "suites", "scoring", "stores", "evaluation"},
    "evaluation": {*ALWAYS, "files", "progress", "checkpoints", "adapters", "backends", "suites", "scoring", "stores"},
}
MAY_USE_DAGSTER = {
    "stores/io_managers.py",
    "stores/metadata.py",
    "resources.py",
    "definitions.py",
    "assets",
    "automation",
    "cli",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_stage_may(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    stage = relative.parts[0].removesuffix(".py")
    inside = {name.split(".")[1] for name in imported(path) if name.startswith("ml_pipeline.")}
    if stage in ALLOWED:
        assert inside <= ALLOWED[stage] | {stage}
    if stage != "cli":
        assert "cli" not in inside
        assert "definitions" not in inside
    if not {str(relative), stage, relative.parts[0]} & MAY_USE_DAGSTER:
        assert not {name for name in imported(path) if name.split(".")[0] == "dagster"}
    assert not {name for name in imported(path) if name.startswith("dagster._")}, "private parts of Dagster"
