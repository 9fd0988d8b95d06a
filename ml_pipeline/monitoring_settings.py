"""Settings of what watches over the scores: asset checks, who is told when one fails, and the links in both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from ml_pipeline.source_settings import Section, without_secrets

Severity = Literal["warn", "error"]
_SEVERITY = "How its failure shows: `warn` or `error`."


class RegressionCheck(Section):
    """When a checkpoint is worse than its base beyond noise."""

    severity: Severity = Field("error", description=_SEVERITY)
    drop: float = Field(0.05, ge=0, le=1, description="Fails from this fall of the accuracy on, 0..1, ...")
    p_value: float = Field(
        0.02,
        gt=0,
        le=1,
        description="... if McNemar's exact test is sure: over a whole run the chance of a false one is at most this.",
    )


class AnswersCheck(Section):
    """When the answers show a sign of degeneration too often."""

    severity: Severity = Field("warn", description=_SEVERITY)
    share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Fails from this share of a suite's answers on, 0..1, if clearly above the base's.",
    )


class UnscoredCheck(Section):
    """When too many answers could not be scored."""

    severity: Severity = Field("warn", description=_SEVERITY)
    share: float = Field(0.05, gt=0, le=1, description="Fails above this share of a suite's figures, 0..1.")


class AdapterCheck(Section):
    """When an adapter changes next to nothing."""

    severity: Severity = Field("error", description=_SEVERITY)
    logit_change: float = Field(
        0.01, ge=0, description="Fails where no logit of the proof moves by more; a change of nothing always fails."
    )


class FreshnessCheck(Section):
    """When a training run that is not through has stopped writing checkpoints."""

    severity: Severity = Field("warn", description=_SEVERITY)
    intervals: float = Field(4, ge=1, description="Fails after so many of the run's usual intervals without a new one,")
    at_least_s: float = Field(900, ge=0, description="but never before so many seconds,")
    forget_after_s: float = Field(86_400, ge=60, description="nor after so many: then the run counts as over.")


class ChecksSettings(Section):
    """Severity and thresholds of each asset check."""

    regression: RegressionCheck = RegressionCheck()
    degeneration: AnswersCheck = AnswersCheck()
    truncation: AnswersCheck = AnswersCheck()
    unscored: UnscoredCheck = UnscoredCheck()
    adapter_applied: AdapterCheck = AdapterCheck()
    freshness: FreshnessCheck = FreshnessCheck()


class AlertsSettings(Section):
    """Who is told of a failed check. The address may hold a secret: it is never shown."""

    webhook: SecretStr | None = Field(
        None,
        description="Address that failed checks are posted to as JSON; unset: nobody is told. Best set as "
        "`ML_PIPELINE__ALERTS__WEBHOOK`, since such addresses are secrets.",
    )
    severity: Severity = Field("warn", description="`error`: only failures of that severity are told.")
    timeout_s: float = Field(10, gt=0, le=30, description="Longest time of one attempt, in s.")
    fields: dict[str, str | int | bool] = Field(
        default_factory=dict, description="More fields of the JSON, such as ntfy's `topic`."
    )

    @property
    def address(self) -> str:
        """The webhook's whole address, or ''; for sending to alone."""
        return self.webhook.get_secret_value() if self.webhook else ""


class LinksSettings(Section):
    """Where people reach what the program shows, for links in the Dagster UI and in alerts."""

    report: str | None = Field(
        None, pattern=r"^https?://", description="Address under which the report is served; unset: its path is shown."
    )
    dagster: str | None = Field(
        None, pattern=r"^https?://", description="Address of the Dagster UI, `http://127.0.0.1:3000`, for alerts."
    )

    @field_validator("report", "dagster")
    @classmethod
    def _no_login(cls, value: str | None) -> str | None:
        return None if value is None else without_secrets(value, "Leave it out: whoever follows the link logs in there")
