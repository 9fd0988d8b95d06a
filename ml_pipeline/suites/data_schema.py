"""The field `data` of a suite file: which data set of the user's its probes are taken from, and how.

    data: {file: ~/data/gsm8k, kind: gsm8k, split: test, sample: 200, seed: 1}

`file` is a JSONL or Parquet file, or a folder of them as the Hugging Face Hub lays them out. What the kinds read is
`data_kinds`' matter.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from ml_pipeline.suites.fields import STRICT

MAX_DATA_PROBES = 20_000
DataKind = Literal[
    "gsm8k", "truthfulqa", "truthfulqa_mc1", "do_not_answer", "toxigen", "mmlu", "arc", "choices", "table"
]
"""How the columns of a data set are read."""
ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
_NEEDED: dict[str, tuple[str, ...]] = {"table": ("prompt", "answer"), "choices": ("prompt", "choices", "answer")}
_OWN: dict[str, tuple[str, ...]] = {
    "table": ("prompt", "answer", "category", "check"),
    "choices": ("prompt", "choices", "answer", "category"),
}
_SCORED = ("mmlu", "arc", "truthfulqa_mc1", "choices")


class DataFile(BaseModel):
    """Where a suite's probes come from.

    `sample` rows are taken, all where it is unset; the same for one `seed`, whatever the order of the rows. `prompt`,
    `answer`, `choices` and `category` name the columns of the kinds `table` and `choices`, whose answer is checked as
    `check` says. `instruction` follows each question, in place of the kind's own. A bad row makes the suite be
    refused, or with `leave_out` is left out and counted.
    """

    model_config = STRICT

    file: Annotated[str, Field(min_length=1, max_length=1000)]
    kind: DataKind
    split: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$", max_length=64)] | None = None
    sample: Annotated[int, Field(ge=1, le=MAX_DATA_PROBES)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    prompt: ColumnName | None = None
    answer: ColumnName | None = None
    choices: ColumnName | None = None
    category: ColumnName | None = None
    check: Literal["phrase", "number", "yes_no", "output"] | None = None
    instruction: Annotated[str, Field(max_length=5000)] | None = None
    bad_rows: Literal["refuse", "leave_out"] = "refuse"

    @model_validator(mode="after")
    def _fields_of_the_kind(self) -> Self:
        missing = [name for name in _NEEDED.get(self.kind, ()) if getattr(self, name) is None]
        if missing:
            raise ValueError(f"kind {self.kind!r} needs the names of the columns {', '.join(map(repr, missing))}")
        known = _OWN.get(self.kind, ())
        own = dict.fromkeys(name for names in _OWN.values() for name in names)
        if needless := [name for name in own if getattr(self, name) is not None and name not in known]:
            raise ValueError(f"kind {self.kind!r} has no field {', '.join(map(repr, needless))}; drop it")
        if self.instruction is not None and self.kind in _SCORED:
            raise ValueError(f"kind {self.kind!r} has no field 'instruction': its choices are scored, not answered")
        return self
