"""How the answers of checkpoints to a probe are shown, one below the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.console import ConsoleOptions, Group, RenderableType
from rich.padding import Padding

from ml_pipeline.errors import SettingsError
from ml_pipeline.printable import printable, printable_lines
from ml_pipeline.reports.response_table import response_table
from ml_pipeline.reports.scores import Scores
from ml_pipeline.reports.terminal import terminal_text
from ml_pipeline.scoring.degeneration import UNSOUND_SIGNALS, Answer, signals_of

_SHOWN = 10
_COLUMNS = (
    *("partition_key", "suite", "probe_id", "category", "sample", "prompt", "expected", "response", "extracted"),
    *("finish_reason", "error", "passed", "unscored_reason", "lek", "judge", "choice_log_probabilities"),
)


def chosen_answers(scores: Scores, keys: Sequence[str], part: str) -> pd.DataFrame:
    """The answers of these checkpoints, in this order, to the probes that are called so or have `part` in their id.

    Raises:
        SettingsError: no probe is called so.
    """
    table = response_table(scores)
    for wanted in (table["probe_id"].eq(part), table["probe_id"].str.contains(part, case=False, regex=False)):
        if wanted.any():
            order = table["partition_key"].map({key: index for index, key in enumerate(keys)})
            chosen = table[wanted].assign(_order=order[wanted])
            return chosen.sort_values(["suite", "probe_id", "_order", "sample"], kind="stable")[list(_COLUMNS)]
    known = sorted(set(table["probe_id"]))
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    told = ", ".join(printable(probe, 60) for probe in known[:_SHOWN])
    raise SettingsError(f"no answer to a probe called {printable(part, 100)!r}; there are {told}{more}.")


def answers_view(chosen: pd.DataFrame, options: ConsoleOptions) -> RenderableType:
    """The answers for a terminal: each probe's question once, then what each checkpoint said."""
    parts: list[RenderableType] = []
    for (suite, probe), rows in chosen.groupby(["suite", "probe_id"], sort=False):
        parts += _probe(str(suite), str(probe), rows.to_dict("records"), options)
    return Group(*parts)


def answers_json(chosen: pd.DataFrame) -> list[dict[str, Any]]:
    """The answers for programs: a row an answer."""
    return [{str(name): value for name, value in row.items()} for row in chosen.to_dict("records")]


def _probe(suite: str, probe: str, rows: list[Any], options: ConsoleOptions) -> Iterator[RenderableType]:
    first = rows[0]
    yield terminal_text(f"{suite}: {printable(probe, 100)}", options, "bold")
    if isinstance(first["prompt"], str):
        yield Padding(terminal_text(printable_lines(first["prompt"]), options, "dim"), (0, 0, 0, 2))
    if isinstance(first["expected"], str):
        yield terminal_text(f"  wanted: {printable(first['expected'])}", options)
    for row in rows:
        words, style = _verdict(row)
        yield terminal_text(f"  {row['partition_key']}{_sample(rows, row)}: {words}", options, style)
        answer = printable_lines(row["response"]) if isinstance(row["response"], str) else "(not kept)"
        yield Padding(terminal_text(answer, options), (0, 0, 0, 4))
    yield terminal_text("", options)


def _verdict(row: Any) -> tuple[str, str]:
    parts = []
    style = ""
    if row["passed"] is True or row["passed"] is False:
        parts.append("right" if row["passed"] else "wrong")
        style = "green" if row["passed"] else "red"
    elif isinstance(row["unscored_reason"], str):
        parts.append(f"unscored, {printable(row['unscored_reason'], 200)}")
        style = "yellow"
    if isinstance(row["extracted"], str):
        parts.append(f"read {printable(row['extracted'], 60)!r}")
    if row["finish_reason"] == "length":
        parts.append("cut at the token limit")
    if isinstance(row["response"], str) and isinstance(row["finish_reason"], str):
        answer = Answer(str(row["prompt"]), row["response"], row["finish_reason"], row["probe_id"])
        parts += sorted(sign.replace("_", " ") for sign in signals_of(answer) & UNSOUND_SIGNALS - {"truncated"})
    parts += [f"{name} {row[key]:.1f}" for key, name in (("judge", "judge"), ("lek", "LEK")) if pd.notna(row[key])]
    return ", ".join(parts) or "not marked", style


def _sample(rows: list[Any], row: Any) -> str:
    of_this = sum(other["partition_key"] == row["partition_key"] for other in rows)
    return f" ({row['sample']} of {of_this})" if of_this > 1 else ""
