"""Accuracy with honest error bars, and whether one checkpoint is better than another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from ml_pipeline.scoring.means import effective_count, wilson_interval
from ml_pipeline.scoring.results import ProbeResult

OVERALL = "overall"
EXACT_STEPS = 3_000_000


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """How many answers of a category passed. `total` counts the scored ones only; with none of them the accuracy and
    its interval (shares of 1) are None, not 0."""

    category: str
    correct: int
    total: int
    unscored: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None


def exact_mcnemar(better: int, worse: int) -> float:
    """Two-sided exact McNemar p for paired results: `better` probes that only the second of two checkpoints passed,
    `worse` that only the first passed. 1.0 where they never differ.

    Source: Q. McNemar, Psychometrika 12 (1947), in its binomial form, twice the smaller tail.
    """
    if better < 0 or worse < 0:
        raise ValueError(f"counts must not be negative: better {better}, worse {worse}.")
    discordant = better + worse
    tail = ways = 1
    for k in range(1, min(better, worse) + 1):
        ways = ways * (discordant - k + 1) // k
        tail += ways
    return min(1.0, 2 * tail / (1 << discordant))


def sign_flip_test(differences: Sequence[int]) -> float:
    """Two-sided p of Fisher's randomization test for paired differences: how often flipping each one's sign at random
    gives a sum at least as far from 0 as theirs. 1.0 where all are 0.

    Exact up to thousands of probes of a few checkpoints, by the normal approximation beyond. Differences of -1, 0 and 1
    make it McNemar's exact test. Source: R. A. Fisher, The Design of Experiments (1935).
    """
    sizes = [abs(difference) for difference in differences if difference]
    if len(sizes) * sum(sizes) > EXACT_STEPS:
        return 2 * NormalDist(sigma=sqrt(sum(size * size for size in sizes))).cdf(-abs(sum(differences)))
    total, seen = sum(sizes), abs(sum(differences))
    if seen == 0:
        return 1.0
    # How many choices of signs give each sum, as fields of one whole number: flipping a size moves them up by it.
    field, ways = len(sizes) + 1, 1
    for size in sizes:
        ways += ways << (size * field)
    tail = ways & ((1 << (((total - seen) // 2 + 1) * field)) - 1)
    # Modulo a field of ones is the sum of the fields, as modulo nine is that of the digits; both tails are equal.
    return 2 * (tail % ((1 << field) - 1)) / (1 << len(sizes))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of several tests, each raised so that with all of them at 5% a false find has a chance of 5%.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979): the smallest times their number, and so on, in order.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def holm_confidence(tests: int, found: Callable[[float], int]) -> float:
    """The confidence at which the intervals of several figures leave out 0 just where Holm's procedure at 5% finds a
    difference, if they are inverted tests; `found` says how many of them leave out 0 at a confidence. 0.95 for one.

    So one statement is printed: an interval, and whether it is a find. The chance that any of the intervals at this
    confidence leaves out a true 0 is at most 5%.
    """
    several = 0
    while several < tests and (now := found(1 - 0.05 / (tests - several))) > several:
        several = now
    return 1 - 0.05 / max(1, tests - several)


def share_interval(
    passed: Sequence[bool], clusters: Sequence[Hashable], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Wilson's interval of the share passed; None for nothing.

    Answers of one cluster (probes of one template, several answers to one probe) count as the fewer independent ones
    that they are worth: C. Dean and M. Pagano, Survey Methodology 41 (2015).
    """
    if not passed:
        return None
    count = effective_count(passed, clusters, confidence)
    return wilson_interval(sum(passed) / len(passed) * count, count, confidence)


def accuracy_by_category(results: Iterable[ProbeResult]) -> list[CategoryScore]:
    """Scores of all results together, named "overall", then of each category in order of first appearance.

    Answers that could not be scored (`passed` None) count neither as right nor as wrong, but are told. The intervals
    allow for probes that share a template, and for several answers to one probe.
    """
    everything = list(results)
    groups: dict[str, list[ProbeResult]] = {OVERALL: everything}
    for result in everything:
        groups.setdefault(result.category, []).append(result)
    return [_category_score(category, members) for category, members in groups.items()]


def _category_score(category: str, results: list[ProbeResult]) -> CategoryScore:
    scored = [(result.passed, result.template or result.probe_id) for result in results if result.passed is not None]
    passed = [one for one, _ in scored]
    correct, total = sum(passed), len(passed)
    low, high = share_interval(passed, [cluster for _, cluster in scored]) or (None, None)
    return CategoryScore(
        category=category,
        correct=correct,
        total=total,
        unscored=len(results) - total,
        accuracy=correct / total if total else None,
        accuracy_low=low,
        accuracy_high=high,
    )
