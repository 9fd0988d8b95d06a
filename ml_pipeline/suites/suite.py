"""The records of a scoring suite: what is asked, how an answer is checked, and who judges it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ml_pipeline.suites.filters import FilterPipelines

SuiteKind = Literal["capability", "content"]


@dataclass(frozen=True, slots=True)
class Probe:
    """One prompt of a suite.

    `check` (capability probes) is the validated description of a deterministic check, see `scoring.checks`.
    `ground_truth`, `propaganda_markers` and `truth_markers` (content probes) are what a judge and a reader compare
    the answer with. `template` is the id of the template that made the probe, empty for one written out: probes of
    one template succeed and fail together more than others.
    """

    id: str
    category: str
    prompt: str
    system: str = ""
    check: dict[str, Any] | None = None
    ground_truth: str = ""
    propaganda_markers: tuple[str, ...] = ()
    truth_markers: tuple[str, ...] = ()
    template: str = ""

    @property
    def scores_choices(self) -> bool:
        """Whether its choices are scored by their log-likelihood, so that no answer is written."""
        return self.check is not None and self.check["type"] == "log_likelihood"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One figure that a judge gives: its name, what it measures, and the range of its score."""

    name: str
    description: str
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Rubric:
    """What a judge is told and must answer.

    `average` asks for the mean of the dimensions beside them, as the dimension `avg`. `sha256` is the hash of the
    canonical content.
    """

    name: str
    version: str
    instructions: str
    dimensions: tuple[Dimension, ...]
    sha256: str
    average: bool = False


@dataclass(frozen=True, slots=True)
class Suite:
    """A named, versioned list of probes.

    `temperature`, `max_tokens` and `samples` (how often each probe is asked) are the suite's own generation defaults;
    settings may override them. `sha256` is the hash of the canonical content (not of the file's bytes), so comments,
    layout and the description do not change it; the rubric has a hash of its own. `filters` are how its answers are
    read in place of the checks' own readers. `left_out` says how many rows of a data set made no probe, by reason.
    """

    name: str
    version: str
    kind: SuiteKind
    description: str
    temperature: float
    max_tokens: int
    rubric: Rubric | None
    probes: tuple[Probe, ...]
    sha256: str
    samples: int = 1
    filters: FilterPipelines | None = None
    left_out: tuple[tuple[str, int], ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of its probes, in order of first appearance."""
        return tuple(dict.fromkeys(probe.category for probe in self.probes))
