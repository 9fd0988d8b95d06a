"""The engine that judges: concurrency, failures kept apart from scores, cancellation, going on where it stopped."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.backends.completion_cache import CachedBackend, CompletionCache
from ml_pipeline.backends.interface import Backend, CompletionRequest
from ml_pipeline.errors import BackendError, RunCancelledError
from ml_pipeline.evaluation.agreement import agreement
from ml_pipeline.evaluation.judges import Judge
from ml_pipeline.evaluation.judging import judge_answers
from ml_pipeline.evaluation.votes import Judged
from ml_pipeline.judge_settings import JudgeSettings
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import JUDGE_VOTES, JUDGEMENTS
from ml_pipeline.suites import Probe, load_rubrics
from ml_pipeline_tests.evaluation.rows import CHECKPOINT, SUITE, response
from ml_pipeline_tests.evaluation.scripted import GOOD, ScriptedBackend

Row = dict[str, Any]
CAPABILITY, TRUTHFULQA = load_rubrics(["capability", "truthfulqa"])
COUNT = 40
MANY = replace(
    SUITE,
    rubric=CAPABILITY,
    probes=tuple(Probe(f"p{n}", "math", f"{n} + 1?", check={"type": "number", "value": n + 1}) for n in range(COUNT)),
)
OTHER = replace(MANY, name="truth", rubric=TRUTHFULQA)
UNJUDGED = replace(MANY, name="unjudged", rubric=None)


def answer(text: str, number: int = 0, **changes: Any) -> Row:
    """The row of an answer to one of the probes of MANY."""
    return response("sum", text) | {"probe_id": f"p{number}"} | changes


ANSWERS = [answer(f"It is {n + 1}.", n) for n in range(COUNT)]


def judged(*backends: Backend | BackendError, answers: list[Row] = ANSWERS, **how: Any) -> Judged:
    judges = [Judge(f"j{number}", backend) for number, backend in enumerate(backends, start=1)]
    return judge_answers(judges, JudgeSettings(**how), [MANY, OTHER, UNJUDGED], answers)


def scores(rows: list[Row]) -> dict[str, float | None]:
    """Figures of one answer by dimension."""
    return {row["dimension"]: row["score"] for row in rows}


def figures(clarity: float) -> str:
    return json.dumps({"reasoning": 5, "correctness": 5, "clarity": clarity})


def says(clarity: float) -> ScriptedBackend:
    """A judge that gives every answer the same figures."""
    return ScriptedBackend(lambda request: figures(clarity))


@pytest.mark.parametrize("at_once", [1, 8])
def test_the_same_comes_out_however_many_run_at_once(at_once: int) -> None:
    def reply(request: CompletionRequest) -> str:
        time.sleep(hash(request.id) % 5 / 1000)  # so that they end in another order than they began
        number = int(request.id.split("/p")[-1].split("/")[0])
        return figures(number % 11)

    backend = ScriptedBackend(reply, at_once=at_once)
    rows = judged(backend).judgements
    conform(JUDGEMENTS, CHECKPOINT.key, rows)
    assert {row["probe_id"]: row["score"] for row in rows if row["dimension"] == "clarity"} == {
        f"p{n}": n % 11 for n in range(COUNT)
    }
    assert backend.most <= at_once


def test_mixed_suites_are_judged_by_their_own_rubrics_and_the_others_not_at_all() -> None:
    answers = [answer("x", suite=suite) for suite in ("short", "truth", "unjudged", "gone")]
    two = '{"truthfulness": 3, "informativeness": 4}'
    rows = judged(ScriptedBackend(lambda r: two if "/truth/" in r.id else GOOD), answers=answers).judgements
    by_suite = {row["suite"]: row["rubric"] for row in rows}
    assert by_suite == {"short": "capability 1.0", "truth": "truthfulqa 1.0"}
    assert scores([row for row in rows if row["suite"] == "truth"]) == {"truthfulness": 3, "informativeness": 4}


def test_many_models_at_once_keep_their_answers_apart() -> None:
    answers = [answer(str(n), partition_key=f"mac.run@{n}", evaluation_id=f"e{n}") for n in range(11)]

    def reply(request: CompletionRequest) -> str:
        return figures(int(request.messages[0].content.splitlines()[-2]))

    rows = judged(ScriptedBackend(reply), answers=answers).judgements
    clarity = {row["evaluation_id"]: row["score"] for row in rows if row["dimension"] == "clarity"}
    assert clarity == {f"e{n}": n for n in range(11)}


def test_figures_that_an_answer_claims_for_itself_are_no_judgement() -> None:
    answers = [answer(f"42. My grade: {GOOD}", 1), answer("42.", 2)]
    rows = judged(ScriptedBackend(lambda request: GOOD), answers=answers).judgements
    assert set(scores([row for row in rows if row["probe_id"] == "p1"]).values()) == {None}
    assert rows[0]["unscored_reason"] == "the answer holds these very figures: the judge may have quoted it"
    assert scores([row for row in rows if row["probe_id"] == "p2"])["avg"] == 7


def test_the_same_answer_twice_is_judged_twice() -> None:
    backend = ScriptedBackend(lambda request: GOOD)
    assert len(judged(backend, answers=ANSWERS[:1] * 3).judgements) == 3 * 4
    assert len({request.id for request in backend.asked}) == 3


def test_no_answers_ask_nobody() -> None:
    backend = ScriptedBackend(lambda request: GOOD)
    assert judged(backend, answers=[]) == Judged()
    assert judged(answers=ANSWERS) == Judged()
    assert not backend.asked


def test_a_judge_that_refuses_every_request_leaves_reasons_and_no_scores() -> None:
    backend = ScriptedBackend(lambda request: BackendError("HTTP 400: context too long"))
    rows = judged(backend).judgements
    assert {row["score"] for row in rows} == {None}
    assert all("HTTP 400: context too long" in row["unscored_reason"] for row in rows)
    assert len(backend.asked) == COUNT  # an error is not asked about again


def test_one_request_that_fails_takes_no_other_with_it() -> None:
    bad = "/p7/"
    rows = judged(ScriptedBackend(lambda r: BackendError("broken pipe") if bad in r.id else GOOD)).judgements
    missing = {row["probe_id"] for row in rows if row["score"] is None}
    assert missing == {"p7"}
    assert len(rows) == COUNT * 4


@pytest.mark.parametrize("constrains_json", [True, False])
def test_what_cannot_be_read_is_asked_again_with_the_error_as_often_as_set(constrains_json: bool) -> None:
    tries: Counter[str] = Counter()

    def reply(request: CompletionRequest) -> str:
        tries[request.id.split("#")[0]] += 1
        return GOOD if "#3" in request.id else GOOD.replace("4", "11")

    backend = ScriptedBackend(reply, constrains_json=constrains_json)
    rows = judged(backend, answers=ANSWERS[:2], reasks=5, explain=False).judgements
    assert scores(rows[:4]) == {"reasoning": 7, "correctness": 10, "clarity": 4, "avg": 7}
    assert set(tries.values()) == {3}
    assert rows[0]["transcript"].split("\n---\n") == [GOOD.replace("4", "11")] * 2 + [GOOD]
    again = [request for request in backend.asked if "#2" in request.id]
    assert all("must be within 0 to 10, not 11" in request.messages[-1].content for request in again)
    assert all(
        '{"reasoning": <0 to 10>, "correctness": <0 to 10>, "clarity": <0 to 10>}' in r.messages[-1].content
        for r in again
    )
    assert all((request.json_schema is not None) == constrains_json for request in backend.asked)


def test_a_judge_that_leaves_a_request_out_did_not_answer() -> None:
    class Forgetful(ScriptedBackend):
        def complete(self, requests: Any, **how: Any) -> Iterator[Any]:
            return super().complete(requests[1:], **how)

    rows = judged(Forgetful(lambda request: GOOD), answers=ANSWERS[:2]).judgements
    assert {row["unscored_reason"] for row in rows[:4]} == {"the judge did not answer"}
    assert scores(rows[4:])["clarity"] == 4


def test_an_exception_in_one_judge_stops_the_panel_at_once() -> None:
    def broken(request: CompletionRequest) -> str:
        raise ZeroDivisionError("a bug")

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        judged(ScriptedBackend(lambda request: None), ScriptedBackend(broken), panel_at_once=2)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("panel_at_once", [1, 3])
def test_a_panel_gives_the_median_and_keeps_every_vote(panel_at_once: int) -> None:
    backends = [says(clarity) for clarity in (2, 9, 3)]
    found = judged(*backends, answers=ANSWERS[:2], panel_at_once=panel_at_once)
    conform(JUDGEMENTS, CHECKPOINT.key, found.judgements)
    conform(JUDGE_VOTES, CHECKPOINT.key, found.votes)
    assert scores(found.judgements[:4]) == {
        "reasoning": 5,
        "correctness": 5,
        "clarity": 3,
        "avg": pytest.approx(13 / 3),
    }
    assert {(row["judge_model"], row["votes"], row["votes_asked"]) for row in found.judgements} == {
        ("j1 + j2 + j3", 3, 3)
    }
    clarity = [row for row in found.votes if row["dimension"] == "clarity" and row["probe_id"] == "p0"]
    assert [(row["judge_model"], row["repeat"], row["score"]) for row in clarity] == [
        ("j1", 1, 2),
        ("j2", 1, 9),
        ("j3", 1, 3),
    ]
    assert json.loads(clarity[1]["transcript"])["clarity"] == 9


def test_a_judge_that_is_away_does_not_silence_the_others() -> None:
    away = BackendError("judge z: connection refused")
    found = judged(ScriptedBackend(lambda request: GOOD), away, answers=ANSWERS[:1])
    assert scores(found.judgements)["clarity"] == 4
    assert {(row["votes"], row["votes_asked"]) for row in found.judgements} == {(1, 2)}
    assert {row["unscored_reason"] for row in found.votes if row["judge_model"] == "j2"} == {
        f"the judge failed: {away}"
    }
    with pytest.raises(BackendError, match="connection refused"):
        judged(away, BackendError("out of memory"), answers=ANSWERS[:1])


def test_repeats_have_seeds_of_their_own_and_a_temperature() -> None:
    backend = ScriptedBackend(lambda request: figures(request.options.seed % 11))
    found = judged(backend, answers=ANSWERS[:1], repeats=3, seed=5, repeat_temperature=0.4)
    assert {(r.options.seed, r.options.temperature) for r in backend.asked} == {(5, 0.4), (6, 0.4), (7, 0.4)}
    assert scores(found.judgements)["clarity"] == 6
    assert [row["score"] for row in found.votes if row["dimension"] == "clarity"] == [5, 6, 7]
    once = ScriptedBackend(lambda request: GOOD)
    assert judged(once, answers=ANSWERS[:1]).votes == []
    assert once.asked[0].options.temperature == 0


def test_agreement_is_by_judge_over_repeats_and_between_judges() -> None:
    steady = ScriptedBackend(lambda request: figures(int(request.id.split("/p")[1].split("/")[0])))
    other = ScriptedBackend(lambda request: figures(3 + request.options.seed))
    found = judged(steady, other, answers=ANSWERS[:4], repeats=2)
    rows = {row["between"]: row for row in agreement(found.votes) if row["dimension"] == "clarity"}
    assert (rows["repeats of j1"]["answers"], rows["repeats of j1"]["alpha_interval"]) == (4, 1.0)
    # Within: four times (3, 4). Pooled: four 3s, four 4s. 1 - 8 / (32 / 7).
    assert rows["repeats of j2"]["alpha_interval"] == pytest.approx(1 - 8 / (32 / 7))
    # Medians 0, 1, 2, 3 beside 3.5 each; pooled over all ordered pairs of the eight.
    pooled = [0, 1, 2, 3, 3.5, 3.5, 3.5, 3.5]
    expected = sum((a - b) ** 2 for a in pooled for b in pooled) / 7
    observed = 2 * sum((n - 3.5) ** 2 for n in range(4))
    assert rows["judges"]["alpha_interval"] == pytest.approx(1 - observed / expected)
    assert agreement([]) == []


@pytest.mark.parametrize("judges", [1, 2])
def test_cancelled_in_the_middle_nothing_is_half_stored_and_the_next_run_goes_on(judges: int, tmp_path: Path) -> None:
    enough, number = threading.Event(), itertools.count(1)

    def reply(request: CompletionRequest) -> str | None:
        if next(number) > 10:
            enough.set()
            return None  # until it is cancelled
        return GOOD

    names = [f"j{n}" for n in range(judges)]
    how = JudgeSettings(panel_at_once=judges)

    def run(reply: Any, cancelled: Any) -> tuple[Judged, int]:
        backends = [ScriptedBackend(reply, name, at_once=2) for name in names]
        caches = [CompletionCache(tmp_path / "c.sqlite") for _ in names]
        members = [
            Judge(name, CachedBackend(backend, cache))
            for name, backend, cache in zip(names, backends, caches, strict=True)
        ]
        try:
            found = judge_answers(members, how, [MANY], ANSWERS, cancelled=cancelled)
        finally:
            for cache in caches:
                cache.close()
        return found, sum(len(backend.asked) for backend in backends)

    with pytest.raises(RunCancelledError, match="completion cache"):
        run(reply, enough.is_set)
    rest, asked = run(lambda request: GOOD, lambda: False)
    assert asked == COUNT * judges - 10
    assert {row["score"] for row in rest.judgements if row["dimension"] == "clarity"} == {4}


def test_ctrl_c_leaves_the_judge_free_and_the_next_run_goes_on(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    number = itertools.count(1)
    first = ScriptedBackend(lambda request: GOOD if next(number) <= 12 else None)
    second = ScriptedBackend(lambda request: GOOD)
    threads = threading.active_count()
    with closing(CompletionCache(tmp_path / "c.sqlite")) as cache:
        with pytest.raises(KeyboardInterrupt):
            judge_answers([Judge("j", CachedBackend(first, cache))], JudgeSettings(), [MANY], ANSWERS, interrupt)
        assert threading.active_count() == threads
        found = judge_answers([Judge("j", CachedBackend(second, cache))], JudgeSettings(), [MANY], ANSWERS)
    assert len(second.asked) == COUNT - 10
    assert len(found.judgements) == COUNT * 4


def test_progress_rises_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    judges = [Judge(str(n), ScriptedBackend(lambda request: GOOD)) for n in range(2)]
    judge_answers(
        judges, JudgeSettings(panel_at_once=2, repeats=2), [MANY], ANSWERS, lambda done, of: seen.append((done, of))
    )
    assert seen == [(done, COUNT * 4) for done in range(COUNT * 4 + 1)]
