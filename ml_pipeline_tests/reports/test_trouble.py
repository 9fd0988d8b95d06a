from __future__ import annotations

from typing import Any

from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.trouble import Trouble, first_trouble
from ml_pipeline_tests.reports.sample_scores import Checkpoint, sample_scores, scores_of

PROBES = [f"p{index:02}" for index in range(20)]


def checkpoint(iteration: int, right: int, cut: int = 0, **changes: Any) -> Checkpoint:
    return Checkpoint(
        changes.pop("run", "r"),
        iteration,
        {probe: index < right for index, probe in enumerate(PROBES)},
        finish_reasons=dict.fromkeys(PROBES[:cut], "length"),
        **changes,
    )


BASE = checkpoint(0, 10, source="base", run="tiny")


def trouble(*checkpoints: Checkpoint) -> Trouble | None:
    (curve,) = run_curves(scores_of(*checkpoints))
    return first_trouble(curve)


def test_degeneration_that_lasts() -> None:
    found = trouble(BASE, checkpoint(10, 11), checkpoint(20, 1, cut=20), checkpoint(30, 1, cut=20))
    assert found == Trouble(
        20,
        True,
        # That the accuracy is 5% (50% in the base) may be the limit's doing: it cut every answer.
        "degenerates from iteration 20: 100% truncated answers (0% in the base)",
        "capability",
    )


def test_trouble_that_passes_is_named_at_its_iteration() -> None:
    found = trouble(BASE, checkpoint(10, 1), checkpoint(20, 11))
    assert found == Trouble(10, False, "gets worse at iteration 10: accuracy 5% (50% in the base)", "capability")


def test_a_fall_from_the_peak_counts_even_above_the_base() -> None:
    probes = [f"p{index:02}" for index in range(40)]

    def of_forty(iteration: int, right: int, **changes: Any) -> Checkpoint:
        return Checkpoint(changes.pop("run", "r"), iteration, {p: i < right for i, p in enumerate(probes)}, **changes)

    base = of_forty(0, 15, source="base", run="tiny")
    found = trouble(base, of_forty(10, 40), of_forty(20, 24), of_forty(30, 24))
    assert found is not None
    assert found.text == "gets worse from iteration 20: accuracy 60% (down from 100% at iteration 10)"
    # Eight of twenty lost from the peak are 1 / 2**8: of one look no chance, of all looks at a run it may be.
    assert trouble(BASE, checkpoint(10, 20), checkpoint(20, 12), checkpoint(30, 12)) is None


def test_without_a_base_the_first_checkpoint_is_the_reference() -> None:
    found = trouble(checkpoint(10, 15), checkpoint(20, 2))
    assert found is not None
    assert found.text == "gets worse at iteration 20: accuracy 10% (75% at the first checkpoint)"


def test_a_base_that_is_cut_as_often_is_no_sign() -> None:
    base = checkpoint(0, 10, cut=12, source="base", run="tiny")
    assert trouble(base, checkpoint(10, 10, cut=13)) is None


def test_small_wobbles_are_no_trouble() -> None:
    assert trouble(BASE, checkpoint(10, 8), checkpoint(20, 12), checkpoint(30, 9, cut=1)) is None


def test_many_unscored() -> None:
    lost = Checkpoint("r", 10, {probe: None if index < 12 else True for index, probe in enumerate(PROBES)})
    found = trouble(BASE, lost)
    assert found is not None
    assert found.text == "cannot be scored at iteration 10: 60% of probes unscored (0% in the base)"


def test_the_sample_night() -> None:
    good, hot = run_curves(sample_scores())
    assert first_trouble(good) is None
    found = first_trouble(hot)
    assert found is not None
    assert (found.iteration, found.persistent) == (20, True)
    assert found.text.startswith("degenerates from iteration 20: 100% truncated answers (0% in the base)")


FORTY_ONE = [f"p{index:02}" for index in range(41)]


def of_forty_one(iteration: int, right: int, cut: range = range(0), **changes: Any) -> Checkpoint:
    passed = {probe: index < right for index, probe in enumerate(FORTY_ONE)}
    ended = {FORTY_ONE[index]: "length" for index in cut}
    return Checkpoint(changes.pop("run", "r"), iteration, passed, finish_reasons=ended, **changes)


def test_a_run_without_any_right_answer_is_named_at_its_first_checkpoint() -> None:
    # A base of 7 of 41, as in the sample's hot run, beside a suite that is judged alone: 1 / 2**7 is rare enough.
    base = of_forty_one(0, 7, source="base", run="tiny")
    content = [of_forty_one(at, 0, suite="content") for at in (15, 30)]
    first, *_ = run_curves(scores_of(base, of_forty_one(15, 0), *content))
    found = first_trouble(first)
    assert found is not None
    assert found.text == "gets worse at iteration 15 on capability: accuracy 0% (17% in the base)"
    every = [of_forty_one(at, 0) for at in (15, 30, 45, 60)]
    for curve in run_curves(scores_of(base, *every, *content)):
        found = first_trouble(curve)
        assert found is not None
        assert found.text == "gets worse from iteration 15 on capability: accuracy 0% (17% in the base)"


def test_a_fall_that_lasts_is_named_from_its_beginning() -> None:
    # 5 of 41 lost are 1 / 2**5 alone; that the base alone of nine passes five, 1 / 9**5.
    base = of_forty_one(0, 5, source="base", run="tiny")
    assert trouble(base, of_forty_one(10, 0)) is None
    found = trouble(base, *(of_forty_one(at, 0) for at in range(10, 90, 10)))
    assert found is not None
    assert (found.iteration, found.persistent) == (10, True)
    assert found.text == "gets worse from iteration 10: accuracy 0% over iterations 10 to 80 (12% in the base)"


def test_at_the_first_checkpoint_six_of_six_lost_are_trouble() -> None:
    # 1 / 2**6 is below 3% / zeta(1.8); at the second it is not, where 8 lost are.
    base = of_forty_one(0, 8, source="base", run="tiny")
    found = trouble(base, of_forty_one(10, 2))
    assert found is not None
    assert found.text == "gets worse at iteration 10: accuracy 5% (20% in the base)"
    assert trouble(base, of_forty_one(10, 8), of_forty_one(20, 2)) is None
    later = trouble(base, of_forty_one(10, 8), of_forty_one(20, 0))
    assert later is not None
    assert later.text == "gets worse at iteration 20: accuracy 0% (20% in the base)"


def test_a_base_that_is_cut_more_often_explains_no_fall() -> None:
    base = of_forty_one(0, 8, source="base", run="tiny", cut=range(23, 41))
    found = trouble(base, of_forty_one(10, 0, cut=range(0, 8)))
    assert found is not None
    assert found.text.startswith("gets worse at iteration 10: accuracy 0% (20% in the base)")
    # Cut more often itself, the checkpoint may have been right but for the limit.
    assert trouble(base, of_forty_one(10, 0, cut=range(0, 24))) is None
