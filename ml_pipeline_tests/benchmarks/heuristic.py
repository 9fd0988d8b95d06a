"""The heuristic suite over texts of about 45, 570 and 17,400 characters: microseconds a text.

    python -m ml_pipeline_tests.benchmarks.heuristic [--json] [--repeats N]

- ours: batches of 1,000 texts, on one core; the figure is the sum over one text of each length.
- python_re_short, python_re_medium, python_re_long: the plain implementation with compiled patterns, one text at a
  time, on texts of that length; its ratio is to ours on the same texts.

The figures of both are compared, all of them, before anything is measured.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa

from ml_pipeline.scoring.heuristic import FIGURES, heuristic_columns
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.scoring.plain_heuristic import plain_heuristic

SIZES = {"short": 45, "medium": 570, "long": 17_400}
BATCH = 1_000
PLAIN_SECONDS = 0.5
_SENTENCES = (
    "I think that the answer is forty-two",
    "The light of the morning fell like a promise on the river",
    "As an AI language model, I cannot feel joy or grief",
    "A node of the mesh keeps its key and signs each hash with it",
    "There are several reasons why this happens, and each deserves attention",
    "You can divide both sides by three and then compare the results",
    "We owe each other dignity, and some kindness on a lonely evening",
    "First heat the oven, then mix flour, water and a little salt",
    "## Results\n\n- **First**: the train leaves at nine\n- Second: it arrives at noon",
    "Please note that the committee meets again in the second week of March",
)


def texts_of(size: int, count: int, seed: int = 0) -> list[str]:
    """So many different texts of exactly so many characters, in sentences and paragraphs like a chat model's."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        text = ""
        while len(text) < size:
            filler = " ".join(f"{draw.choice(('about', 'roughly', 'perhaps'))} {draw.randint(2, 999)}" for _ in "ab")
            text += f"{draw.choice(_SENTENCES)}, {filler}.{draw.choice((' ', ' ', ' ', chr(10)))}"
        texts.append(text[:size])
    return texts


def seconds_each(work: Callable[[Sequence[str]], object], texts: Sequence[str]) -> float:
    """Seconds a text."""
    start = time.perf_counter()
    work(texts)
    return (time.perf_counter() - start) / len(texts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="the heuristic suite")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    ours: dict[str, float] = {}
    others: dict[str, float] = {}
    for name, size in SIZES.items():
        texts = texts_of(size, BATCH)
        column = pa.array(texts)
        few = texts[:20]
        assert heuristic_columns(column).select(list(FIGURES[:-1])).to_pylist()[:20] == [
            plain_heuristic(t) for t in few
        ]
        sample = texts[: max(1, int(PLAIN_SECONDS / seconds_each(lambda ts: [plain_heuristic(t) for t in ts], few)))]

        def plainly(sample: Sequence[str] = sample) -> float:
            return seconds_each(lambda ts: [plain_heuristic(text) for text in ts], sample)

        def batched(texts: Sequence[str] = texts, column: pa.Array = column) -> float:
            return seconds_each(lambda _: heuristic_columns(column), texts)

        figures = medians(interleaved({"ours": batched, "others": plainly}, arguments.repeats))
        ours[name], others[name] = figures["ours"] * 1e6, figures["others"] * 1e6
    result = compare(
        "heuristic",
        "us a text",
        {"ours": sum(ours.values()), **{f"python_re_{name}": value for name, value in others.items()}},
        more_is_better=False,
        context={**{f"ours_{name}": round(value, 2) for name, value in ours.items()}, "batch": BATCH},
    )
    ratio = {f"python_re_{name}": others[name] / ours[name] for name in SIZES}
    print_result(replace(result, ratio=ratio), as_json=arguments.json)


if __name__ == "__main__":
    main()
