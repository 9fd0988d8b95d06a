"""The README is true: its settings, tables, commands and pictures are those of the program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import click
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ml_pipeline.cli import main
from ml_pipeline.settings import Settings
from ml_pipeline.stores.migrations import HISTORY
from ml_pipeline.stores.tables import TABLES
from ml_pipeline.stores.views import VIEWS
from ml_pipeline.suites import load_suites

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def settings_table() -> str:
    """The README's table of settings, made from the settings themselves."""
    rows = dict.fromkeys(f"| `{name}` | {default} | {meaning} |" for name, default, meaning in _settings(Settings, ""))
    return "\n".join(["| setting | default | meaning |", "| --- | --- | --- |", *rows])


def _settings(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        # A section with a meaning of its own says there what it holds.
        place, inner = f"{prefix}{name}", [] if field.description else _sections(field.annotation)
        below = f"{place}.*." if get_origin(field.annotation) in (dict, tuple) else f"{place}."
        for section in inner:
            yield from _settings(section, below)
        if not inner:
            yield place, _default(field.get_default(call_default_factory=True)), field.description or ""


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a setting is, or is a list or table of; several where `type` chooses among them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (dict, tuple):
        return [found for inner in get_args(annotation) for found in _sections(inner)]
    if get_origin(annotation) is Annotated:
        return _sections(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        choices = [_sections(choice) for choice in get_args(annotation)]
        return [found for choice in choices for found in choice] if all(choices) else []
    return []


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "needed"
    if value is None or value in ("", {}, ()):
        return ""
    shown = json.dumps(value if isinstance(value, int | float | str | tuple) else str(value))
    return f"`{shown.strip(chr(34))}`"


def test_every_setting_is_in_the_readme() -> None:
    assert settings_table() in README


@pytest.mark.parametrize("name", [*TABLES, *(view.name for view in VIEWS), HISTORY])
def test_every_table_and_view_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README


def test_every_command_of_the_readme_exists_and_the_other_way_round() -> None:
    told = {match.split()[0] for match in re.findall(r"ml-pipeline ([a-z][a-z ]*)", README)}
    assert isinstance(main, click.Group)
    assert told == set(main.commands)
    for option in re.findall(r"`(--[a-z-]+)", README):
        assert any(option in parameter.opts for command in main.commands.values() for parameter in command.params)


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)\b`", README)) | {"demo", "test"} <= targets


def test_every_picture_and_path_exists() -> None:
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_the_number_of_probes_is_told_right() -> None:
    capability, content, made = load_suites(["capability", "content", "capability_templates"])
    assert f"({len(capability.probes)} probes in {len(capability.categories)} categories" in README
    assert f"({len(content.probes)} probes, judged)" in README
    assert f"({len(made.probes)} probes of {len({probe.template for probe in made.probes})} templates" in README


if __name__ == "__main__":
    print(settings_table())
