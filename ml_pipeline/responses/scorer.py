"""Scores one file of responses, or has it judged, and stores what comes of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ml_pipeline.errors import ResponseFileError
from ml_pipeline.evaluation.judges import Judge, panel_name
from ml_pipeline.json_lines import open_plain, shown_name
from ml_pipeline.responses.cases import EXACT_FILTERS, STANDARD_RUBRICS, Case, Cases
from ml_pipeline.responses.files import file_name
from ml_pipeline.responses.judging import ResponseJudging
from ml_pipeline.responses.reading import Response, ResponseReader
from ml_pipeline.responses.scoring import in_batches, score_responses
from ml_pipeline.scoring import judge_sha256
from ml_pipeline.settings import Settings
from ml_pipeline.stores.parquet import WriteReceipt
from ml_pipeline.stores.response_tables import RESPONSE_FILES, RESPONSE_JUDGEMENTS, RESPONSE_SCORES
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.table import Table
from ml_pipeline.suites import load_rubrics
from ml_pipeline.suites.suite import Suite

Row = dict[str, Any]
_SCORER_VERSION = "2"
"""Raise it with every change of what the same file and suites give: old rows are then kept apart from new ones."""
Score = Callable[[Sequence[Response], Sequence[Case], Row], pa.Table]


@dataclass(frozen=True, slots=True)
class ScoredFile:
    """What became of one file. `problems` are about the first lines that are no response."""

    receipt: WriteReceipt
    responses: int
    bad_lines: int
    problems: Sequence[str]


class ResponseScorer:
    """Scores files of responses with the enabled suites, and the standard ones' rubrics."""

    def __init__(self, settings: Settings, suites: Sequence[Suite], store: ScoreStore) -> None:
        self._settings = settings
        self._suites = suites
        self._store = store
        rubrics = load_rubrics(STANDARD_RUBRICS, [settings.path(settings.suites.folder)])
        self._cases = Cases(suites, rubrics)
        judged_by = [*rubrics, *(suite.rubric for suite in suites if suite.rubric is not None)]
        self._rubric_hashes = sorted({judge_sha256(rubric) for rubric in judged_by})

    def score(self, partition_key: str) -> ScoredFile:
        """Give every response its figures; no model is needed. Memory does not grow with the file.

        Raises:
            ResponseFileError: the file cannot be read, holds no response, or was written meanwhile.
            StoreError: the rows cannot be stored; those of before stay.
        """
        return self._run(partition_key, RESPONSE_SCORES, {}, score_responses)

    def judge(self, partition_key: str, judges: Sequence[Judge]) -> ScoredFile:
        """Have the responses judged for which there is a rubric; raises as `score`, and as `judge_answers`."""
        how = self._settings.judge
        who = {"judges": panel_name(judges), "how": how.model_dump_json(), "rubrics": self._rubric_hashes}
        return self._run(partition_key, RESPONSE_JUDGEMENTS, who, ResponseJudging(judges, how).judge)

    def _run(self, partition_key: str, table: Table, scored_by: Row, score: Score) -> ScoredFile:
        path = self._settings.responses_path / file_name(partition_key)
        digest, info = _content(path)
        version: Row = {
            "partition_key": partition_key,
            "evaluation_id": self._evaluation_id(digest, scored_by),
            "scored_at": datetime.now(UTC),
        }
        reader = ResponseReader(path, self._settings.limits.response_line_bytes)

        def batches() -> Iterator[pa.Table]:
            for responses in in_batches(reader):
                yield score(responses, self._cases.of(responses), version)
            if reader.sha256 != digest:
                raise ResponseFileError(f"{path} was written while it was read. Score it again when it is finished.")
            if not reader.count:
                raise ResponseFileError.from_problems(
                    f"{path} holds no response, and {reader.bad_lines} bad lines",
                    reader.problems,
                    "Each line must be a JSON object with the fields 'id' and 'response'.",
                )

        receipt = self._store.write_batches(
            table, partition_key, batches(), version["evaluation_id"], version["scored_at"]
        )
        if table is RESPONSE_SCORES:
            row = {
                **version,
                "file": shown_name(path),
                "file_sha256": digest,
                "size_bytes": info.st_size,
                "mtime_ns": info.st_mtime_ns,
                "responses": reader.count,
                "bad_lines": reader.bad_lines,
                "problems": "\n".join(reader.problems),
            }
            self._store.write_partition(partition_key, {RESPONSE_FILES.name: [row]})
        return ScoredFile(receipt, reader.count, reader.bad_lines, reader.problems)

    def _evaluation_id(self, file_sha256: str, scored_by: Row) -> str:
        content = {
            "file": file_sha256,
            "scorer": _SCORER_VERSION,
            "exact": {kind: filters.model_dump() for kind, filters in EXACT_FILTERS.items()},
            "suites": {suite.name: suite.sha256 for suite in self._suites},
            **scored_by,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _content(path: Path) -> tuple[str, os.stat_result]:
    """The hash of a file's content, and what the file system says of it."""
    with open_plain(path, ResponseFileError) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno())
        except OSError as error:
            raise ResponseFileError(f"{path} cannot be read: {error.strerror}. Check the disk.") from error
