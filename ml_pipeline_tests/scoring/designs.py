"""Checkpoints by chance whose true difference is known: what intervals are tried on.

A design draws the chance to pass each probe (or each probe of each template) of a reference and a candidate; answers
are drawn from those. The truth is the mean difference over all probes that the design could have drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Design = Callable[[np.random.Generator, tuple[int, ...]], tuple[Floats, Floats]]
"""From the number of probes (of templates, and of probes in each) to the chances of reference and candidate."""
_MANY = 1_000_000


def _logistic(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))


def equal(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The same model twice, most probes easy or hard."""
    chance = generator.beta(0.5, 0.5, shape)
    return chance, chance


def equal_but_few_waver(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The same model twice, nine in ten probes always right or always wrong: few differ, and those by chance."""
    sure = generator.integers(0, 2, shape).astype(np.float64)
    chance = np.where(generator.random(shape) < 0.1, generator.random(shape), sure)
    return chance, chance


def learns_few(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """One probe in twenty is learnt for sure, all others stay as they were, mostly hard."""
    chance = generator.beta(0.15, 0.45, shape)
    return chance, np.where(generator.random(shape) < 0.05, 1.0, chance)


def learns_few_surely(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The same where nothing wavers: only what is learnt differs."""
    chance = (generator.random(shape) < 0.3).astype(np.float64)
    return chance, np.where(generator.random(shape) < 0.05, 1.0, chance)


def gains_and_losses(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """15% of the probes are learnt, 5% are lost."""
    chance, fate = generator.beta(0.5, 0.5, shape), generator.random(shape)
    return chance, np.where(fate < 0.15, 1.0, np.where(fate > 0.95, 0.0, chance))


def forgets(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """One probe in ten is lost for sure."""
    chance = generator.beta(2, 1, shape)
    return chance, np.where(generator.random(shape) < 0.1, 0.0, chance)


def much_better(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """More than half of what was hard is mostly right."""
    chance = generator.beta(0.3, 0.9, shape)
    return chance, np.where(generator.random(shape) < 0.6, generator.beta(5, 1, shape), chance)


def a_little_better(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Every probe is a little likelier to be right."""
    ability = generator.normal(0, 2, shape)
    return _logistic(ability), _logistic(ability + 0.4)


DESIGNS: tuple[Design, ...] = (
    equal,
    equal_but_few_waver,
    learns_few,
    learns_few_surely,
    gains_and_losses,
    forgets,
    much_better,
    a_little_better,
)
"""Of probes that stand alone."""


def equal_templates(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The same model twice; the probes of a template are about as hard."""
    chance = _logistic(generator.normal(0, 2, (shape[0], 1)) + generator.normal(0, 1, shape))
    return chance, chance


def templates_go_either_way(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Some templates are done better, as many worse: no difference over all templates, but one of each."""
    ability = generator.normal(0, 2, (shape[0], 1)) + generator.normal(0, 1, shape)
    shift = generator.normal(0, 0.5, (shape[0], 1))
    return _logistic(ability - shift), _logistic(ability + shift)


def learns_templates(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """One template in ten is learnt as a whole."""
    chance = _logistic(generator.normal(-1, 2, (shape[0], 1)) + generator.normal(0, 1, shape))
    return chance, np.where(generator.random((shape[0], 1)) < 0.1, 0.98, chance)


def learns_templates_surely(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The same where nearly nothing else differs: nearly all templates are alike for both."""
    chance = np.where(generator.random((shape[0], 1)) < 0.5, 0.9999, 0.0001) + np.zeros(shape)
    return chance, np.where(generator.random((shape[0], 1)) < 0.15, 0.9, chance)


TEMPLATE_DESIGNS: tuple[Design, ...] = (
    equal_templates,
    templates_go_either_way,
    learns_templates,
    learns_templates_surely,
)
"""Of probes that templates made: shapes are (templates, probes of each)."""
_NO_DIFFERENCE = (equal, equal_but_few_waver, equal_templates, templates_go_either_way)


@cache
def truth(design: Design) -> float:
    """The true difference."""
    if design in _NO_DIFFERENCE:
        return 0.0
    shape = (_MANY, 1) if design in TEMPLATE_DESIGNS else (_MANY,)
    before, after = design(np.random.default_rng(9), shape)
    return float((after - before).mean())


def differences(design: Design, generator: np.random.Generator, shape: tuple[int, ...], samples: int) -> Ints:
    """What is seen: by probe, how many more of `samples` answers the candidate has right."""
    before, after = design(generator, shape)
    return generator.binomial(samples, after) - generator.binomial(samples, before)
