"""The folder whose dagster.yaml Dagster reads: the project's own, or one that the program makes where that says too
little.

Without a dagster.yaml Dagster would report to its makers how it is used, load two models at once, leave the runs of
crashed processes alone, and lay its databases beside pipeline.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ml_pipeline.errors import SettingsError
from ml_pipeline.files import make_folder, store_errors, write_atomically
from ml_pipeline.settings import Settings

FILE = "dagster.yaml"
_OLD_DATABASES = "history"
"""A folder that Dagster makes in its home when no dagster.yaml says where its databases are to lie."""
_STORAGES = {"storage", "run_storage", "event_log_storage", "schedule_storage"}


def dagster_home(settings: Settings) -> Path:
    """The folder to be DAGSTER_HOME: that of pipeline.yaml where its dagster.yaml says whether there is telemetry, else
    one below data_dir, whose dagster.yaml is written here.

    Raises:
        SettingsError: the project's dagster.yaml cannot be read.
        StoreError: the folder cannot be made.
    """
    own = _read(settings.root / FILE)
    if own is not None and "telemetry" in own:
        return settings.root
    made = settings.data_path / "dagster" / "home"
    if own is not None:
        content = {**_places(settings.root, own), **_quiet(), **own}
    elif (settings.root / _OLD_DATABASES).is_dir():
        content = {**defaults(), **_places(settings.root)}
    else:
        content = {**defaults(), **_places(settings.data_path / "dagster")}
    text = f"# Written by ml-pipeline at every start. Put your own {FILE} beside pipeline.yaml.\n"
    data = (text + yaml.safe_dump(content, sort_keys=False)).encode()
    path = made / FILE
    with store_errors("make", made):
        make_folder(made)
        is_written = path.is_file() and path.read_bytes() == data
    if not is_written:
        write_atomically(path, data)
    return made


def defaults() -> dict[str, Any]:
    """What the program has set where the project has no dagster.yaml, without where Dagster's databases lie."""
    return {
        # One model in memory at a time, whatever is queued.
        "concurrency": {"pools": {"granularity": "op", "default_limit": 1}},
        "run_monitoring": {"enabled": True, "poll_interval_seconds": 30},
        "run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False},
        **_quiet(),
    }


def _quiet() -> dict[str, Any]:
    return {"telemetry": {"enabled": False}, "nux": {"enabled": False}}


def _places(folder: Path, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Where Dagster lays its databases and logs when its home is `folder`; without what `own` says itself."""
    kinds = {
        "local_artifact_storage": ("dagster.core.storage.root", "LocalArtifactStorage", folder),
        "compute_logs": (
            "dagster.core.storage.local_compute_log_manager",
            "LocalComputeLogManager",
            folder / "storage",
        ),
    }
    found: dict[str, Any] = {
        name: {"module": module, "class": class_name, "config": {"base_dir": str(place)}}
        for name, (module, class_name, place) in kinds.items()
    }
    if not set(own or ()) & _STORAGES:
        found["storage"] = {"sqlite": {"base_dir": str(folder)}}
    return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path} cannot be read: {' '.join(str(error).split())[:300]}. Mend it, or remove it."
        ) from error
    if content is not None and not isinstance(content, dict):
        raise SettingsError(f"{path} must hold settings of Dagster's such as 'telemetry:'. Mend it, or remove it.")
    return content or None
