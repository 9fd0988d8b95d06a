"""Reads mlx-lm's training log as it grows: bytes in, losses out.

Both formats that mlx-lm has printed are read, in any mixture: the older one of tuner/trainer.py, and that of cli_ui.py:

    Iter 10: Train loss 2.345, Learning Rate 1.000e-05, It/sec 0.420, Tokens/sec 210.3, Trained Tokens 4200, ...
    Iter 200: Val loss 2.123, Val took 3.210s

        10    2.569 ▼        7      0.7k           iteration, training loss, tokens/s, trained tokens in thousands
        15    val 2.440    29.47s                  iteration, validation loss, time of the validation

The newer one prints no learning rate, no iterations/s and no memory, so those are empty. The learning rate in its
header is not taken: under a schedule it is not the one in force.

A log comes from another machine, so nothing in it is trusted: what does not look exactly like one of these lines is
passed over, figures out of all bounds are left empty, and memory is bounded however long a line is.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["train", "val"]

DIVERGED = "diverged"
"""The reason of a loss that is NaN or infinite."""

_LONGEST_LINE_BYTES = 4096
_LATEST_ITERATION = 10**9
_LARGEST_FIGURE = 1e12
_MOST_TOKENS = 10**15

_LINE_END = re.compile(rb"[\r\n]")
_MAY_BE_LOSS = re.compile("Iter |val|▼|▲".encode())
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)"  # window titles, links
    r"|[ -/]*[0-~])"  # the rest
)
_NUMBER = r"[+-]?(?:\d{1,60}(?:\.\d{1,60})?(?:[eE][+-]?\d{1,4})?|nan|inf)"
_OLD = re.compile(rf"\bIter (\d{{1,12}}): (Train|Val) loss ({_NUMBER})(?=[,\s]|$)", re.ASCII)
_OLD_FIGURE = re.compile(rf"(Learning Rate|It/sec|Tokens/sec|Trained Tokens|Peak mem) ({_NUMBER})(?=[,\s]|$)", re.ASCII)
_NEW_TRAIN = re.compile(
    rf"\s*(\d{{1,12}})\s+({_NUMBER})\s+[▼▲]\s+([\d,]{{1,20}}|nan|inf)\s+(\d{{1,12}}\.\d)k\s*", re.ASCII
)
_NEW_VAL = re.compile(rf"\s*(\d{{1,12}})\s+val\s+({_NUMBER})\s+\d{{1,12}}\.\d\ds\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class LossRecord:
    """One loss that was printed.

    `loss` is None when it was NaN or infinite, and then `reason` says so. `attempt` counts from 1 how often training
    had started in this log when it was printed. What was not printed is None; memory is in GB as printed.
    """

    iteration: int
    kind: Kind
    loss: float | None
    reason: str | None = None
    learning_rate: float | None = None
    iterations_per_s: float | None = None
    tokens_per_s: float | None = None
    trained_tokens: int | None = None
    peak_memory_gb: float | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class ParserState:
    """What a parser has to know to go on after the last line it has read.

    `log_id` names the log by its content: a hash of everything up to and with its first loss, whose timings no other
    training repeats; empty before there is one. `iteration` and `kinds` are those read last.
    """

    log_id: str = ""
    attempt: int = 1
    iteration: int = 0
    kinds: tuple[Kind, ...] = ()


class TrainingLogParser:
    """Parses one log. `read_bytes` counts the bytes up to the end of the last whole line, from where it started."""

    def __init__(self, state: ParserState | None = None) -> None:
        last = state or ParserState()
        self._log_id, self._attempt, self._iteration = last.log_id, last.attempt, last.iteration
        self._kinds = last.kinds
        self.read_bytes = 0
        self._unfinished = b""
        self._unfinished_bytes = 0
        self._beginning = hashlib.sha256()

    @property
    def state(self) -> ParserState:
        """What another parser has to know to go on after the last whole line."""
        return ParserState(self._log_id, self._attempt, self._iteration, self._kinds)

    def feed(self, data: bytes) -> list[LossRecord]:
        """Take the next bytes; return the records of the lines that they complete.

        A line without its end is never read: half a number is a wrong number.
        """
        *lines, unfinished = _LINE_END.split(self._unfinished + data)
        # One byte more than a line may have, so that it is known to be too long when its end comes.
        self._unfinished = unfinished[: _LONGEST_LINE_BYTES + 1]
        if length := whole_lines_length(data):
            self.read_bytes += self._unfinished_bytes + length
            self._unfinished_bytes = 0
        self._unfinished_bytes += len(data) - length
        return [record for line in lines for record in self._read(line)]

    def _read(self, line: bytes) -> list[LossRecord]:
        records = [self._count(record) for record in parse_line(line)]
        if not self._log_id:
            self._beginning.update(line[: _LONGEST_LINE_BYTES + 1] + b"\n")
            if records:
                self._log_id = self._beginning.hexdigest()[:16]
        return records

    def _count(self, record: LossRecord) -> LossRecord:
        """Note where training is; an iteration that comes a second time is that of a training started anew."""
        same = record.iteration == self._iteration
        again = same and record.kind in self._kinds
        if again or record.iteration < self._iteration:
            self._attempt += 1
        self._kinds = (*self._kinds, record.kind) if same and not again else (record.kind,)
        self._iteration = record.iteration
        return replace(record, attempt=self._attempt) if self._attempt > 1 else record


def whole_lines_length(data: bytes) -> int:
    """How many of these bytes there are up to and with the last line's end; 0 without one."""
    return 1 + max(data.rfind(b"\n"), data.rfind(b"\r"))


def parse_line(line: bytes) -> list[LossRecord]:
    """The losses in one line: none or one, or several where a progress bar swallowed the line's end."""
    if len(line) > _LONGEST_LINE_BYTES or not _MAY_BE_LOSS.search(line):
        return []
    text = _ESCAPE.sub("", line.decode("utf-8", "replace"))
    if match := _NEW_TRAIN.fullmatch(text):
        iteration, loss, tokens_per_s, thousands = match.groups()
        found = _record(
            int(iteration),
            "train",
            loss,
            tokens_per_s=_figure(tokens_per_s.replace(",", "")),
            trained_tokens=_tokens(f"{thousands}e3"),
        )
        return [found] if found else []
    if match := _NEW_VAL.fullmatch(text):
        found = _record(int(match[1]), "val", match[2])
        return [found] if found else []
    return list(_old_records(text))


def _old_records(text: str) -> Iterator[LossRecord]:
    heads = list(_OLD.finditer(text))
    for head, end in zip(heads, [*(head.start() for head in heads[1:]), len(text)], strict=False):
        figures = dict(_OLD_FIGURE.findall(text[head.end() : end]))
        found = _record(
            int(head[1]),
            "train" if head[2] == "Train" else "val",
            head[3],
            learning_rate=_figure(figures.get("Learning Rate")),
            iterations_per_s=_figure(figures.get("It/sec")),
            tokens_per_s=_figure(figures.get("Tokens/sec")),
            trained_tokens=_tokens(figures.get("Trained Tokens")),
            peak_memory_gb=_figure(figures.get("Peak mem")),
        )
        if found:
            yield found


def _record(
    iteration: int,
    kind: Kind,
    loss: str,
    *,
    learning_rate: float | None = None,
    iterations_per_s: float | None = None,
    tokens_per_s: float | None = None,
    trained_tokens: int | None = None,
    peak_memory_gb: float | None = None,
) -> LossRecord | None:
    if iteration > _LATEST_ITERATION:
        return None
    value = float(loss)
    finite = math.isfinite(value)
    return LossRecord(
        iteration,
        kind,
        value if finite else None,
        None if finite else DIVERGED,
        learning_rate,
        iterations_per_s,
        tokens_per_s,
        trained_tokens,
        peak_memory_gb,
    )


def _figure(text: str | None) -> float | None:
    """A figure that cannot be negative; None for one that is missing or out of all bounds."""
    if not text:
        return None
    value = float(text)
    return value if 0 <= value <= _LARGEST_FIGURE else None


def _tokens(text: str | None) -> int | None:
    if not text:
        return None
    value = float(text)
    return round(value) if 0 <= value <= _MOST_TOKENS else None
