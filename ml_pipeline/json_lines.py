"""Reads files of JSON lines that others wrote: object by object, telling what is wrong with the lines that are none."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from ml_pipeline.errors import MlPipelineError
from ml_pipeline.files import bounded_lines

_PROBLEMS_KEPT = 20


class JsonLines:
    """The objects of one file with their line numbers, from 1. After the last, `sha256` is the hash of the whole file.

    `bad_lines` counts the lines that are no object or that `refuse` was told of; `problems` says why, of the first
    twenty. Never more than one line is in memory.

    Raises `error`, also in between, when the file cannot be read.
    """

    def __init__(self, path: Path, line_bytes: int, error: type[MlPipelineError]) -> None:
        self.path = path
        self.bad_lines = 0
        self.problems: list[str] = []
        self.sha256 = ""
        self._line_bytes = line_bytes
        self._error = error

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with open_plain(self.path, self._error) as file:
            for number, line in enumerate(self._lines(file), start=1):
                if line is not None and not line.strip():
                    continue
                try:
                    if line is None:
                        raise ValueError(
                            f"longer than {self._line_bytes} bytes; raise limits.response_line_bytes in pipeline.yaml"
                        )
                    fields = read_object(line)
                except (ValueError, RecursionError) as error:
                    self.refuse(number, error)
                    continue
                yield number, fields

    def refuse(self, number: int, error: Exception) -> None:
        """Count a line as bad, and say why."""
        self.bad_lines += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            why = "nested too deep" if isinstance(error, RecursionError) else str(error)
            self.problems.append(f"{shown_name(self.path)}:{number}: {why:.300}")

    def _lines(self, file: BinaryIO) -> Iterator[bytes | None]:
        """Each line; None for one that is too long."""
        digest, first = hashlib.sha256(), True
        try:
            for line in bounded_lines(file, self._line_bytes, digest.update):
                yield line.removeprefix(b"\xef\xbb\xbf") if first and line else line
                first = False
        except OSError as error:
            raise self._error(f"{self.path} cannot be read: {error.strerror}. Check the disk.") from error
        self.sha256 = digest.hexdigest()


def read_object(line: bytes) -> dict[str, Any]:
    """The JSON object that a line is; raises ValueError with what is wrong, RecursionError for one nested too deep."""
    try:
        fields = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1} of the line") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"must be an object, not {json_kind(fields)}")
    return fields


def json_kind(value: object) -> str:
    """What a JSON value is, in words."""
    kinds = {bool: "true or false", str: "a text", list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a number")


def shown_name(path: Path) -> str:
    """A file's name as text, whatever its bytes are."""
    return path.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def open_plain(path: Path, error: type[MlPipelineError]) -> BufferedReader:
    """Open a file for reading that is neither a link nor a device nor a pipe; raises `error` if it is one of those, or
    cannot be opened."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError as failure:
        raise error(f"{path} cannot be read: {failure.strerror}. Put the file back, or mend it.") from failure
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise error(f"{path} is not a plain file. Put a copy of what it stands for there.")
    return file


def _no_constant(name: str) -> Any:
    raise ValueError(f"not JSON: {name} is no number there")
