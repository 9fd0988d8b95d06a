"""Which files in a run folder are checkpoints, as the trainers lay them out.

mlx-lm numbers its files, `0000100_adapters.safetensors`, beside one configuration, and writes the last weights once
more as `adapters.safetensors`. Hugging Face's Trainer, and what is built on it (unsloth, axolotl, LLaMA-Factory,
XTuner), makes a folder for each, `checkpoint-100/`, that holds either an adapter (`adapter_model.safetensors`,
`adapter_config.json`), perhaps in a folder by the adapter's name, or a whole model (`model.safetensors`,
`config.json`).
Weights at any other place are either a checkpoint all the same, when a file beside them tells their iteration, or are
reported: nothing that looks like weights is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ml_pipeline.checkpoints.naming import checkpoint_folder_iteration, checkpoint_iteration, numbered_folder_iteration
from ml_pipeline.checkpoints.source import Entry

CONFIG_FILE = "adapter_config.json"
STATE_FILE = "trainer_state.json"
MLX_FINAL = "adapters.safetensors"
_PEFT, _WHOLE_MODEL = "adapter_model.safetensors", "model.safetensors"
_FOLDER_LAYOUTS = {_PEFT: CONFIG_FILE, _WHOLE_MODEL: "config.json"}
FOLDER_WEIGHTS = tuple(_FOLDER_LAYOUTS)
"""What the weights of a checkpoint in a folder of its own are called."""
_PICKLE = "a pickle, which is never loaded. Save it with safetensors (save_safetensors=True)"
_PARTS = "{} in several files. Save it as one (a larger max_shard_size)"
_UNUSABLE = (
    (re.compile(r"(adapter_model|pytorch_model)(-\d+-of-\d+)?\.bin"), _PICKLE),
    (re.compile(r"adapter_model(\.safetensors\.index\.json|-\d+-of-\d+\.safetensors)"), _PARTS.format("an adapter")),
    (re.compile(r"model(\.safetensors\.index\.json|-\d+-of-\d+\.safetensors)"), _PARTS.format("a model")),
    (
        re.compile(r"(\d+_)?adapters\.npz"),
        "in NumPy's format, as mlx-examples once saved adapters. Write it again with mx.save_safetensors, as "
        "<iteration>_adapters.safetensors beside an adapter_config.json",
    ),
)
_WEIGHTS = re.compile(r".+\.(safetensors|npz|bin|pt|pth|ckpt|gguf|distcp|msgpack|h5|lora)", re.IGNORECASE)
_NO_WEIGHTS = re.compile(
    r"(optimizer|optim|scheduler|scaler|rng_state|random_states?|training_args|trainer|tokenizer|zero_)[^/]*"
    r"|.*optim[^/]*",
    re.IGNORECASE,
)
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights that are a checkpoint by their name. `trouble` says why they cannot be used.

    `iteration` is as the name writes it, empty where it writes none; `file` and `config_file` are paths inside the
    source. `config_mtime_ns` is 0 without a configuration. `state_file` is where Trainer tells the iteration, or empty.
    """

    iteration: str
    file: str
    config_file: str
    has_config: bool
    size_bytes: int
    mtime_ns: int
    trouble: str = ""
    config_mtime_ns: int = 0
    state_file: str = ""

    @property
    def is_whole_model(self) -> bool:
        """Whether it is a full fine-tune rather than an adapter."""
        return self.file.endswith(f"/{_WHOLE_MODEL}")


Inside = Mapping[str, Sequence[Entry]]
"""What a folder that may be a checkpoint holds, by the paths in it: "" for itself, and its folders' names."""


def config_name(weights_name: str) -> str:
    """What the configuration beside a weights file of this name is called."""
    return _FOLDER_LAYOUTS.get(weights_name, CONFIG_FILE)


def is_checkpoint(entry: Entry) -> bool:
    """Whether a file or folder in a run folder is a checkpoint by its name."""
    return (
        checkpoint_folder_iteration(entry.name) if entry.is_folder else checkpoint_iteration(entry.name)
    ) is not None


def is_checkpoint_folder(name: str, inside: Inside) -> bool:
    """Whether a folder in a run folder is one checkpoint, rather than a run of its own."""
    if checkpoint_folder_iteration(name) is not None:
        return True
    if numbered_folder_iteration(name) is None or any(checkpoint_iteration(entry.name) for entry in inside[""]):
        return False
    return any(_in_folder("0", name, inside))


def numbered(path: str, contents: Sequence[Entry], checkpoint_folders: Mapping[str, Inside]) -> Iterator[Candidate]:
    """The checkpoints of the run folder `path` whose names say their iteration, by name.

    `checkpoint_folders` are those in it, by their names.
    """
    for entry in sorted(contents, key=lambda item: item.name):
        written = None if entry.is_folder else checkpoint_iteration(entry.name)
        if written is not None:
            yield _candidate(written, path, entry, CONFIG_FILE, contents)
    for name, inside in sorted(checkpoint_folders.items()):
        written = checkpoint_folder_iteration(name) or numbered_folder_iteration(name)
        if written is not None:
            yield from _in_folder(written, f"{path}/{name}", inside)


def unnumbered(path: str, contents: Sequence[Entry]) -> Iterator[Candidate]:
    """Weights in a folder that is no checkpoint by its name, whose own names say no iteration either."""
    files = {entry.name: entry for entry in contents if not entry.is_folder}
    for name in (MLX_FINAL, _PEFT, _WHOLE_MODEL):
        if name in files:
            yield _candidate("", path, files[name], config_name(name), contents)


def unusable(path: str, contents: Sequence[Entry]) -> list[str]:
    """What in a folder can never be a checkpoint, and why, a line for each reason."""
    names = sorted(entry.name for entry in contents if not entry.is_folder)
    found: dict[str, list[str]] = {}
    has_better = not _FOLDER_LAYOUTS.keys().isdisjoint(names)
    for name in names:
        # Some trainers write the same weights twice.
        if (reason := _why_unusable(name)) is not None and not (has_better and reason == _PICKLE):
            found.setdefault(reason, []).append(f"{path}/{name}")
    return [f"{_listed(files, 1)} {'is' if len(files) == 1 else 'are'} {reason}" for reason, files in found.items()]


def other_weights(folders: Mapping[str, Sequence[Entry]]) -> str:
    """The files in these folders that look like weights, by path, as a text; empty without any."""
    return _listed([f"{path}/{name}" for path, contents in sorted(folders.items()) for name in _weights(contents)])


def _in_folder(written: str, path: str, inside: Inside) -> Iterator[Candidate]:
    """The checkpoint in a folder, and whatever else lies in it that could be one, with its trouble."""
    found = None
    for where, contents in sorted(inside.items()):
        here = f"{path}/{where}" if where else path
        files = {entry.name: entry for entry in contents if not entry.is_folder}
        for weights, config in _FOLDER_LAYOUTS.items():
            if weights not in files:
                continue
            if found is None:
                found = _candidate(written, here, files[weights], config, contents)
                yield found
            elif where:
                yield Candidate(written, f"{here}/{weights}", "", False, 0, 0, _second(found.file))
            break
    if found is not None:
        return
    for where, contents in sorted(inside.items()):
        here = f"{path}/{where}" if where else path
        for name in sorted(entry.name for entry in contents if not entry.is_folder):
            if (reason := _why_unusable(name)) is not None:
                yield Candidate(written, f"{here}/{name}", "", False, 0, 0, reason)
                return
    if weights := other_weights({f"{path}/{where}".rstrip("/"): contents for where, contents in inside.items()}):
        reason = f"a checkpoint by its name, but holds neither {' nor '.join(_FOLDER_LAYOUTS)}: {weights}"
        yield Candidate(written, path, "", False, 0, 0, reason)


def _second(first: str) -> str:
    return (
        f"a second adapter in one checkpoint, of which {first!r} is scored. Copy it to a run folder of its own, into a "
        "checkpoint folder of the same name"
    )


def _candidate(written: str, path: str, entry: Entry, config: str, contents: Sequence[Entry]) -> Candidate:
    usable = {entry.name: entry for entry in contents if not entry.is_folder and not entry.trouble}
    return Candidate(
        written,
        f"{path}/{entry.name}",
        f"{path}/{config}",
        config in usable,
        entry.size_bytes,
        entry.mtime_ns,
        entry.trouble,
        usable[config].mtime_ns if config in usable else 0,
        f"{path}/{STATE_FILE}" if STATE_FILE in usable else "",
    )


def _why_unusable(name: str) -> str | None:
    return next((reason for pattern, reason in _UNUSABLE if pattern.fullmatch(name)), None)


def _weights(contents: Sequence[Entry]) -> list[str]:
    """The names of files that look like weights, and are no trainer's own state."""
    names = sorted(entry.name for entry in contents if not entry.is_folder)
    return [name for name in names if _WEIGHTS.fullmatch(name) and not _NO_WEIGHTS.fullmatch(name)]


def _listed(files: Iterable[str], most: int = _MOST_NAMED) -> str:
    named = [repr(file) for file in files]
    more = [f"{len(named) - most} more"] if len(named) > most else []
    shown = named[:most] + more
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
