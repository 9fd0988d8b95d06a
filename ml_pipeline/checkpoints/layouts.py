"""Which files in a run folder are checkpoints, as the trainers lay them out.

mlx-lm numbers its files, `0000100_adapters.safetensors`, beside one configuration. Hugging Face's Trainer, and what is
built on it (unsloth, axolotl, LLaMA-Factory), makes a folder for each, `checkpoint-100/`, that holds either an adapter
(`adapter_model.safetensors`, `adapter_config.json`) or a whole model (`model.safetensors`, `config.json`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ml_pipeline.checkpoints.naming import checkpoint_folder_iteration, checkpoint_iteration
from ml_pipeline.checkpoints.source import Entry

CONFIG_FILE = "adapter_config.json"
_FOLDER_LAYOUTS = {"adapter_model.safetensors": CONFIG_FILE, "model.safetensors": "config.json"}
_UNUSABLE = {
    "adapter_model.bin": "a pickle, which is never loaded. Save it with safetensors (save_safetensors=True)",
    "pytorch_model.bin": "a pickle, which is never loaded. Save it with safetensors (save_safetensors=True)",
    "model.safetensors.index.json": "a model in several files. Save it as one (a larger max_shard_size)",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights that are a checkpoint by their name. `trouble` says why they cannot be used.

    `iteration` is as the name writes it; `file` and `config_file` are paths inside the source.
    """

    iteration: str
    file: str
    config_file: str
    has_config: bool
    size_bytes: int
    mtime_ns: int
    trouble: str = ""


def config_name(weights_name: str) -> str:
    """What the configuration beside a weights file of this name is called."""
    return _FOLDER_LAYOUTS.get(weights_name, CONFIG_FILE)


def candidates(
    path: str, contents: Sequence[Entry], checkpoint_folders: Mapping[str, Sequence[Entry]]
) -> Iterator[Candidate]:
    """The checkpoints of the run folder `path`, by name; `checkpoint_folders` are those in it, by their names."""
    has_config = CONFIG_FILE in _usable_files(contents)
    for entry in sorted(contents, key=lambda item: item.name):
        written = None if entry.is_folder else checkpoint_iteration(entry.name)
        if written is not None:
            yield _candidate(written, path, entry, CONFIG_FILE, has_config)
    for name, inside in sorted(checkpoint_folders.items()):
        written = checkpoint_folder_iteration(name)
        if written is not None and (found := _in_folder(written, f"{path}/{name}", inside)):
            yield found


def _in_folder(written: str, path: str, contents: Sequence[Entry]) -> Candidate | None:
    files = {entry.name: entry for entry in contents if not entry.is_folder}
    for weights, config in _FOLDER_LAYOUTS.items():
        if weights in files:
            return _candidate(written, path, files[weights], config, config in _usable_files(contents))
    for name, reason in _UNUSABLE.items():
        if name in files:
            return Candidate(written, f"{path}/{name}", "", False, 0, 0, reason)
    return None


def _candidate(written: str, path: str, entry: Entry, config: str, has_config: bool) -> Candidate:
    file, config_file = f"{path}/{entry.name}", f"{path}/{config}"
    return Candidate(written, file, config_file, has_config, entry.size_bytes, entry.mtime_ns, entry.trouble)


def _usable_files(contents: Sequence[Entry]) -> set[str]:
    return {entry.name for entry in contents if not entry.is_folder and not entry.trouble}
