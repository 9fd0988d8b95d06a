"""Settings of the suites: which are run, and what of them is changed."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ml_pipeline.source_settings import Section


class GenerationOverride(Section):
    """What a user changes of one suite's generation defaults."""

    temperature: float | None = Field(None, ge=0, le=5, description="In place of the suite's temperature.")
    max_tokens: int | None = Field(None, ge=1, description="In place of the suite's longest answer, in tokens.")
    samples: int | None = Field(None, ge=1, le=100, description="In place of how often the suite asks each probe.")


class SuitesSettings(Section):
    """Which suites are run, and where the user's own lie."""

    enabled: tuple[str, ...] = Field(("capability", "content"), min_length=1, description="Suites to run, by name.")
    folder: Path = Field(Path("suites"), description="Folder of the user's own suite files (*.yaml); may be missing.")
    seed: int = Field(0, description="Seed of every answer; with the probe's id it fixes its sampler.")
    generation: dict[str, GenerationOverride] = Field(default_factory=dict)
