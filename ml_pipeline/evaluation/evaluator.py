"""One checkpoint through all stages, each result handed out as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.backends.interface import AppliedProof, Backend
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.errors import StoreError
from ml_pipeline.evaluation.agreement import vote_facts
from ml_pipeline.evaluation.ask import ask, suite_options, suite_samples
from ml_pipeline.evaluation.choose import choose
from ml_pipeline.evaluation.facts import adapter_facts, converted_facts, response_facts, score_facts, soundness_facts
from ml_pipeline.evaluation.identity import Evaluation
from ml_pipeline.evaluation.judges import Judge, Judges, panel_name
from ml_pipeline.evaluation.judging import judge_answers
from ml_pipeline.evaluation.loading import ReadyModel
from ml_pipeline.evaluation.mark import checkpoint_scores, degeneration, heuristic_scores, probe_results
from ml_pipeline.evaluation.stages import STAGES, needs_adapter
from ml_pipeline.evaluation.votes import Judged
from ml_pipeline.judge_settings import EMBEDDED
from ml_pipeline.progress import ProgressListener
from ml_pipeline.settings import Settings
from ml_pipeline.suites.suite import Suite

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StageResult:
    """What one stage made: rows by table name (none for files), and facts worth showing."""

    stage: str
    tables: dict[str, list[Row]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluator:
    """Runs the stages with one loaded model, or without what none of them needs.

    `stored_rows(table, partition_key)` gives rows that an earlier run stored: a stage whose input is not made in this
    run works on those, so that a changed check or rubric needs no new answers. Once `cancelled` is true, the stage
    under way raises RunCancelledError; what it finished is in the completion cache.
    """

    settings: Settings
    suites: tuple[Suite, ...]
    model: ReadyModel
    stored_rows: Callable[[str, str], list[Row]]
    listener: ProgressListener
    judges: Judges
    cancelled: Callable[[], bool] = lambda: False

    def evaluate(self, checkpoint: Checkpoint, stages: Collection[str]) -> Iterator[StageResult]:
        """Run the chosen stages in order, yielding each result as it is made.

        Raises an error of this package when a stage fails; what was yielded before stays good.
        """
        responses: list[Row] | None = None
        if needs_adapter(stages):
            adapters = self.model.adapters
            assert adapters is not None
            adapter = adapters.adapter(checkpoint)
            if "adapter" in stages:
                yield StageResult("adapter", facts=adapter_facts(checkpoint, adapter))
            converted = adapters.converted_adapter(adapter)
            if "converted_adapter" in stages:
                yield StageResult("converted_adapter", facts=converted_facts(converted))
            if "responses" in stages:
                proof = self._backend.use_adapter(converted)
                evaluations = self._evaluations(checkpoint, adapter, proof, self._judge_model(stages))
                title = f"{checkpoint.label} answers"
                responses = ask(self._backend, evaluations, self._progress(title), self.cancelled)
                title = f"{checkpoint.label} choices"
                responses += choose(self._backend, evaluations, self._progress(title), self.cancelled)
                yield StageResult(
                    "responses",
                    {"evaluations": [evaluation.row() for evaluation in evaluations], "responses": responses},
                    response_facts(responses, proof, self._backend),
                )
        rest = [stage for stage in STAGES[3:] if stage in stages]
        if rest and responses is None:
            responses = self._stored("responses", checkpoint.key)
        for stage in rest:
            assert responses is not None
            if stage == "judgements":
                yield self._judge(checkpoint, responses)
            else:
                rows = self._mark(stage, responses)
                facts = score_facts(stage, rows)
                if stage == "heuristic_scores":
                    facts |= soundness_facts(degeneration(responses))
                yield StageResult(stage, {stage: rows}, facts)

    @property
    def _backend(self) -> Backend:
        assert self.model.backend is not None, "a stage that needs_model() does not know asks the model"
        return self.model.backend

    def _evaluations(
        self, checkpoint: Checkpoint, adapter: Adapter | None, proof: AppliedProof | None, judge_model: str | None
    ) -> list[Evaluation]:
        now, settings = datetime.now(UTC), self.settings.suites_for(checkpoint.base_model)
        return [
            Evaluation(
                checkpoint=checkpoint,
                suite=suite,
                options=suite_options(suite, settings),
                samples=suite_samples(suite, settings),
                backend=self._backend.identity(),
                adapter=adapter,
                proof=proof,
                judge_model=judge_model if suite.rubric else None,
                scored_at=now,
            )
            for suite in self.suites
        ]

    def _mark(self, stage: str, responses: Sequence[Row]) -> list[Row]:
        if stage == "heuristic_scores":
            return heuristic_scores(responses)
        if stage == "degeneration":
            return degeneration(responses)
        results = {suite.name: probe_results(suite, responses) for suite in self.suites}
        if stage == "probe_results":
            return [row for rows in results.values() for row in rows]
        return [row for rows in results.values() for row in checkpoint_scores(rows)]

    def _judge_model(self, stages: Collection[str]) -> str | None:
        """Who is to judge; no backend is opened for its name alone."""
        if "judgements" not in stages and self.settings.judge.members != (EMBEDDED,):
            return None
        return panel_name(self.judges.present(self._backend)) or None

    def _judge(self, checkpoint: Checkpoint, responses: Sequence[Row]) -> StageResult:
        judged, how = Judged(), self.settings.judge
        if judges := self._present_judges():
            progress = self._progress(f"{checkpoint.label} judged")
            judged = judge_answers(judges, how, self.suites, responses, progress, self.cancelled)
        facts = score_facts("judgements", judged.judgements) | vote_facts(judged.votes)
        if judged.judgements:
            facts |= soundness_facts(degeneration(responses))
        return StageResult("judgements", {"judgements": judged.judgements, "judge_votes": judged.votes}, facts)

    def _present_judges(self) -> list[Judge]:
        """All judges, ready: the checkpoint's own base model judges without the checkpoint's adapter."""
        if not self.judges.needs_embedded:
            return self.judges.present(None)
        self._backend.use_adapter(None)
        return self.judges.present(self._backend)

    def _stored(self, table: str, key: str) -> list[Row]:
        rows = self.stored_rows(table, key)
        if not rows:
            raise StoreError(f"{key}: no stored {table} to work on. Materialise {table!r} for this checkpoint first.")
        return rows

    def _progress(self, title: str) -> Callable[[int, int], None]:
        return lambda done, total: self.listener.step(title, done, total)
