"""Settings of the pipeline: their names, ranges, meaning, and every default. `settings_file` reads them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ml_pipeline.backend_settings import AnyBackend, LlamaCppSettings
from ml_pipeline.judge_settings import EMBEDDED, NO_JUDGE, JudgeSettings
from ml_pipeline.monitoring_settings import AlertsSettings, ChecksSettings, LinksSettings
from ml_pipeline.source_settings import LOGIN_OF_FILE_SYSTEM, AnySource, Section, without_secrets
from ml_pipeline.suite_settings import GenerationOverride, SuitesSettings

BASE_SOURCE = "base"
IMPORTED_SOURCE = "imported"
Sharing = Literal["none", "group", "all"]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


class PackageFile(Section):
    """A file shipped inside an installed Python package."""

    package: str = Field(description="Import name of the package.")
    file: str = Field(description="Path of the file inside it.")


class BaseModelSettings(Section):
    """Where one base model's files are, per backend."""

    gguf: Path | PackageFile | None = Field(None, description="GGUF file for llama.cpp: a path, or a package's file.")
    mlx: str | None = Field(
        None, description="The MLX build, for mlx and mlx_server: its folder where it runs, or its hub id."
    )
    hub: str | None = Field(None, description="Hub id of the original model, for provenance.")
    quantisation: str | None = Field(None, description="What the adapter was trained on, for provenance: 4bit, bf16.")
    backend: str | None = Field(None, description="Name under `backends` of what runs it; unset: `backend`.")
    generation: dict[str, GenerationOverride] = Field(
        default_factory=dict,
        description="As `suites.generation`, for this base and its checkpoints alone; goes before what is there.",
    )


class Family(Section):
    """Run folders whose name (without 'adapters-') starts with `prefix` belong to this model; first match wins."""

    prefix: str = Field(min_length=1, description="How the run's name starts.")
    model: str = Field(min_length=1, description="Model tag: a name under base_models.")
    short: str = Field(min_length=1, max_length=20, description="Short name used in labels.")


class InfluxSettings(Section):
    """An InfluxDB for dashboards. Without `url` points wait in the buffer."""

    url: str | None = Field(None, pattern=r"^https?://", description="The server; unset, points wait in the buffer.")
    api: Literal["v1", "v2", "v3"] = Field(
        "v2", description="Write API: `v1` (InfluxDB 1.x), `v2` (2.x, 1.8, VictoriaMetrics) or `v3` (3.x)."
    )
    org: str = Field("", description="Organisation (v2).")
    bucket: str = Field(
        "ml_pipeline", min_length=1, description="Bucket (v2) or database (v1: or `database/retention-policy`; v3)."
    )
    token_env: str = Field(
        "INFLUX_TOKEN", description="Environment variable that holds the token; v1: `user:password`."
    )
    token_file: Path = Field(
        Path("~/.influx_token"), description="File that holds the token, if the variable is unset."
    )
    time_base: Literal["real", "original"] = Field(
        "real", description="Time of points: the file's own (`real`) or the original system's epoch (`original`)."
    )
    timeout_s: float = Field(10, gt=0, description="Longest wait for an answer, in s.")
    buffer_bytes: int = Field(
        256 * 2**20, ge=2**20, description="Room for points that wait for the server, in bytes; none is ever dropped."
    )
    buffer_wait_s: float = Field(
        60,
        ge=0,
        le=1800,
        description="Longest wait for room there, in s; then that checkpoint fails and can be retried.",
    )

    @field_validator("url")
    @classmethod
    def _no_login(cls, value: str | None) -> str | None:
        remedy = "Put it into the environment variable of token_env or the file of token_file (v1: `user:password`)"
        return None if value is None else without_secrets(value, remedy)

    def token(self) -> str:
        """The access token from the environment or the file; empty when neither is there."""
        if value := os.environ.get(self.token_env, "").strip():
            return value
        path = self.token_file.expanduser()
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


class StoresSettings(Section):
    """Where scores go; unset paths lie under data_dir."""

    parquet: str | None = Field(None, description="Folder of Parquet files: a path, or `s3://bucket/folder`.")
    duckdb: Path | None = Field(None, description="The DuckDB file.")
    duckdb_lock_timeout_s: float = Field(
        60, gt=0, description="Longest wait for a database that another process holds, in s."
    )
    duckdb_snapshot: bool = Field(True, description="Whether publishing also copies the database for analysts.")
    influx: InfluxSettings = InfluxSettings()

    @field_validator("parquet")
    @classmethod
    def _no_login(cls, value: str | None) -> str | None:
        return value if value is None or "://" not in value else without_secrets(value, LOGIN_OF_FILE_SYSTEM)


class DiscoverySettings(Section):
    """How new checkpoints are looked for."""

    interval_s: int = Field(30, ge=5, description="Seconds between two looks of the sensor.")
    training_log_interval_s: int = Field(
        60, ge=5, description="Seconds between two looks of the sensor that follows training logs."
    )
    settle_s: float = Field(60, ge=0, description="An incomplete file untouched for this long is taken as it is.")
    full_look_s: float = Field(
        3600, ge=0, description="Seconds between two looks that list every folder, unchanged ones too."
    )


class LimitsSettings(Section):
    """Bounds on work and files."""

    checkpoints_per_run: int = Field(16, ge=1, le=1000, description="Checkpoints scored with one model load.")
    adapter_bytes: int = Field(20 * 2**30, ge=1, description="Largest weights file that is accepted.")
    training_log_bytes: int = Field(
        64 * 2**20, ge=1024, description="Training logs are read up to this size, in bytes."
    )
    response_line_bytes: int = Field(
        16 * 2**20,
        ge=1024,
        description="Longest line of a file of responses or of an imported one; a longer one counts as a bad line.",
    )
    cache_bytes: int = Field(
        20 * 2**30, ge=1, description="Room for fetched and converted adapters; least recently used goes first."
    )


class Settings(Section):
    """All settings. `root` is the folder of pipeline.yaml; every path is absolute after loading."""

    root: Path = Field(Path(), exclude=True)
    data_dir: Path = Field(Path("data"), description="Folder of everything the program makes.")
    shared_files: Sharing = Field(
        "none",
        description="Who besides this user may read what the program makes: `none`, `group` (who may write there too), "
        "`all`. Files that are there already stay as they are.",
    )
    sources: dict[str, AnySource] = Field(min_length=1)
    base_models: dict[str, BaseModelSettings] = Field(min_length=1)
    families: tuple[Family, ...] = ()
    backend: AnyBackend = LlamaCppSettings()
    backends: dict[str, AnyBackend] = Field(
        default_factory=dict, description="More backends by name, for base models that name one. Fields as `backend`."
    )
    judge: JudgeSettings = JudgeSettings()
    suites: SuitesSettings = SuitesSettings()
    stores: StoresSettings = StoresSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    limits: LimitsSettings = LimitsSettings()
    checks: ChecksSettings = ChecksSettings()
    alerts: AlertsSettings = AlertsSettings()
    links: LinksSettings = LinksSettings()

    @field_validator("sources", "base_models", "backends")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            allowed = name.replace(".", "-")
            if not _NAME.fullmatch(allowed):
                raise ValueError(f"name {name!r} may hold only letters, digits, '_', '-', at most 40 of them")
        return value

    @model_validator(mode="after")
    def _cross_checks(self) -> Settings:
        problems = []
        for name in self.sources:
            if name in (BASE_SOURCE, IMPORTED_SOURCE) or "." in name:
                problems.append(f"sources.{name}: {BASE_SOURCE!r}, {IMPORTED_SOURCE!r} and names with '.' are reserved")
        for index, family in enumerate(self.families):
            if family.model not in self.base_models:
                hint = suggest(family.model, self.base_models)
                problems.append(f"families[{index}].model: no base model called {family.model!r}{hint}")
        for name, model in self.base_models.items():
            if model.backend is not None and model.backend not in self.backends:
                hint = suggest(model.backend, self.backends)
                problems.append(f"base_models.{name}.backend: no backend called {model.backend!r} in backends{hint}")
        for place, backend in [("backend", self.backend), *((f"backends.{n}", b) for n, b in self.backends.items())]:
            source = getattr(backend, "source", None)
            if source is not None and source not in self.sources:
                problems.append(f"{place}.source: no source called {source!r}{suggest(source, self.sources)}")
        if self.alerts.webhook is not None and not self.alerts.address.startswith(("https://", "http://")):
            problems.append("alerts.webhook: must begin with https:// or http:// (what it is now is not shown)")
        problems += self._judge_problems()
        for suite in self.suites.generation:
            if suite not in self.suites.enabled:
                problems.append(
                    f"suites.generation.{suite}: not in suites.enabled{suggest(suite, self.suites.enabled)}"
                )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _judge_problems(self) -> list[str]:
        judge, known = self.judge, [EMBEDDED, *self.backends, *self.base_models]
        named = [("judge.backend", judge.backend)] if judge.backend != NO_JUDGE else []
        named += [(f"judge.panel[{index}]", name) for index, name in enumerate(judge.panel)]
        problems = [
            f"{place}: no backend and no base model called {name!r}{suggest(name, known)}"
            for place, name in named
            if name not in known
        ]
        for place, name in named:
            if name in self.backends and name in self.base_models:
                problems.append(f"{place}: {name!r} is both a backend and a base model; rename one of them")
            elif name in self.backends and judge.base_model is None:
                problems.append(f"judge.base_model: needed for {place}: the name under base_models of what it runs")
        if judge.base_model is not None and judge.base_model not in self.base_models:
            hint = suggest(judge.base_model, self.base_models)
            problems.append(f"judge.base_model: no base model called {judge.base_model!r}{hint}")
        return problems

    def suites_for(self, base_model: str) -> SuitesSettings:
        """The suites' settings as they are for a base model and its checkpoints: its own changes over those of all."""
        own = self.base_models[base_model].generation if base_model in self.base_models else {}
        merged = {
            suite: self.suites.generation.get(suite, GenerationOverride()).model_copy(
                update=change.model_dump(exclude_none=True)
            )
            for suite, change in own.items()
        }
        return self.suites.model_copy(update={"generation": {**self.suites.generation, **merged}})

    def path(self, value: Path) -> Path:
        """An absolute path out of one that may be relative to pipeline.yaml's folder."""
        return (self.root / value.expanduser()).resolve()

    @property
    def data_path(self) -> Path:
        """The folder of everything the program makes."""
        return self.path(self.data_dir)

    @property
    def parquet_path(self) -> Path | str:
        """The folder of Parquet files, or its address."""
        place = self.stores.parquet or ""
        return place if "://" in place else self.path(Path(place or self.data_dir / "parquet"))

    @property
    def duckdb_path(self) -> Path:
        """The DuckDB file."""
        return self.path(self.stores.duckdb or self.data_dir / "scores.duckdb")

    @property
    def influx_buffer_path(self) -> Path:
        """The folder of the Influx buffer."""
        return self.data_path / "influx_buffer"

    @property
    def retime_notes_path(self) -> Path:
        """The file that says how far an interrupted `ml-pipeline retime` came."""
        return self.data_path / "influx_retime.json"

    @property
    def cache_path(self) -> Path:
        """The folder of caches: fetched and converted adapters, completions. Safe to delete."""
        return self.data_path / "cache"

    @property
    def decoded_bases_path(self) -> Path:
        """The folder of base models with their weights written out in 16 bits. Safe to delete."""
        return self.cache_path / "decoded_bases"

    @property
    def trials_path(self) -> Path:
        """What trials of native libraries in child processes found out."""
        return self.cache_path / "trials"

    @property
    def requested_path(self) -> Path:
        """The database of what the discovery sensor has asked to be scored."""
        return self.data_path / "dagster" / "requested.sqlite"

    @property
    def alerts_path(self) -> Path:
        """The folder of failed checks of which nobody was told yet."""
        return self.data_path / "dagster" / "alerts"

    @property
    def responses_path(self) -> Path:
        """The folder in which files of responses are looked for."""
        return self.data_path / "responses"

    @property
    def training_data_path(self) -> Path:
        """The folder of imported training data."""
        return self.data_path / "training_data"

    @property
    def log_cursor_path(self) -> Path:
        """The file that says which training logs the command line has seen. Safe to delete."""
        return self.cache_path / "log_cursor.json"

    @property
    def log_positions_path(self) -> Path:
        """The folder that says how far each training log was read. Safe to delete."""
        return self.cache_path / "log_positions"

    @property
    def run_locks_path(self) -> Path:
        """The folder of the locks that scoring runs hold while they go on."""
        return self.data_path / "dagster" / "run_locks"

    @property
    def dev_lock_path(self) -> Path:
        """The file that `ml-pipeline dev` holds locked while it or anything that it started is there."""
        return self.data_path / "dagster" / "dev.lock"

    @property
    def stop_note_path(self) -> Path:
        """The file that says when `ml-pipeline dev` began to stop, until the runs that it ended are marked."""
        return self.data_path / "dagster" / "stopped_at"

    @property
    def report_path(self) -> Path:
        """The HTML report."""
        return self.data_path / "report.html"


def suggest(word: str, known: Iterable[object]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""
