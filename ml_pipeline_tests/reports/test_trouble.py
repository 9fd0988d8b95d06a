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
