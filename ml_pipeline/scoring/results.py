"""Pass, fail or unscored: what a completion is worth under its probe's check."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.backends.interface import Completion
from ml_pipeline.scoring.checks import check_answer
from ml_pipeline.suites.suite import Probe


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of one probe. `passed` is None when it could not be scored, and `unscored_reason` says why.

    `expected` is what the check wanted, `extracted` what it read out of the answer, `template` the template that made
    the probe, if one did.
    """

    probe_id: str
    category: str
    passed: bool | None
    expected: str
    extracted: str | None = None
    unscored_reason: str | None = None
    template: str = ""


def score_probe(probe: Probe, completion: Completion) -> ProbeResult:
    """Check a completion against its probe.

    An answer that an error or a cancellation ended is unscored: it says nothing about the model. An answer cut at the
    token limit is scored, and so is an empty one that the model itself ended: those are its doing.

    Raises ValueError when the probe has no check.
    """
    if probe.check is None:
        raise ValueError(f"probe {probe.id!r} has no check; only a judge can score it.")
    checked = check_answer(probe.check, completion.text, prompt=probe.prompt)
    if reason := unfinished_reason(completion):
        return ProbeResult(probe.id, probe.category, None, checked.expected, None, reason, probe.template)
    return ProbeResult(
        probe.id, probe.category, checked.passed, checked.expected, checked.extracted, template=probe.template
    )


def unfinished_reason(completion: Completion) -> str | None:
    """Why a completion is no answer of the model's own making, or None."""
    if completion.error is not None or completion.finish_reason == "error":
        return f"the answer ended with an error: {completion.error or 'not told which'}"
    if completion.finish_reason == "cancelled":
        return "the answer was cancelled"
    return None
