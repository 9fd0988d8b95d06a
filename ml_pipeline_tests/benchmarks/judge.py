"""What judging costs beside the model: a call at concurrency 8, a reply read, and a table of a million rows.

    python -m ml_pipeline_tests.benchmarks.judge [--json] [--answers N] [--rows N ...] [--repeats N]

The judge replies at once, so that all that is measured is ours: building the request, eight threads, reading the reply,
the rows, and (`ours`) the completion cache on disk.
- ours, without_cache: a call of the whole engine. no_engine: the eight threads and the judge's instant reply alone.
- read_judgement: a typical reply read and checked against the rubric; in_prose: the same in prose and a code fence;
  json_loads: Python's own parser on the bare JSON, which finds and checks nothing.
- rows: seconds for tables of so many rows, and microseconds a row: growing with the table, a step would be quadratic.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import timeit
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_pipeline.backends.completion_cache import CachedBackend, CompletionCache
from ml_pipeline.backends.interface import Backend, CompletionRequest
from ml_pipeline.evaluation.judges import Judge
from ml_pipeline.evaluation.judging import judge_in_batches
from ml_pipeline.judge_settings import JudgeSettings
from ml_pipeline.scoring import judge_request, read_judgement
from ml_pipeline.suites import Suite, load_suites
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.evaluation.rows import evaluation
from ml_pipeline_tests.evaluation.scripted import ScriptedBackend, completion

REPLY = json.dumps(
    {"reasoning": 7, "correctness": 10, "clarity": 8, "explanation": "Right, with every step shown and none too many."}
)
IN_PROSE = f"Here is my judgement of the answer:\n\n```json\n{REPLY}\n```\n\nI hope that it helps."
ANSWER = "First add the tens, then the ones: 10 + 20 = 30 and 7 + 5 = 12, which makes 42. " * 4
(SUITE,) = load_suites(["capability"])
ORIGINAL_EXTRACTION_US = 9.0
"""Measured on another day on a machine of this class; it finds the JSON, and checks no range."""
Row = dict[str, Any]


def answers(count: int) -> tuple[Suite, list[Row]]:
    """So many answers to as many probes, each different."""
    probes = tuple(
        replace(SUITE.probes[index % len(SUITE.probes)], id=f"p{index}") for index in range(min(count, 10_000))
    )
    suite = replace(SUITE, probes=probes)
    identity = evaluation(suite=suite).identity_columns()
    rest = {
        **identity,
        "sample": 1,
        "category": "math",
        "prompt": "",
        "rendered_prompt": "",
        "prompt_tokens": 9,
        "completion_tokens": 9,
        "finish_reason": "stop",
        "seconds": 0.1,
        "error": None,
    }
    return suite, [
        rest | {"partition_key": f"mac.run@{index // 10_000}", "probe_id": f"p{index % 10_000}", "response": ANSWER}
        for index in range(count)
    ]


def instant() -> ScriptedBackend:
    """A judge that replies at once, eight at a time."""
    return ScriptedBackend(lambda request: REPLY, at_once=8, remembered=0)


def seconds_to_judge(backend: Backend, suite: Suite, rows: list[Row]) -> float:
    """Seconds for all of them; what is judged is let go, as it is when it is stored."""
    start = time.perf_counter()
    judged = 0
    for batch in judge_in_batches([Judge("instant", backend)], JudgeSettings(), [suite], rows):
        assert all(row["score"] is not None for row in batch.judgements)
        judged += len(batch.judgements)
    assert judged == 4 * len(rows)
    return time.perf_counter() - start


def with_cache(suite: Suite, rows: list[Row]) -> float:
    """Seconds with a fresh cache of finished completions on disk."""
    with tempfile.TemporaryDirectory() as folder, closing(CompletionCache(Path(folder) / "c.sqlite")) as cache:
        return seconds_to_judge(CachedBackend(instant(), cache), suite, rows)


def without_engine(requests: list[CompletionRequest]) -> float:
    """Seconds of the threads and of the instant replies."""
    start = time.perf_counter()
    assert sum(1 for _ in instant().complete(requests)) == len(requests)
    return time.perf_counter() - start


def microseconds(work: Callable[[], object]) -> float:
    """Of one call, in the fastest of 20 rounds of 100: other programs disturb what is as short as this."""
    return min(timeit.repeat(work, number=100, repeat=20)) / 100 * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what judging costs beside the model")
    parser.add_argument("--json", action="store_true", help="print one JSON object each")
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    assert SUITE.rubric is not None
    rubric = SUITE.rubric
    suite, rows = answers(arguments.answers)
    requests = [judge_request(rubric, SUITE.probes[0], ANSWER, request_id=str(index)) for index in range(len(rows))]
    per_call = 1e6 / len(rows)
    figures = interleaved(
        {
            "ours": lambda: with_cache(suite, rows) * per_call,
            "without_cache": lambda: seconds_to_judge(instant(), suite, rows) * per_call,
            "no_engine": lambda: without_engine(requests) * per_call,
        },
        arguments.repeats,
    )
    context = {"answers": len(rows), "concurrency": 8, "wanted": "under 1000 us"}
    print_result(
        compare("judge_call", "us", medians(figures), more_is_better=False, context=context), as_json=arguments.json
    )

    bare, prose = completion(requests[0], REPLY), completion(requests[0], IN_PROSE)
    reading = interleaved(
        {
            "ours": lambda: microseconds(lambda: read_judgement(rubric, bare)),
            "in_prose": lambda: microseconds(lambda: read_judgement(rubric, prose)),
            "json_loads": lambda: microseconds(lambda: json.loads(REPLY)),
        },
        arguments.repeats,
    )
    named = {**medians(reading), "original": ORIGINAL_EXTRACTION_US}
    print_result(
        compare("judge_reading", "us", named, more_is_better=False, context={"characters": len(REPLY)}),
        as_json=arguments.json,
    )

    took = {}
    for count in arguments.rows:
        suite, rows = answers(count)
        took[count] = seconds_to_judge(instant(), suite, rows)
    if took:
        a_row = {str(count): seconds / count * 1e6 for count, seconds in took.items()}
        largest = str(max(took))
        context = {
            "seconds": {str(count): round(seconds, 2) for count, seconds in took.items()},
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        }
        scaling = {"ours": a_row.pop(largest), **{f"{count}_rows": figure for count, figure in a_row.items()}}
        print_result(
            compare(f"judge_{largest}_rows", "us a row", scaling, more_is_better=False, context=context),
            as_json=arguments.json,
        )


if __name__ == "__main__":
    main()
