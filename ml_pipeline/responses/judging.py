"""Has judges grade a batch of responses, as rows of table response_judgements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ml_pipeline.evaluation.judges import Judge
from ml_pipeline.evaluation.judging import judge_answers
from ml_pipeline.judge_settings import EMBEDDED, JudgeSettings
from ml_pipeline.responses.cases import Case, answer_row, by_suite, with_probes
from ml_pipeline.responses.reading import Response
from ml_pipeline.responses.scoring import response_columns
from ml_pipeline.settings import Settings
from ml_pipeline.stores.response_tables import RESPONSE_JUDGEMENTS

Row = dict[str, Any]
_SAID = (
    *("suite", "rubric", "rubric_sha256", "dimension", "score", "unscored_reason", "judge_model"),
    *("explanation", "transcript", "votes", "votes_asked"),
)


def judges_of_files(settings: Settings) -> Settings | None:
    """The settings with those judges only that can judge a file's responses; None where there are none.

    A file has no checkpoint, and so no base model that could judge it as `embedded`.
    """
    members = tuple(member for member in settings.judge.members if member != EMBEDDED)
    if not members:
        return None
    judge = settings.judge.model_copy(update={"backend": members[0], "panel": members})
    return settings.model_copy(update={"judge": judge})


class ResponseJudging:
    """Judges the batches of one file. `answers_per_suite` holds for each model: the same probes of a suite of yours,
    the first ones of the file where a standard suite's rubric applies."""

    def __init__(self, judges: Sequence[Judge], how: JudgeSettings) -> None:
        self._judges = judges
        self._limit = how.answers_per_suite
        self._how = how
        self._seen: Counter[tuple[str, str]] = Counter()

    def judge(self, responses: Sequence[Response], cases: Sequence[Case], version: Row) -> pa.Table:
        """Judge a batch; raises as `judge_answers`. `version` holds what all rows of a file share."""
        by_line = {response.line: response for response in responses}
        rows: list[Row] = []
        chosen = [case.judged if self._is_chosen(r, case) else None for r, case in zip(responses, cases, strict=True)]
        for suite, places in by_suite(chosen):
            answers = [answer_row(responses[place], suite.name, probe) for place, probe in places]
            filled = with_probes(suite, [probe for _, probe in places])
            # Those of a suite that was made for them are chosen already.
            how = self._how if filled is suite else self._how.model_copy(update={"answers_per_suite": None})
            rows += judge_answers(self._judges, how, [filled], answers).judgements
        columns = {
            **{name: [value] * len(rows) for name, value in version.items()},
            **response_columns([by_line[row["iteration"]] for row in rows]),
            **{name: [row[name] for row in rows] for name in _SAID},
        }
        return pa.table({c.name: pa.array(columns[c.name], c.type) for c in RESPONSE_JUDGEMENTS.columns})

    def _is_chosen(self, response: Response, case: Case) -> bool:
        if self._limit is None or case.judged is None or case.judged[0].probes:
            return True
        name = case.judged[0].name, response.model
        self._seen[name] += 1
        return self._seen[name] <= self._limit
