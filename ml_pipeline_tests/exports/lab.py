"""A store with one measured checkpoint, whose exports can be worked out by hand, and an imported one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_pipeline.history.importing import import_file
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline_tests.history.original import buffered, lines, stores
from ml_pipeline_tests.stores.samples import (
    evaluation_row,
    heuristic_rows,
    identity,
    judgement_rows,
    key,
    probe_rows,
    response_rows,
    score_rows,
)

KEY = key()
OPTIONS = {"max_tokens": 96, "temperature": 0.1, "top_p": 1.0, "top_k": 0, "seed": 0, "stop": ["END"], "samples": 2}
PASSED = {"p0000": True, "p0001": False, "p0002": True, "p0003": None}


def filled(folder: Path) -> ScoreStore:
    """Four probes of `capability`, the first asked twice, the last ended by an error, and one probe of `content`."""
    store = stores(folder)
    who, content = identity(), identity(suite="content")
    answers: list[dict[str, Any]] = response_rows(who, 4)
    answers[1] |= {"finish_reason": "length", "choice_log_probabilities": "[-0.5, -1.5]"}
    answers[3] |= {"finish_reason": "error", "error": "the server went away"}
    results = probe_rows(who, **PASSED)
    results[0] |= {"extracted": "42", "strict_passed": False, "strict_extracted": "4"}
    again = [{**answers[0], "sample": 2, "response": "once more"}]
    store.write_partition(
        KEY,
        {
            "responses": [*answers, *again, *response_rows(content, 1)],
            "probe_results": [*results, {**probe_rows(who, p0000=False)[0], "sample": 2}],
            "judgements": [
                *judgement_rows(who, "p0000", clarity=8.0, avg=7.0),
                *judgement_rows(who, "p0001", clarity=5.0, avg=None),
                *judgement_rows(content, "p0000", truth_telling=3.0),
            ],
            "heuristic_scores": heuristic_rows(content, p0000=-1.5),
            "checkpoint_scores": score_rows(who, math=(2, 4)),
            "evaluations": [evaluation_row(one) | {"options": json.dumps(OPTIONS)} for one in (who, content)],
        },
    )
    import_file(store, lines(folder / "influx_buffer.jsonl", [buffered(100)]), line_bytes=10_000)
    return store
