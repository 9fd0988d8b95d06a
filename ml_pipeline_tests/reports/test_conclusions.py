"""What the reports conclude, held by simulation: how often each statement is wrong, and how often a fall is found."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ml_pipeline.reports import conclusions
from ml_pipeline.reports.comparison import compare, compare_means, compare_run
from ml_pipeline.reports.conclusions import AnswerTable, Share
from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.trouble import run_standing
from ml_pipeline.reports.wording import headline
from ml_pipeline_tests.reports import simulated_runs as simulated
from ml_pipeline_tests.reports.sample_scores import Checkpoint, scores_of
from ml_pipeline_tests.reports.simulated_runs import ALL_SIGNS, Kind, SimulatedRun, grown, rate, runs_of

Event = Callable[[SimulatedRun], bool]


def at_most(share: float, count: int) -> float:
    """What a rate that is truly `share` exceeds in one of 3,000 such simulations."""
    return float(share + 3.4 * (share * (1 - share) / count) ** 0.5)


EQUAL = [
    pytest.param(Kind(1, 41), 150, id="1-41"),
    pytest.param(Kind(5, 41, a=2, b=2), 100, id="5-41"),
    pytest.param(Kind(20, 41), 100, id="20-41"),
    pytest.param(Kind(20, 41, samples=5), 20, id="20-41-samples"),
    pytest.param(Kind(5, 610, of_template=10), 15, id="5-610-templates"),
    pytest.param(Kind(1, 200, a=2, b=2, suites=3), 150, id="1-200-suites"),
    pytest.param(Kind(5, 41, a=2, b=2, suites=4), 60, id="5-41-suites"),
]
MANY_EQUAL = [
    pytest.param(Kind(checkpoints, probes, a, b, of_template=of, samples=samples), count)
    for checkpoints, probes, count in ((1, 41, 1500), (5, 41, 800), (20, 41, 500), (50, 41, 200), (20, 610, 60))
    for a, b, of, samples in ((0.5, 1.0, 1, 1), (2, 2, 5, 1), (0.3, 0.3, 1, 3))
] + [
    pytest.param(Kind(checkpoints, probes, 2, 2, suites=3), count)
    for checkpoints, probes, count in ((1, 41, 2000), (1, 610, 600), (5, 41, 600), (5, 610, 100), (20, 41, 150))
]
ERRORS: dict[str, Event] = {
    "in trouble": simulated.called_bad,
    "falling": simulated.said_to_fall,
    "better or worse": simulated.wrong_verdict,
    "together": simulated.wrong_together,
    "best not named": lambda run: not simulated.best_is_named(run),
    "best not covered": lambda run: not simulated.best_is_covered(run),
    "gain of the best not covered": lambda run: not simulated.best_gain_is_covered(run),
}


def errors_of(kind: Kind, count: int) -> dict[str, float]:
    """How often each statement errs, all of them about the same runs."""
    wrong = dict.fromkeys(ERRORS, 0)
    for run in runs_of(kind, count, seed=7):
        for name, event in ERRORS.items():
            wrong[name] += event(run)
    return {name: times / count for name, times in wrong.items()}


@pytest.mark.parametrize(("kind", "count"), EQUAL)
def test_of_equal_checkpoints_no_statement_errs_more_often_than_it_may(kind: Kind, count: int) -> None:
    assert {name: share for name, share in errors_of(kind, count).items() if share > at_most(0.05, count)} == {}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), MANY_EQUAL)
def test_of_many_more_runs_neither(kind: Kind, count: int) -> None:
    assert {name: share for name, share in errors_of(kind, count).items() if share > at_most(0.05, count)} == {}


EVERYTHING = Kind(20, 41, of_template=5, suites=3, signs=ALL_SIGNS, judge=2.0)


def test_all_signs_and_suites_together_err_no_more() -> None:
    assert rate(EVERYTHING, 40, simulated.called_bad) <= at_most(0.05, 40)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [1, 5, 20, 50])
def test_all_signs_and_suites_together_err_no_more_in_many_runs(checkpoints: int) -> None:
    kind = Kind(checkpoints, 41, of_template=5, suites=3, signs=ALL_SIGNS, judge=2.0)
    count = 2000 // (checkpoints + 5)
    assert rate(kind, count, simulated.called_bad) <= at_most(0.05, count)


def ever_called_bad(run: SimulatedRun) -> bool:
    """Whether any of the reports, one after each new checkpoint, says trouble or falling."""
    for curves in grown(run):
        seen = SimulatedRun(curves, run.truths)
        if simulated.called_bad(seen) or simulated.said_to_fall(seen):
            return True
    return False


def test_a_sound_run_that_is_watched_while_it_grows_is_rarely_ever_called_bad() -> None:
    assert rate(Kind(10, 41, signs=ALL_SIGNS), 60, ever_called_bad) <= at_most(0.05, 60)


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoints", "probes", "count"), [(20, 41, 300), (50, 41, 60), (20, 610, 25)])
def test_many_watched_runs(checkpoints: int, probes: int, count: int) -> None:
    kind = Kind(checkpoints, probes, signs=ALL_SIGNS, judge=2.0, suites=2)
    assert rate(kind, count, ever_called_bad) <= at_most(0.05, count)


def test_what_was_said_of_a_checkpoint_is_said_again_when_the_run_is_longer() -> None:
    generator = np.random.default_rng(4)
    for _ in range(30):
        values = (generator.random((13, 60)) < np.linspace(0.9, 0.2, 13)[:, None]).astype(np.int64)
        tables = [
            AnswerTable(values[:rows], np.ones((rows, 60), bool), np.zeros((rows, 60), bool), 1, True)
            for rows in range(2, 14)
        ]
        found = [conclusions.falls(table) for table in tables]
        assert any(found[-1])
        for shorter, longer in pairwise(found):
            assert longer[: len(shorter)] == shorter


def test_the_level_of_a_watched_run_adds_up_to_its_error() -> None:
    for levels in (
        [conclusions.watched_level(k, 0.05) for k in range(1, 4000)],
        [conclusions.base_fall_level(k, 1, 0.05) for k in range(1, 4000)],
    ):
        assert sum(levels) == pytest.approx(0.05, abs=0.003)
        assert sum(levels) < 0.05


@pytest.mark.parametrize("probes", [240, 610])
def test_falls_and_gains_are_found_as_often_as_the_report_says(probes: int) -> None:
    """A change of as many points as the report of equal checkpoints names, at the last of five, is found 4 times in 5;
    so is, as trouble, a fall from the figure beside it."""
    equal = [run.curves[0] for run in runs_of(Kind(5, probes, a=2, b=1), 5, seed=3)]
    least = float(np.median([curve.typical.detectable if curve.typical else 1 for curve in equal]))
    fall = float(np.median([curve.detectable_fall or 1 for curve in equal]))
    count = 40

    def told(step: float, event: Event) -> float:
        return rate(Kind(5, probes, a=2, b=1, steps=[0, 0, 0, 0, step]), count, event, seed=5)

    def verdict(words: str) -> Event:
        return lambda run: (found := run.curves[0].points[-1].vs_base) is not None and found.verdict == words

    enough = 0.8 - 3 * (0.8 * 0.2 / count) ** 0.5
    assert told(-least, verdict("worse")) >= enough
    assert told(least, verdict("better")) >= enough
    assert told(-fall, simulated.called_bad) >= enough


@pytest.mark.slow
@pytest.mark.parametrize(("fall", "probes"), [(0.20, 41), (0.10, 240), (0.05, 610), (0.10, 610), (0.20, 610)])
def test_planted_falls_are_found_where_the_report_says_so(fall: float, probes: int) -> None:
    (equal,) = (run.curves[0] for run in runs_of(Kind(1, probes, a=2, b=1), 1, seed=3))
    kind = Kind(1, probes, a=2, b=1, steps=[-fall])
    found = rate(kind, 300, lambda run: run.curves[0].points[-1].vs_base.verdict == "worse")
    # Where the report names a smaller difference than this one it is found 4 times in 5, where a larger one seldomer.
    assert equal.typical is not None
    assert (found >= 0.8 - 0.07) if fall >= equal.typical.detectable else found < 0.95


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_the_truly_best_of_unequal_checkpoints_is_named_and_its_figures_covered(spread: float) -> None:
    kind = Kind(10, 100, a=2, b=2, steps=np.linspace(-spread, spread, 10).tolist())
    found = errors_of(kind, 60)
    for name in ("best not named", "best not covered", "gain of the best not covered"):
        assert found[name] <= at_most(0.05, 60)


def test_the_named_set_is_small_where_the_best_is_far_ahead() -> None:
    (run,) = runs_of(Kind(6, 200, a=2, b=2, steps=[0, 0, 0.4, 0, 0, 0]), 1, seed=2)
    assert [point.iteration for point in run.curves[0].best] == [30]
    assert run.curves[0].near_best == ()


def test_the_luck_of_the_best_is_about_what_it_is_above_its_truth() -> None:
    above, said = [], []
    for run in runs_of(Kind(20, 41), 40, seed=9):
        curve = run.curves[0]
        assert curve.luck is not None
        value = max(point.accuracy.value for point in curve.points if point.accuracy is not None)
        above.append(value - run.truths[0][1])
        said.append(curve.luck)
    assert np.mean(above) > 0.06
    assert np.mean(said) == pytest.approx(np.mean(above), abs=0.025)


def test_luck_is_little_where_the_checkpoints_truly_differ() -> None:
    (run,) = runs_of(Kind(10, 610, a=2, b=2, steps=np.linspace(-0.3, 0.3, 10).tolist()), 1, seed=2)
    assert (run.curves[0].luck or 0) < 0.02


@pytest.mark.parametrize(
    "chances",
    [np.where(np.arange(41) % 2, 0.95, 0.02), np.full(41, 0.1), np.full(41, 0.9)],
    ids=["decided", "rarely", "mostly"],
)
def test_all_together_holds_its_level_where_probes_are_alike_or_decided(chances: np.ndarray) -> None:
    generator, wrong, count = np.random.default_rng(2), 0, 400
    for _ in range(count):
        base, others = generator.random(41) < chances, generator.random((20, 41)) < chances
        found = compare_run(_by_probe(base), [_by_probe(other) for other in others])
        wrong += found is not None and found.verdict != "no clear difference"
    assert wrong / count <= at_most(0.05, count)


def _by_probe(passed: np.ndarray) -> dict[str, bool]:
    return {f"p{index}": bool(value) for index, value in enumerate(passed)}


def test_interval_and_verdict_are_one_statement() -> None:
    generator = np.random.default_rng(8)
    for _ in range(200):
        probes, tests = int(generator.integers(5, 80)), int(generator.integers(1, 30))
        low, high = np.sort(generator.random(2))
        base, ours = _by_probe(generator.random(probes) < low), _by_probe(generator.random(probes) < high)
        found = compare(base, ours, tests=tests)
        assert found is not None
        assert (found.low > 0) == (found.verdict == "better")
        assert (found.high < 0) == (found.verdict == "worse")


def test_ranks_share_a_place_where_values_are_equal() -> None:
    assert conclusions.ranks([0.5, None, 0.7, 0.1 + 0.2, 0.3, 0.7]) == [
        (3, False), (None, False), (1, True), (4, True), (4, True), (1, True),
    ]  # fmt: skip


def test_a_share_of_broken_answers_must_be_notable_and_surely_higher() -> None:
    none, all_of_them = Share(0, 41, 0.0, 0.09), Share(41, 41, 0.91, 1.0)
    assert conclusions.more_broken(none, all_of_them, 50, 3)
    assert not conclusions.more_broken(all_of_them, all_of_them, 1, 1)
    # 12 of 41 against none: intervals apart and p = 9e-5, enough at the first checkpoint but not at the fiftieth.
    some = Share(12, 41, 0.176, 0.445)
    assert conclusions.more_broken(none, some, 1, 1)
    assert not conclusions.more_broken(none, some, 50, 1)
    assert conclusions.more_broken(none, some, 50, 1, first=False)
    assert conclusions.more_broken(None, some, 1, 1)
    assert not conclusions.more_broken(none, Share(9, 41, 0.12, 0.37), 1, 1)


def test_a_judge_that_gives_less_on_every_probe_is_heard_on_enough_probes() -> None:
    assert conclusions.judged_lower([-1.0] * 12, 1, 1)
    assert not conclusions.judged_lower([-1.0] * 5, 1, 1)
    assert not conclusions.judged_lower([1.0] * 40, 1, 1)
    assert not conclusions.judged_lower([], 1, 1)


CUT = frozenset(f"p{index}" for index in range(41))


def test_a_limit_that_cuts_the_talkative_base_alone_is_no_gain() -> None:
    base, terse = _by_probe(np.zeros(41)), _by_probe(np.arange(41) < 25)
    found = compare(base, terse, cut=(CUT, frozenset()))
    assert found is not None
    assert found.verdict == "the token limit decides"
    assert found.limit is not None
    assert (found.limit.cut_reference, found.limit.cut_candidate, found.paired) == (1.0, 0.0, 0)
    assert found.limit.delta == pytest.approx(25 / 41)
    assert not found.low > 0


def test_where_the_limit_cuts_one_side_more_the_verdict_rests_on_what_both_finished() -> None:
    base = _by_probe(np.arange(41) >= 21)
    gained = _by_probe(np.ones(41))
    cut = frozenset(f"p{index}" for index in range(11))
    found = compare(base, gained, cut=(cut, frozenset()))
    assert found is not None
    # Of the 21 probes gained the base was cut on 11; the other ten are 2 / 2**10.
    assert (found.paired, found.better, found.worse, found.p_value) == (30, 10, 0, 2 / 2**10)
    assert found.verdict == "better"
    alike = compare(base, gained, cut=(cut, cut))
    assert alike is not None
    assert (alike.limit, alike.paired) == (None, 41)


def test_equal_checkpoints_that_are_cut_by_chance_are_not_told_apart_more_often() -> None:
    generator, wrong, count = np.random.default_rng(12), 0, 1500
    for _ in range(count):
        chances = generator.beta(1, 1, 41)
        cut = generator.random((2, 41)) < 0.4
        passed = (generator.random((2, 41)) < chances) & ~cut
        names = [frozenset(f"p{index}" for index in np.flatnonzero(row)) for row in cut]
        found = compare(_by_probe(passed[0]), _by_probe(passed[1]), cut=(names[0], names[1]))
        wrong += found is not None and found.verdict in ("better", "worse")
    assert wrong / count <= at_most(0.05, count)


def test_one_run_has_one_standing() -> None:
    kind = Kind(3, 60, a=2, b=1, suites=2, steps=[-0.6, -0.6, -0.6])
    (run,) = runs_of(kind, 1, seed=1)
    first, second = (run_standing(curve) for curve in run.curves)
    assert first is second
    assert first.trouble is not None
    assert not first.calm


def test_figures_of_answers_that_the_limit_cut_on_one_side_are_not_compared() -> None:
    before = {f"p{index}": 2.0 + (index % 3) for index in range(41)}
    after = {name: value + 5 * (index < 20) for index, (name, value) in enumerate(before.items())}
    cut = frozenset(f"p{index}" for index in range(20))
    found = compare_means(before, after, {}, cut=(cut, frozenset()))
    assert found is not None
    assert (found.paired, found.delta) == (21, 0.0)
    assert compare_means(before, after, {}, cut=(CUT, frozenset())) is None
    alike = compare_means(before, after, {}, cut=(cut, cut))
    assert alike is not None
    assert alike.paired == 41


def test_a_talkative_base_and_a_terse_run_get_a_warning_and_no_calm() -> None:
    probes = [f"p{index}" for index in range(41)]
    ended = dict.fromkeys(probes, "length")
    base = Checkpoint("tiny", 0, dict.fromkeys(probes, False), source="base", finish_reasons=ended)
    terse = Checkpoint("r", 10, {probe: index < 25 for index, probe in enumerate(probes)})
    (curve,) = run_curves(scores_of(base, terse))
    standing = run_standing(curve)
    assert (standing.trouble, standing.calm) == (None, False)
    assert standing.limits == (
        "on capability the token limit cuts 100% of the base's answers and 0% of iteration 10's: "
        "raise max_tokens before comparing them",
    )
    assert "Better than" not in headline(curve)
    assert curve.trend == "no clear change"


def test_answers_that_go_round_in_circles_are_not_the_limits_doing() -> None:
    probes = [f"p{index}" for index in range(41)]
    base = Checkpoint("tiny", 0, {probe: index < 25 for index, probe in enumerate(probes)}, source="base")
    loops = "the sun the sun. " * 60
    hot = Checkpoint(
        "r",
        10,
        dict.fromkeys(probes, False),
        responses=dict.fromkeys(probes, loops),
        finish_reasons=dict.fromkeys(probes, "length"),
    )
    (curve,) = run_curves(scores_of(base, hot))
    assert curve.points[0].vs_base is not None
    assert curve.points[0].vs_base.verdict == "worse"
    assert run_standing(curve).trouble is not None


def test_broken_answers_are_not_called_best() -> None:
    probes = [f"p{index}" for index in range(41)]
    base = Checkpoint("tiny", 0, {probe: index < 5 for index, probe in enumerate(probes)}, source="base")
    # By chance right more often than the others, in loops.
    loops = Checkpoint(
        "r",
        10,
        {probe: index < 9 for index, probe in enumerate(probes)},
        responses=dict.fromkeys(probes, "the sun the sun. " * 60),
    )
    sound = Checkpoint("r", 20, {probe: index < 7 for index, probe in enumerate(probes)})
    (curve,) = run_curves(scores_of(base, loops, sound))
    assert [point.iteration for point in curve.best] == [20]
    assert curve.near_best == ()


def test_nothing_below_the_base_is_called_best_in_a_run_that_is_worse_as_a_whole() -> None:
    probes = [f"p{index:02}" for index in range(41)]

    def right(iteration: int, count: int, **changes: Any) -> Checkpoint:
        passed = {probe: index < count for index, probe in enumerate(probes)}
        return Checkpoint(changes.pop("run", "r"), iteration, passed, **changes)

    base = right(0, 20, run="tiny", source="base")
    # Six lost of six prove nothing for one of four (4 x 2 / 2**6); that all four lose the same six does.
    (curve,) = run_curves(scores_of(base, *(right(at, 14) for at in (10, 20, 30, 40))))
    assert {point.vs_base.verdict for point in curve.points if point.vs_base} == {"no clear difference"}
    assert curve.vs_base is not None
    assert curve.vs_base.verdict == "worse"
    assert curve.best == curve.near_best == ()
    assert headline(curve).startswith("None is called best: the highest, iterations 10, 20, 30 and 40, equal, 34% ")
    # The first, before the others broke, may still be.
    (curve,) = run_curves(scores_of(base, right(10, 20), *(right(at, 10) for at in (20, 30, 40))))
    assert curve.vs_base is not None
    assert curve.vs_base.verdict == "worse"
    assert [point.iteration for point in curve.best] == [10]
