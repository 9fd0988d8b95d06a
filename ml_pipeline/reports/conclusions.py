"""What may be called better, worse, best, tied, falling or in trouble: the rules of every report, check and alert.

Each statement has an error that is known, and simulations in the tests that hold it:

- better, worse: all comparisons that stand together (those of a run's checkpoints with their base, on all suites that
  have accuracies) are wrong in at most 5% of runs of equal checkpoints. Test and printed interval agree.
- best and near best: the truly best checkpoint is among them in at least 95% of runs.
- in trouble, falling, peaked: a run of equal checkpoints is called so in at most 5% of runs, over all its suites and
  signs together, and however often it is looked at while it grows.

Nothing here knows of tables or words; it decides on passes, counts and p values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from ml_pipeline.scoring.degeneration import NOTABLE_SHARE, is_notable
from ml_pipeline.scoring.exchange import Values, exchange_test, exchange_z, share_rose
from ml_pipeline.scoring.power import SIGNIFICANCE
from ml_pipeline.scoring.statistics import sign_flip_test

Verdict = Literal["better", "worse", "no clear difference", "the token limit decides"]
NO_DIFFERENCE: Verdict = "no clear difference"
LIMIT_DECIDES: Verdict = "the token limit decides"
Masks = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# How the 5% of a watched run are divided among its signs. Each is tested one-sided: a rise is no trouble.
_BELOW_BASE_AT_ONCE = 0.03
_BELOW_BASE_LASTING = 0.006
_BELOW_EARLIER = 0.006
_MORE_BROKEN_ANSWERS = 0.004
_JUDGED_LOWER = 0.004
_BROKEN_SIGNS = 7
_LONGEST_WINDOW = 8
# Of the error of a sign the k-th checkpoint may use up k ** -decay / zeta(decay): a sum of 1 however long the run
# becomes. What lasts is seen late, which needs a long tail; a learning rate that breaks a model shows at once.
_LATE_DECAY, _EARLY_DECAY = 1.4, 1.8
_ZETA = {_LATE_DECAY: 3.1055472759870852, _EARLY_DECAY: 1.8822296181028220}
# Of the 5% of runs in which the truly best checkpoint may be left out. The rest is for those in which it is called
# worse than the base: of two equal checkpoints each in 1.25%, of more in fewer.
_LEFT_OUT = 0.0375
_CUT_DIFFERS = 0.10
_CUT_EXPLAINS = 0.25
_SAME = 1e-9
_MOST_JUDGE_STEPS = 20


def verdict_of(p_adjusted: float, delta: float, *, decided_by_limit: bool = False) -> Verdict:
    """The words for a difference whose p value allows for all others that stand beside it."""
    if decided_by_limit:
        return LIMIT_DECIDES
    if p_adjusted >= SIGNIFICANCE:
        return NO_DIFFERENCE
    return "better" if delta > 0 else "worse"


def simultaneous_confidence(tests: int) -> float:
    """The confidence of one interval with which so many hold the truth together with 95% (Bonferroni)."""
    return 1 - SIGNIFICANCE / max(1, tests)


def agreeing(low: float, high: float, p_adjusted: float, delta: float) -> tuple[float, float]:
    """The interval of a difference as one statement with its test: clear of 0 exactly where the test is.

    Where the test tells nothing, an interval beside 0 reaches up to it. Where the test excludes all that lies on the
    other side of 0, an interval over 0 ends there, at the smallest number above (or below) it.
    """
    if p_adjusted >= SIGNIFICANCE:
        return min(low, 0.0), max(high, 0.0)
    hair = 1e-9
    return (max(low, hair), max(high, hair)) if delta > 0 else (min(low, -hair), min(high, -hair))


def limit_may_decide(delta: float, cut_reference: float, cut_candidate: float) -> bool:
    """Whether the token limit cuts the answers of two checkpoints (shares 0..1) so differently that a difference may be
    its doing: by ten points, or the worse one more by a quarter of the difference."""
    favour = cut_reference - cut_candidate
    if abs(favour) >= _CUT_DIFFERS - _SAME:
        return True
    return favour * delta > 0 and abs(favour) >= _CUT_EXPLAINS * abs(delta)


ENDLESS_SIGNS = ("truncated", "looping", "repetitive", "word_salad")


def mostly_endless(truncated: float, looping: float, repetitive: float, word_salad: float) -> bool:
    """Whether most of the answers that the token limit cut (shares, or counts) go round in circles or are word salad
    (which a text is only where it does not): for these no limit would be enough, so that it decides nothing."""
    return 2 * (max(looping, repetitive) + word_salad) > truncated


def ranks(values: Sequence[float | None]) -> list[tuple[int | None, bool]]:
    """The rank of each value, 1 the highest, and whether another is equal; equal ones share a rank. None has none."""
    known = [value for value in values if value is not None]
    return [
        (None, False)
        if value is None
        else (
            1 + sum(other > value + _SAME for other in known),
            sum(abs(other - value) <= _SAME for other in known) > 1,
        )
        for value in values
    ]


@lru_cache(maxsize=4096)
def watched_level(position: int, error: float, decay: float = _LATE_DECAY) -> float:
    """The level of a test at the `position`-th checkpoint (from 1), so that a run that is looked at after each of them
    errs with a chance of `error` at most, however long it becomes."""
    return error * math.pow(position, -decay) / _ZETA[decay]


def base_fall_level(position: int, suites: int, error: float = _BELOW_BASE_AT_ONCE) -> float:
    """The one-sided level at which one checkpoint of a run of so many suites is below its base."""
    return watched_level(position, error, _EARLY_DECAY) / suites


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `answers` show a sign; `low` and `high` are the 95% interval of the share."""

    hits: int
    answers: int
    low: float | None
    high: float | None

    @classmethod
    def of_probes(cls, value: float, answers: int, samples: int, low: float | None, high: float | None) -> Share:
        """A share of answers as counts of probes, each of which was asked so often: several answers to one probe may be
        copies of each other."""
        probes = max(1, answers // max(1, samples))
        return cls(round(value * probes), probes, low, high)

    @property
    def value(self) -> float:
        """The share, 0..1."""
        return self.hits / self.answers if self.answers else 0.0


def more_broken(
    before: Share | None,
    now: Share,
    position: int,
    suites: int,
    *,
    least: float = NOTABLE_SHARE,
    first: bool = True,
) -> bool:
    """Whether a share of broken answers is `least` or more and above that of the reference.

    Above: the intervals are apart, which allows for answers that belong together, and Fisher's exact test says so at
    the level of a watched run; with `first` false, where a run is known to be in trouble, at 5%. Without a reference
    the share alone counts.
    """
    known = before is not None and bool(before.answers)
    if not is_notable(now.value, now.low, before.high if known and before else None, least):
        return False
    if before is None or not known:
        return True
    level = watched_level(position, _MORE_BROKEN_ANSWERS) / (_BROKEN_SIGNS * suites) if first else SIGNIFICANCE
    return share_rose(before.hits, before.answers, now.hits, now.answers) <= level


def judged_lower(differences: Sequence[float], position: int, suites: int, *, first: bool = True) -> bool:
    """Whether a judge's figures fell, given the differences by probe: the sign-flip test, one-sided, at the level of a
    watched run (with `first` false at 5%)."""
    level = watched_level(position, _JUDGED_LOWER) / suites if first else SIGNIFICANCE
    size = max((abs(one) for one in differences), default=0.0)
    if size == 0:
        return False
    # Rounded to a lattice, which flips of signs leave as they find it: the test stays exact.
    steps = [round(_MOST_JUDGE_STEPS * one / size) for one in differences]
    return sum(steps) < 0 and _one_sided(np.array(steps, dtype=np.int64), level)


@dataclass(frozen=True, slots=True)
class Fall:
    """A fall of the accuracy at checkpoint `at` (a row of the table): over the last `window` checkpoints it is `now`,
    and was `before` in the reference (`earlier` None), or over as many checkpoints that end at row `earlier`."""

    at: int
    window: int
    earlier: int | None
    before: float
    now: float


@dataclass(frozen=True, eq=False)
class AnswerTable:
    """The passes of a reference (row 0) and of a run's checkpoints in their order (rows 1 and on), probes in columns.

    `values` are whole numbers of `unit` (how many of a probe's answers passed), `scored` says where there is one, `cut`
    where the token limit cut an answer. `has_reference` is False where row 0 holds nothing.
    """

    values: Values
    scored: Masks
    cut: Masks
    unit: int
    has_reference: bool

    @classmethod
    def of(
        cls,
        reference: Mapping[str, bool | Fraction] | None,
        checkpoints: Sequence[Mapping[str, bool | Fraction]],
        cut: Sequence[frozenset[str]] = (),
    ) -> AnswerTable:
        """Out of passes by probe id; `cut` names the probes that were cut, of the reference and each checkpoint."""
        rows = [reference or {}, *checkpoints]
        probes = {name: place for place, name in enumerate(sorted({probe for row in rows for probe in row}))}
        unit = math.lcm(*{value.denominator for row in rows for value in row.values()})
        shape = (len(rows), len(probes))
        values, scored = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        was_cut = np.zeros(shape, dtype=bool)
        for index, row in enumerate(rows):
            places = [probes[name] for name in row]
            values[index, places] = [int(value * unit) for value in row.values()]
            scored[index, places] = True
        for index, names in enumerate(cut):
            was_cut[index, [probes[name] for name in names if name in probes]] = True
        return cls(values, scored, was_cut, unit, bool(reference))

    @property
    def checkpoints(self) -> int:
        """How many there are beside the reference."""
        return len(self.values) - 1

    @cached_property
    def totals(self) -> Floats:
        """The share that each row passed, of those scored; NaN where none was."""
        counts = self.scored.sum(axis=1)
        with np.errstate(invalid="ignore"):
            shares: Floats = self.values.sum(axis=1) / (counts * self.unit)
        return shares


def falls(table: AnswerTable, suites: int = 1) -> list[Fall | None]:
    """Where the accuracy of a run fell, by checkpoint: the first test that says so at the level of a watched run.

    `suites` are those of the run that have accuracies. What is told of a checkpoint rests on it and those before it
    alone, so that a report of a longer run repeats it. The tests: the checkpoint, and the mean of the last 2, 4 and 8,
    against the reference (`exchange_test`); the same against every as long stretch of earlier checkpoints (flips of the
    signs of their differences).
    """
    found: list[Fall | None] = [None] * table.checkpoints
    for at, fall in _below_reference(table, suites) if table.has_reference else ():
        found[at - 1] = found[at - 1] or fall
    for at, fall in _below_earlier(table, suites):
        found[at - 1] = found[at - 1] or fall
    return found


def still_fallen(table: AnswerTable, at: int) -> Fall | None:
    """Whether a checkpoint of a run that fell before is below the reference (or the highest before it) at 5%."""
    earlier = [row for row in range(1, at) if table.scored[row].any()]
    highest = max(earlier, key=lambda row: table.totals[row], default=None)
    for row in (0 if table.has_reference else None, highest):
        if row is None:
            continue
        both = table.scored[row] & table.scored[at]
        if _fell(table, [row], [at], both, SIGNIFICANCE):
            return _fall(table, at, 1, row or None, [row], both)
    return None


def may_be_best(table: AnswerTable) -> Masks:
    """Which checkpoints may be the truly best one: among them it is in at least 95% of runs.

    A checkpoint is left out where another did better on the probes of both (sign flips, one-sided, with Bonferroni's
    allowance for all that it is held against): a comparison with the best, which is not known.
    Source: J. C. Hsu, Annals of Statistics 9 (1981), with exact tests in place of normal quantiles.
    """
    rows = [row for row in range(1, len(table.values)) if table.scored[row].any()]
    named = np.zeros(table.checkpoints, dtype=bool)
    level = _LEFT_OUT / max(1, len(rows) - 1)
    z = _pairwise_z(table.values[rows].astype(float), table.scored[rows])
    for place, row in enumerate(rows):
        rival = int(np.argmax(z[:, place]))
        both = table.scored[rows[rival]] & table.scored[row]
        beaten = z[rival, place] >= _fewest_deviations(level) and _fell(table, [rows[rival]], [row], both, level)
        named[row - 1] = not beaten
    return named


def luck_of_the_best(table: AnswerTable) -> float | None:
    """By how much (0..1) the highest of several accuracies lies above its truth, since it was chosen for being highest.

    What the accuracies differ by beyond the noise of their probes is real; what noise adds is shrunk away, towards the
    mean of all (B. Efron and C. Morris, JASA 70, 1975). None with fewer than two checkpoints or probes.
    """
    rows = [row for row in range(1, len(table.values)) if table.scored[row].any()]
    scored = table.scored[rows]
    counts, of_probe = scored.sum(axis=1), scored.sum(axis=0)
    kept = of_probe > 0
    freedom = int(counts.sum()) - len(rows) - int(kept.sum()) + 1
    if len(rows) < 2 or freedom < 1:
        return None
    values = np.where(scored, table.values[rows] / table.unit, 0.0)
    means = values.sum(axis=1) / counts
    of_probes = values.sum(axis=0)[kept] / of_probe[kept]
    residuals = values[:, kept] - means[:, None] - of_probes[None, :] + values.sum() / counts.sum()
    noise = float((residuals**2 * scored[:, kept]).sum()) / freedom / float(counts.mean())
    spread = float(means.var(ddof=1))
    if spread == 0:
        return 0.0
    return min(1.0, noise / spread) * float(means.max() - means.mean())


def _below_reference(table: AnswerTable, suites: int) -> list[tuple[int, Fall]]:
    found = []
    for at in range(1, len(table.values)):
        if not table.scored[at].any():
            continue
        windows = [w for w in (1, 2, 4, _LONGEST_WINDOW) if w <= at]
        for window in windows:
            level = base_fall_level(at, suites)
            if window > 1:
                level = watched_level(at, _BELOW_BASE_LASTING) / (suites * (len(windows) - 1))
            rows = list(range(at - window + 1, at + 1))
            both = table.scored[0] & table.scored[rows].any(axis=0)
            if _fell(table, [0], rows, both, level):
                found.append((at, _fall(table, at, window, None, [0], both)))
                break
    return found


def _below_earlier(table: AnswerTable, suites: int) -> list[tuple[int, Fall]]:
    """Stretches of equal length against each other: without a change their differences have no sign of their own."""
    found = []
    window = 1
    while window <= _LONGEST_WINDOW and 2 * window <= table.checkpoints:
        # Row r of these is the stretch that begins at checkpoint r + 1.
        count = table.checkpoints - window + 1
        values, scored = np.zeros((count, table.values.shape[1])), np.ones((count, table.values.shape[1]), dtype=bool)
        for step in range(window):
            values += table.values[1 + step : 1 + step + count]
            scored &= table.scored[1 + step : 1 + step + count]
        z = _pairwise_z(values * scored, scored)
        for last in range(window, count):
            at, earlier = last + window, last - window + 1
            level = watched_level(at, _BELOW_EARLIER) / (suites * earlier * min(4, 1 + int(math.log2(at // 2 or 1))))
            rival = int(np.argmax(z[:earlier, last]))
            if z[rival, last] < _fewest_deviations(level):
                continue
            rows, others = list(range(last + 1, at + 1)), list(range(rival + 1, rival + 1 + window))
            both = scored[rival] & scored[last]
            if _fell(table, others, rows, both, level):
                found.append((at, _fall(table, at, window, rival + window, others, both)))
        window *= 2
    return found


def _fall(table: AnswerTable, at: int, window: int, earlier: int | None, before: Sequence[int], probes: Masks) -> Fall:
    rows = list(range(at - window + 1, at + 1))
    return Fall(at, window, earlier, _share(table, list(before), probes), _share(table, rows, probes))


def _share(table: AnswerTable, rows: list[int], probes: Masks) -> float:
    scored = table.scored[rows] & probes
    return float((table.values[rows] * scored).sum()) / (table.unit * max(1, int(scored.sum())))


def _fell(table: AnswerTable, before: list[int], now: list[int], probes: Masks, level: float) -> bool:
    """Whether the rows `now` pass less of the probes than the rows `before`, one-sided; where the token limit may be
    why, since it cuts more of `now`, also on the probes that it cut in none of them."""
    if not _clear(table, before, now, probes, level):
        return False
    delta = _share(table, now, probes) - _share(table, before, probes)
    shares = [float(table.cut[rows][:, probes].mean()) for rows in (before, now)]
    if shares[1] <= shares[0] or not limit_may_decide(delta, *shares):
        return True
    finished = probes & ~table.cut[[*before, *now]].any(axis=0)
    return bool(finished.any()) and _clear(table, before, now, finished, level)


def _clear(table: AnswerTable, before: list[int], now: list[int], probes: Masks, level: float) -> bool:
    if len(before) == 1 and len(now) > 1:
        reference, others = table.values[before[0], probes], table.values[now][:, probes]
        scored = table.scored[now][:, probes]
        if exchange_z(reference, others, scored) < 0.8 * NormalDist().inv_cdf(1 - level):
            return False
        return exchange_test(reference, others, scored).upper <= level
    steps = (table.values[now].sum(axis=0) - table.values[before].sum(axis=0))[probes]
    return int(steps.sum()) < 0 and _one_sided(steps, level)


def _one_sided(steps: Values, level: float) -> bool:
    """Whether flips of the signs give a sum as low as that of the steps, which is below 0, at most so often."""
    deviations = -float(steps.sum()) / math.sqrt(float((steps * steps).sum()))
    if deviations < _fewest_deviations(level):
        return False
    # Hoeffding's bound spares the exact test where the sum is far out.
    return math.exp(-(deviations**2) / 2) <= level or sign_flip_test(steps.tolist()) / 2 <= level


@lru_cache(maxsize=4096)
def _fewest_deviations(level: float) -> float:
    """With fewer standard deviations no sum of flipped signs is as rare as the level: the normal quantile, or that of
    differences that are all alike and all on one side, and a little less."""
    return 0.93 * min(math.sqrt(math.log2(1 / level)), NormalDist().inv_cdf(1 - level))


def _pairwise_z(values: Floats, scored: Masks) -> Floats:
    """By how many standard deviations (of flipped signs) row i lies above row j on the probes scored for both."""
    there, values = scored.astype(float), values * scored
    ahead = values @ there.T
    squares = (values**2) @ there.T
    spread = np.sqrt(np.maximum(squares + squares.T - 2 * (values @ values.T), 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > _SAME, (ahead - ahead.T) / spread, 0.0)
