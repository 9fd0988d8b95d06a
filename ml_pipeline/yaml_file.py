"""Reading YAML with the place of everything in it, by the rules of YAML 1.2's core schema: settings, suites, rubrics
and values of the environment, all alike.

YAML 1.1, PyYAML's default, reads `answer: no` as false, `10:45` as 645 and a date as an object. Here only true,
false, null and plain numbers are more than text. Anchors are refused: a few of them can unfold to gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ml_pipeline.errors import MlPipelineError, SuiteError

MAX_FILE_BYTES = 2_000_000
MAX_DEPTH = 50
# libyaml's parser where PyYAML was built with it: ten times as fast.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _CoreLoader(_Base):  # type: ignore[misc]  # one of two classes, known at run time only
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own hook


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,30})", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first))
# PyYAML looks an empty scalar up under the empty string, which list() cannot give.
_CoreLoader.yaml_implicit_resolvers[""] = _CoreLoader.yaml_implicit_resolvers.pop("\0")


@dataclass(frozen=True)
class YamlFile:
    """A file's content as plain Python, and the line (from 1) where each value begins."""

    path: Path
    content: Any
    lines: dict[tuple[str | int, ...], int] = field(repr=False)

    def line(self, location: Sequence[str | int]) -> int:
        """The line of a value. Steps that the file does not hold are passed over: a missing field has its parent's
        line, and the tags that pydantic puts into a location have none."""
        place: tuple[str | int, ...] = ()
        for step in location:
            if (*place, step) in self.lines:
                place = (*place, step)
        return self.lines[place]


def read_yaml(path: Path, error: type[MlPipelineError] = SuiteError) -> YamlFile:
    """Read a file of one YAML document.

    Raises:
        MlPipelineError: as `error`, with file and line: it is unreadable, too large, not UTF-8 or not YAML, a key
            occurs twice, or there are anchors or tags.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror or failure}") from failure
    if len(raw) > MAX_FILE_BYTES:
        raise error(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, which no such file needs. Split it, or shorten it.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = raw[: failure.start].count(b"\n") + 1
        raise error(f"{path}:{line}: not UTF-8 ({failure.reason}); save the file as UTF-8.") from failure
    reader, content = _read(str(path), text, error)
    return YamlFile(path, content, reader.lines)


def read_yaml_text(where: str, text: str, error: type[MlPipelineError]) -> Any:
    """A value written as YAML, such as that of an environment variable called `where`; raises as `read_yaml` does."""
    return _read(where, text, error)[1] if text.strip() else None


def _read(where: str, text: str, error: type[MlPipelineError]) -> tuple[_Reader, Any]:
    try:
        _demand_simple(where, text, error)
        root = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise error(f"{place}: not YAML: {failure.problem or failure.context}.") from failure
    except yaml.YAMLError as failure:
        raise error(f"{where}: not YAML: {failure}.") from failure
    if root is None:
        raise error(f"{where}: the file is empty.")
    reader = _Reader()
    content = reader.read(root, ())
    if reader.problems:
        raise error.from_problems(where, reader.problems)
    return reader, content


def _demand_simple(where: str, text: str, error: type[MlPipelineError]) -> None:
    """Refuse aliases and deep nesting before anything recursive sees them."""
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise error(f"{where}:{line}: YAML aliases (*{event.anchor}) are not taken; write the value out.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise error(f"{where}:{line}: nested deeper than {MAX_DEPTH} levels, which no such file needs.")


class _Reader:
    """Turns YAML nodes into plain Python, and remembers where each stood."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.problems: list[str] = []

    def read(self, node: yaml.Node, place: tuple[str | int, ...]) -> Any:
        line = node.start_mark.line + 1
        self.lines[place] = line
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*place, index)) for index, item in enumerate(node.value)]
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "bool":
            return text.lower() == "true"
        if kind == "null":
            return None
        if kind != "str":
            self.problems.append(f"line {line}: YAML tag {node.tag!r} is not taken; leave it off.")
        return text

    def _mapping(self, node: yaml.MappingNode, place: tuple[str | int, ...]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(f"line {line}: a key must be plain text.")
                continue
            key = str(key_node.value)
            if key in content:
                self.problems.append(
                    f"line {line}: the key {key!r} occurs twice; the first is on line {self.lines[(*place, key)]}."
                )
                continue
            content[key] = self.read(value_node, (*place, key))
            self.lines[(*place, key)] = line
        return content
