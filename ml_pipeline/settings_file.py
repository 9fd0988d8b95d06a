"""Reads pipeline.yaml and the environment into `Settings`, and reports every mistake at once, each with its place.

Paths in the file are relative to the file's own folder. Environment variables of the form
`ML_PIPELINE__<SECTION>__<FIELD>` (two underscores between levels) override the file: `ML_PIPELINE__BACKEND__THREADS=4`.
Their values are read as the file's are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ml_pipeline.addresses import shown_value
from ml_pipeline.errors import SettingsError
from ml_pipeline.settings import Settings, suggest
from ml_pipeline.yaml_file import YamlFile, read_yaml, read_yaml_text

CONFIG_ENV = "ML_PIPELINE_CONFIG"
ENV_PREFIX = "ML_PIPELINE__"
_TYPE_AT = {"sources": 2, "backend": 1, "backends": 2}
"""Where in a problem's place the `type` stands by which the kind of section was chosen."""

_HOLD_SECRETS = ("token_env", "api_key_env", "token_file", "user")
"""Settings into which people put the secret itself; `alerts` has the webhook, whose whole address is one."""


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read pipeline.yaml (or `path`, or $ML_PIPELINE_CONFIG) and the environment.

    Raises SettingsError with every mistake found and its place.
    """
    environ = os.environ if environ is None else environ
    path = (path or find_config(environ)).resolve()
    file = _read_settings(path)
    overridden = _override_all(file.content, environ)
    try:
        settings = Settings.model_validate({**file.content, "root": path.parent})
    except ValidationError as error:
        problems = [line for item in error.errors() for line in _problem_lines(dict(item))]
        raise SettingsError.from_problems(
            str(path),
            [f"{_place(problem, file, overridden)}{problem}" for problem in problems],
            "Mend these fields; README.md lists every setting.",
        ) from None
    return settings


def find_config(environ: Mapping[str, str]) -> Path:
    """The settings file: $ML_PIPELINE_CONFIG, else the nearest pipeline.yaml from the working folder upwards."""
    if chosen := environ.get(CONFIG_ENV):
        return Path(chosen)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pipeline.yaml").is_file():
            return folder / "pipeline.yaml"
    raise SettingsError(f"no pipeline.yaml in {here} or above it. Run from the project's folder or set {CONFIG_ENV}.")


def _read_settings(path: Path) -> YamlFile:
    if not path.exists():
        raise SettingsError(f"there is no settings file {path}. Set {CONFIG_ENV} or pass --config.")
    file = read_yaml(path, SettingsError)
    if not isinstance(file.content, dict):
        raise SettingsError(f"{path} must hold settings such as 'sources:'; it holds {type(file.content).__name__}.")
    return file


def _override_all(data: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Put the environment's values into `data`; returns the variables by the places that they are of."""
    overridden: dict[tuple[str, ...], str] = {}
    for name, value in sorted(environ.items()):
        if not name.upper().startswith(ENV_PREFIX):
            continue
        place = _override(data, name, value)
        if place in overridden:
            raise SettingsError(
                f"environment variables {overridden[place]} and {name} are the same setting. Unset one of them."
            )
        overridden[place] = name
    return overridden


def _override(data: dict[str, Any], name: str, value: str) -> tuple[str, ...]:
    *parents, last = name[len(ENV_PREFIX) :].lower().split("__")
    node, place = data, []
    for part in parents:
        place.append(key := _key(node, part))
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            raise SettingsError(f"environment variable {name}: {part!r} is not a section of pipeline.yaml.")
        node = child
    place.append(key := _key(node, last))
    node[key] = read_yaml_text(f"environment variable {name}", value, SettingsError)
    return tuple(place)


def _key(section: Mapping[str, Any], part: str) -> str:
    """The section's own spelling of a name of the environment, which has no small letters."""
    return next((key for key in section if key.lower() == part), part)


def _place(problem: str, file: YamlFile, overridden: Mapping[tuple[str, ...], str]) -> str:
    """Where the value that a problem is about was written: a line of the file, or a variable; empty where neither."""
    named = problem.partition(": ")[0]
    steps = [int(step) if step.isdecimal() else step for step in re.split(r"[.\[\]]+", named.rstrip("]"))]
    for size in range(len(steps), 0, -1):
        if (variable := overridden.get(tuple(map(str, steps[:size])))) is not None:
            return f"environment variable {variable}: "
        if tuple(steps[:size]) in file.lines:
            return f"line {file.lines[tuple(steps[:size])]}: "
    return ""


def _problem_lines(item: dict[str, Any]) -> list[str]:
    loc = item["loc"]
    if chosen_at := _TYPE_AT.get(loc[0] if loc else ""):
        loc = (*loc[:chosen_at], *loc[chosen_at + 1 :])
    place = ".".join(str(part) for part in loc if part != "PackageFile")
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "union_tag_invalid":
        known = [part.strip(" '") for part in item["ctx"]["expected_tags"].split(",")]
        return [f"{place}.type: no such kind {item['ctx']['tag']!r}{suggest(item['ctx']['tag'], known)}"]
    if item["type"] == "extra_forbidden":
        section = _section_fields(item["loc"][:-1])
        return [f"{place}: unknown setting{suggest(str(item['loc'][-1]), section)}"]
    if not place:
        return message.splitlines()
    secret = loc[:1] == ("alerts",) or str(loc[-1]).endswith(_HOLD_SECRETS)
    found = "" if secret else f" (found {shown_value(item['input'])!r:.80})"
    return [f"{place}: {message}{found}"]


def _section_fields(loc: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    candidates: list[type[BaseModel]] = []
    for part in loc:
        if field := model.model_fields.get(str(part)):
            candidates = _models_in(field.annotation)
        for candidate in candidates:
            kind = candidate.model_fields.get("type")
            if len(candidates) == 1 or (kind and part in getattr(kind.annotation, "__args__", ())):
                model = candidate
                break
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models_in(inner)]
