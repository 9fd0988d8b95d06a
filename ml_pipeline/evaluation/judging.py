"""Has judges mark answers: every judge, every repeat, and again where a reply cannot be read."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ml_pipeline.backends.fan_out import fan_out
from ml_pipeline.backends.interface import Backend, Completion, CompletionRequest, GenerationOptions
from ml_pipeline.errors import MlPipelineError, RunCancelledError
from ml_pipeline.evaluation.answering import answering, demand_all
from ml_pipeline.evaluation.judges import Judge, panel_name
from ml_pipeline.evaluation.mark import first_answers, stored_completion
from ml_pipeline.evaluation.votes import Judged, Vote, judgement_rows, vote_rows
from ml_pipeline.judge_settings import JudgeSettings
from ml_pipeline.scoring import JudgeReading, judge_request, read_judgement, reask_request, unjudgeable_reason, unjudged
from ml_pipeline.suites.suite import Probe, Rubric, Suite

Row = dict[str, Any]
_BATCH = 1000
"""Answers before the judges at a time: bounds the prompts in memory."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One answer that is to be judged; `unjudgeable` says why it is not put to the judges."""

    id: str
    response: Row
    probe: Probe
    rubric: Rubric
    unjudgeable: str | None


@dataclass(slots=True)
class _Ballot:
    """One judge's vote on one case as it comes about."""

    case: _Case
    request: CompletionRequest
    vote: Vote
    heard: bool = False

    def hear(self, completion: Completion) -> JudgeReading:
        """Read a reply into the vote; a later reply only ever adds to what an earlier one said."""
        reading = read_judgement(self.case.rubric, completion, self.case.response["response"])
        vote = self.vote
        if not self.heard or len(reading.reasons) < len(vote.reading.reasons):
            vote.reading = reading
        vote.transcript = f"{vote.transcript}\n---\n{completion.text}" if self.heard else completion.text
        self.heard = True
        return reading


def judge_answers(
    judges: Sequence[Judge],
    how: JudgeSettings,
    suites: Sequence[Suite],
    responses: Sequence[Row],
    progress: Callable[[int, int], None] = lambda done, total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Judged:
    """Judge the first answer to every probe whose suite has a rubric; the answers may be those of many models.

    `progress` is called with votes done and in all. An answer that an error ended, or that is empty, is not put to
    the judges. A judge whose reply cannot be read in full is asked again with the error shown; what is missing then
    stays unscored, with the reason. So does the whole vote of a judge that fails while another one does not.

    Raises the error of the first judge when all of them fail, and RunCancelledError when `cancelled` became true
    before all had ended.
    """
    judged = Judged()
    for batch in judge_in_batches(judges, how, suites, responses, progress, cancelled):
        judged.judgements += batch.judgements
        judged.votes += batch.votes
    return judged


def judge_in_batches(
    judges: Sequence[Judge],
    how: JudgeSettings,
    suites: Sequence[Suite],
    responses: Sequence[Row],
    progress: Callable[[int, int], None] = lambda done, total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Judged]:
    """As `judge_answers`, a thousand answers at a time, so that millions of them need not fit in memory."""
    cases = _cases(how, suites, responses)
    total = sum(case.unjudgeable is None for case in cases) * len(judges) * how.repeats
    count = _Count(progress, total)
    several, name = len(judges) * how.repeats > 1, panel_name(judges)
    for start in range(0, len(cases) if judges else 0, _BATCH):
        batch = cases[start : start + _BATCH]
        votes = _votes(judges, how, batch, count, cancelled)
        judged = Judged()
        for case in batch:
            own = votes[case.id]
            judged.judgements += judgement_rows(case.response, case.rubric, name, own, case.unjudgeable)
            if several:
                judged.votes += [row for vote in own for row in vote_rows(case.response, case.rubric, vote)]
        yield judged
    count.end()


def _cases(how: JudgeSettings, suites: Sequence[Suite], responses: Sequence[Row]) -> list[_Case]:
    chosen = {suite.name: (suite.rubric, _chosen_probes(suite, how.answers_per_suite)) for suite in suites}
    seen: Counter[str] = Counter()
    cases = []
    for response in first_answers(responses):
        rubric, probes = chosen.get(response["suite"], (None, {}))
        probe = probes.get(response["probe_id"])
        if rubric is None or probe is None:
            continue
        name = f"judge/{response['partition_key']}/{response['suite']}/{probe.id}"
        seen[name] += 1
        if seen[name] > 1:
            name = f"{name}/{seen[name]}"
        cases.append(_Case(name, response, probe, rubric, unjudgeable_reason(stored_completion(response))))
    return cases


def _chosen_probes(suite: Suite, count: int | None) -> dict[str, Probe]:
    total = len(suite.probes)
    if count is None or count >= total:
        return {probe.id: probe for probe in suite.probes}
    return {probe.id: probe for probe in (suite.probes[index * total // count] for index in range(count))}


def _votes(
    judges: Sequence[Judge], how: JudgeSettings, cases: Sequence[_Case], count: _Count, cancelled: Callable[[], bool]
) -> dict[str, list[Vote]]:
    """All votes on each case, by its id; none on a case that cannot be judged."""
    failures: dict[str, MlPipelineError] = {}

    def ask(judge: Judge, cancelled: Callable[[], bool]) -> list[_Ballot]:
        ballots = _ballots(judge, how, cases)
        try:
            if isinstance(judge.backend, MlPipelineError):
                raise judge.backend
            _ask(judge.backend, how, ballots, count, cancelled)
        except RunCancelledError:
            raise
        except MlPipelineError as error:
            failures[judge.name] = error
            for ballot in ballots:
                if not ballot.heard:
                    ballot.vote.reading = unjudged(ballot.case.rubric, f"the judge failed: {error}")
        return ballots

    if len(judges) == 1:
        asked = {judges[0].name: ask(judges[0], cancelled)}
    else:
        stopping = threading.Event()
        ended = fan_out(
            lambda judge: ask(judge, lambda: stopping.is_set() or cancelled()),
            judges,
            at_once=how.panel_at_once,
            cancelled=cancelled,
            stop=stopping.set,
        )
        asked = {judge.name: ballots for judge, ballots in ended}
    if len(failures) == len(judges):
        raise failures[judges[0].name]
    votes: dict[str, list[Vote]] = {case.id: [] for case in cases}
    for judge in judges:
        for ballot in asked[judge.name]:
            votes[ballot.case.id].append(ballot.vote)
    return votes


def _ballots(judge: Judge, how: JudgeSettings, cases: Sequence[_Case]) -> list[_Ballot]:
    """One for every case that can be judged and every repeat. Repeats are drawn, each with a seed of its own."""
    temperature = how.repeat_temperature if how.repeats > 1 else 0.0
    ballots = []
    for case in cases:
        if case.unjudgeable is not None:
            continue
        request = judge_request(
            case.rubric,
            case.probe,
            case.response["response"],
            request_id=case.id,
            options=GenerationOptions(temperature=temperature, max_tokens=how.max_tokens),
            explain=how.explain,
        )
        for repeat in range(1, how.repeats + 1):
            drawn = replace(request.options, seed=how.seed + repeat - 1)
            vote = Vote(judge.name, repeat, unjudged(case.rubric, "the judge did not answer"))
            ballots.append(_Ballot(case, replace(request, id=f"{case.id}/{repeat}", options=drawn), vote))
    return ballots


def _ask(
    backend: Backend, how: JudgeSettings, ballots: Sequence[_Ballot], count: _Count, cancelled: Callable[[], bool]
) -> None:
    """Put the ballots to one judge, and again those whose reply cannot be read in full."""
    asked = {ballot.request.id: ballot for ballot in ballots}
    requests = [ballot.request for ballot in ballots]
    for tries in range(1, how.reasks + 2):
        if not requests:
            return
        if not backend.constrains_json:  # the prompt names the form, and the reply is checked either way
            requests = [replace(request, json_schema=None) for request in requests]
        ended: list[Completion] = []
        again: dict[str, _Ballot] = {}
        requests_again = []
        with answering(backend, requests, cancelled) as completions:
            for completion in completions:
                ended.append(completion)
                ballot = asked[completion.request_id]
                reading = ballot.hear(completion)
                request = reask_request(ballot.request, completion, reading, tries + 1) if tries <= how.reasks else None
                if request is None:
                    count.one_more()
                else:
                    again[request.id] = ballot
                    requests_again.append(request)
        demand_all(ended, "judgements")
        asked, requests = again, requests_again


class _Count:
    """Tells how many votes are in; judges of a panel work at the same time."""

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()
        progress(0, total)

    def one_more(self) -> None:
        """One vote is in."""
        with self._lock:
            self._done += 1
            self._progress(self._done, self._total)

    def end(self) -> None:
        """All are in, those included that nobody gave."""
        if self._done < self._total:
            self._progress(self._total, self._total)
