"""Settings of the judges."""

from __future__ import annotations

from pydantic import Field

from ml_pipeline.source_settings import Section

EMBEDDED, NO_JUDGE = "embedded", "none"


class JudgeSettings(Section):
    """Who judges, and how. 'embedded' is the base model of the checkpoint itself, without adapter: no judge of itself
    unless asked for."""

    backend: str = Field(
        NO_JUDGE,
        description="`none`: no judge; `embedded`: the checkpoint's own base model; or a name under `backends`, which "
        "runs `judge.base_model`, or under `base_models`.",
    )
    base_model: str | None = Field(None, description="Name under `base_models` of what a judge of `backends` runs.")
    panel: tuple[str, ...] = Field(
        (),
        description="Judges, named as in `backend`, whose median counts; in place of the one there unless it is set to "
        "`none`.",
    )
    panel_at_once: int = Field(1, ge=1, le=16, description="Judges of the panel that work at the same time.")
    repeats: int = Field(1, ge=1, le=100, description="How often each judge judges an answer; the median counts.")
    repeat_temperature: float = Field(
        0.7, gt=0, le=5, description="Temperature where there are repeats; a single judgement has 0."
    )
    reasks: int = Field(1, ge=0, le=10, description="How often a judge is asked again whose reply cannot be read.")
    max_tokens: int = Field(160, ge=16, description="Longest judgement, in tokens.")
    seed: int = Field(0, description="Seed of the judge's sampler; each repeat has the next one.")
    answers_per_suite: int | None = Field(
        None, ge=1, description="Judge so many answers of each suite, of the same probes every time; unset: all."
    )
    explain: bool = Field(True, description="Ask the judge for a sentence beside its figures.")

    @property
    def members(self) -> tuple[str, ...]:
        """Who judges: the panel, or the one judge, or nobody."""
        if self.backend == NO_JUDGE and ("backend" in self.model_fields_set or not self.panel):
            return ()
        return tuple(dict.fromkeys(self.panel)) or (self.backend,)
