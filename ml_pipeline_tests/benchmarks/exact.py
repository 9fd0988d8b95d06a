"""The last number of an answer, batched and one at a time: microseconds an answer.

    python -m ml_pipeline_tests.benchmarks.exact [--json] [--repeats N]

- ours: the filter `last_number` and its values over 10,000 answers of about 270 characters.
- python_re: one compiled pattern, `findall`, the last match, `float`.

Both values of every answer are compared before anything is measured.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Callable

import pyarrow as pa

from ml_pipeline.scoring.filter_numbers import last_number, number_values
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result

ANSWERS = 10_000
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


def answers(count: int, seed: int = 0) -> list[str]:
    """Worked answers to word problems, with some steps before the last number."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        steps = " ".join(
            f"She sells {draw.randint(2, 90)} apples at ${draw.randint(1, 9)}.{draw.randint(10, 99)} each, then rests."
            for _ in range(draw.randint(3, 6))
        )
        texts.append(f"Let us work it out. {steps} So the total is ${draw.randint(1, 99_999):,} for the week.")
    return texts


def plain(text: str) -> float | None:
    """The last number, in plain Python."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace("$", "").replace(",", "")) if found else None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="the last number of an answer")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    texts = answers(ANSWERS)
    column = pa.array(texts)
    assert number_values(last_number(column)).to_pylist() == [plain(text) for text in texts]

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            start = time.perf_counter()
            work()
            return (time.perf_counter() - start) / ANSWERS * 1e6

        return measure

    subjects = {
        "ours": timed(lambda: number_values(last_number(column))),
        "python_re": timed(lambda: [plain(text) for text in texts]),
    }
    figures = medians(interleaved(subjects, arguments.repeats))
    context = {"answers": ANSWERS, "characters": sum(map(len, texts)) // ANSWERS}
    print_result(
        compare("exact", "us an answer", figures, more_is_better=False, context=context), as_json=arguments.json
    )


if __name__ == "__main__":
    main()
