"""Names: which family a run belongs to, how a checkpoint is labelled, and its partition key in Dagster.

Families and labels mirror the original (prefix list, first match wins). Partition keys are
`<source>.<run>@<iteration>`, where "/" in the run is written "+" and every other character outside
`[A-Za-z0-9._-]` as `=XX` per UTF-8 byte, so that any folder name of a remote machine gives a key that Dagster, a file
system and a shell all take, and no two names give the same key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ml_pipeline.errors import CheckpointError
from ml_pipeline.settings import Family

MAX_KEY_LENGTH = 200
_CHECKPOINT_FILE = re.compile(r"(\d{1,12})_adapters\.safetensors", re.ASCII)
_CHECKPOINT_FOLDER = re.compile(r"checkpoint-(\d{1,12})", re.ASCII)
_NUMBERED_FOLDER = re.compile(
    r"(?:checkpoint|ckpt|global[-_]?step|step|iteration|iter)[-_]?(\d{1,12})", re.ASCII | re.IGNORECASE
)
_KEY = re.compile(r"(?P<source>[A-Za-z0-9_-]+)\.(?P<run>[A-Za-z0-9._=+-]+)@(?P<iteration>\d+)", re.ASCII)
_RUN_KEY = re.compile(r"(?P<source>[A-Za-z0-9_-]+)\.(?P<run>[A-Za-z0-9._=+-]+)", re.ASCII)
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")
_UNSAFE = re.compile(r"[^A-Za-z0-9._/-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class RunName:
    """What a run's folder name says: the model tag, the family's short name, and the variant that remains."""

    model: str
    short: str
    variant: str

    def label(self, iteration: str) -> str:
        """The checkpoint's label, with the iteration as its file name writes it: `G1-lek @0000100`."""
        stem = f"{self.short}-{self.variant}" if self.variant else self.short
        return f"{stem} @{iteration}"


def run_name(run: str, families: Sequence[Family]) -> RunName:
    """Find a run's family by the prefix of its name (without the source's run_prefix); first match wins.

    An unknown family gives the run's own name as model tag and its first 10 characters as short name, as in the
    original.
    """
    for family in families:
        if run.startswith(family.prefix):
            variant = run[len(family.prefix) :].strip("/").lstrip("-").replace("/", "-")
            return RunName(family.model, family.short, variant)
    return RunName(run, run[:10], "")


def checkpoint_iteration(file_name: str) -> str | None:
    """The iteration as a checkpoint's file name writes it (`0000100`), or None for another kind of file."""
    match = _CHECKPOINT_FILE.fullmatch(file_name)
    return match.group(1) if match else None


def checkpoint_folder_iteration(folder_name: str) -> str | None:
    """The iteration in the name of a folder as Hugging Face's Trainer writes it (`checkpoint-500`), or None."""
    match = _CHECKPOINT_FOLDER.fullmatch(folder_name)
    return match.group(1) if match else None


def numbered_folder_iteration(folder_name: str) -> str | None:
    """The iteration in the name of a folder that other trainers make for a checkpoint (`iter_0001152`, `step_500`).

    None for another name, and for one that counts epochs.
    """
    match = _NUMBERED_FOLDER.fullmatch(folder_name)
    return match.group(1) if match else None


def run_id(run: str) -> str:
    """The run as the original's `run_id` tag has it, without the suffix of the suite."""
    return run.replace("/", "-")


def partition_key(source: str, run: str, iteration: int) -> str:
    """The checkpoint's partition key.

    Raises CheckpointError when the run's name is too long for a key.
    """
    return _checked(f"{source}.{escaped(run)}@{iteration}", source, run)


def run_partition_key(source: str, run: str) -> str:
    """The training run's partition key: `<source>.<run>`, escaped as in a checkpoint's.

    Raises CheckpointError when the run's name is too long for a key.
    """
    return _checked(f"{source}.{escaped(run)}", source, run)


def parse_partition_key(key: str) -> tuple[str, str, int]:
    """Source, run as written in the key (still escaped) and iteration.

    Raises CheckpointError for a text that is no partition key.
    """
    match = _KEY.fullmatch(key)
    if match is None or ".." in key or len(key) > MAX_KEY_LENGTH:
        raise CheckpointError(
            f"{key!r:.100} is no checkpoint. The form is <source>.<run>@<iteration>; `ml-pipeline discover` lists them."
        )
    return match["source"], match["run"], int(match["iteration"])


def parse_run_partition_key(key: str) -> tuple[str, str]:
    """Source and run of a training run's key; the run is its folder's name, no longer escaped.

    Raises CheckpointError for a text that is no such key, or names no folder that a run may have.
    """
    match = _RUN_KEY.fullmatch(key)
    if match is not None:
        run = unescaped(match["run"])
        inner = run.split("/")[1:]
        if len(inner) <= 1 and not {"", ".", ".."} & set(inner) and run_partition_key(match["source"], run) == key:
            return match["source"], run
    raise CheckpointError(
        f"{key!r:.100} is no training run. The form is <source>.<run>; the training-log sensor adds those it finds."
    )


def escaped(run: str) -> str:
    """A name as it stands in a partition key; bytes that are no UTF-8 are given as lone surrogates."""
    safe = _UNSAFE.sub(lambda match: "".join(f"={byte:02X}" for byte in _bytes(match.group())), run)
    safe = safe.replace("..", ".=2E")
    if safe.startswith("."):
        safe = f"=2E{safe[1:]}"
    return safe.replace("/", "+")


def unescaped(name: str) -> str:
    """The name that `escaped` made this of."""
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), name.replace("+", "/").encode())
    return raw.decode("utf-8", "surrogateescape")


def _checked(key: str, source: str, run: str) -> str:
    if len(key) > MAX_KEY_LENGTH:
        raise CheckpointError(
            f"source {source}: run folder {run!r:.80} has a name too long for a partition "
            f"({len(key)} characters, at most {MAX_KEY_LENGTH}). Rename it."
        )
    return key


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
