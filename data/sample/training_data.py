"""The questions and answers that the sample adapters were trained on: synthetic, endless, the same for one seed.

Every maker takes a random generator and returns one (question, answer) pair of its category. Answers end in
`Answer: X`, after one short line of working where that line helps a small model to get there. Nothing here is copied
from the suites: `ml_pipeline_tests/data_sample/test_sample_data.py` regenerates the set and compares the two.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import question_makers_numbers as numbers
import question_makers_stories as stories
import question_makers_words as words
import question_makers_world as world

Maker = Callable[[random.Random], stories.Pair]

MAKERS: dict[str, Maker] = {
    "arithmetic": numbers.arithmetic,
    "algebra": numbers.algebra,
    "probability": numbers.probability,
    "geometry": numbers.geometry,
    "sequences": numbers.sequences,
    "percentages": numbers.percentages,
    "puzzles": stories.puzzles,
    "word problems": stories.word_problems,
    "deduction": words.deduction,
    "sets": world.sets,
    "analogy": words.analogy,
    "causal": words.causal,
    "spatial": world.spatial,
    "temporal": world.temporal,
    "pattern": words.pattern,
    "code": world.code,
}

SEED = 20260707
TRAIN_SIZE = 6400
VALID_SIZE = 64
HELD_OUT_SIZE = 160

_WITHHELD = re.compile(
    r"\b2, 4, 6, 8\b"
    r"|^(?=.*\b3)(?=.*\b7\b)(?=.*\b22\b)"
    r"|^(?=.*(rectang|garden|floor))(?=.*\b4\b)(?=.*\b9\b)"
    r"|opposite to north"
    r"|\b17 (\+|plus|and) 25\b|\b3 (\+|plus) 4\b"
)
"""Questions that the makers could reach by chance and the suites ask: they are never trained on."""

_ENDINGS = ("", "", "", "", " Answer briefly.", " Give only the answer.", " Reply with the answer only.", " Be short.")


def make_pairs(count: int, seed: int, exclude: frozenset[str] = frozenset()) -> list[tuple[str, str, str]]:
    """Return `count` distinct (category, question, answer) triples, the categories taken in turn and then shuffled.

    Questions in `exclude` are skipped, which keeps the validation and held-out sets apart from the training set.
    """
    rng = random.Random(seed)
    seen = set(exclude)
    made: list[tuple[str, str, str]] = []
    categories = list(MAKERS)
    while len(made) < count:
        category = categories[len(made) % len(categories)]
        for _ in range(200):
            question, answer = MAKERS[category](rng)
            if question not in seen and not _WITHHELD.search(question):
                break
        else:
            # A category of few distinct questions may run dry; the next ones fill its place.
            categories.remove(category)
            continue
        seen.add(question)
        made.append((category, question + rng.choice(_ENDINGS), answer))
    rng.shuffle(made)
    return made


def make_splits() -> dict[str, list[tuple[str, str, str]]]:
    """Return the `train`, `valid` and `held_out` sets; no question is in two of them."""
    splits: dict[str, list[tuple[str, str, str]]] = {}
    seen: frozenset[str] = frozenset()
    sizes = {"held_out": HELD_OUT_SIZE, "valid": VALID_SIZE, "train": TRAIN_SIZE}
    for offset, (name, size) in enumerate(sizes.items()):
        splits[name] = make_pairs(size, SEED + offset, seen)
        seen |= {_without_ending(question) for _, question, _ in splits[name]}
    return splits


def write_jsonl(folder: Path) -> None:
    """Write train.jsonl and valid.jsonl in mlx-lm's prompt/completion form into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, triples in make_splits().items():
        if name != "held_out":
            lines = (json.dumps({"prompt": question, "completion": answer}) for _, question, answer in triples)
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def _without_ending(question: str) -> str:
    for ending in sorted(set(_ENDINGS), key=len, reverse=True):
        if ending and question.endswith(ending):
            return question.removesuffix(ending)
    return question
