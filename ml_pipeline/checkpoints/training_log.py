"""Reads mlx-lm's training log as it grows: bytes in, losses out.

Both formats that mlx-lm has printed are read, in any mixture: the older one of tuner/trainer.py, and that of cli_ui.py:

    Iter 10: Train loss 2.345, Learning Rate 1.000e-05, It/sec 0.420, Tokens/sec 210.3, Trained Tokens 4200, ...
    Iter 200: Val loss 2.123, Val took 3.210s

        10    2.569 ▼        7      0.7k           iteration, training loss, tokens/s, trained tokens in thousands
        15    val 2.440    29.47s                  iteration, validation loss, time of the validation

The newer one prints no learning rate, no iterations/s and no memory, so those are empty. The learning rate in its
header is not taken: under a schedule it is not the one in force. What launchers put before a line (a rank, a time) does
not matter, nor whether the file is UTF-8 or UTF-16, as PowerShell redirects into. A number is read as a whole or not at
all: 2,345 is an iteration or a count of tokens, but as a loss it may be 2.345 or 2345, and then is no loss.

A log comes from another machine, so nothing in it is trusted: what does not look exactly like one of these lines is
passed over, figures out of all bounds are left empty, and memory is bounded however long a line is.
"""

from __future__ import annotations

import codecs
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["train", "val"]

DIVERGED = "diverged"
"""The reason of a loss that is NaN or infinite."""
UNREAD = "unread"
"""The reason of a loss whose digits can be read in two ways."""

_LONGEST_LINE_BYTES = 4096
_LATEST_ITERATION = 10**9
_LARGEST_FIGURE = 1e12
_MOST_TOKENS = 10**15
_UTF_8 = "utf-8"

_LINE_END = re.compile(rb"[\r\n]")
_MAY_BE_LOSS = re.compile("Iter |val|▼|▲".encode())
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)"  # window titles, links
    r"|[ -/]*[0-~])"  # the rest
)
_NUMBER = r"[+-]?(?:\d{1,60}(?:,\d{1,60}){0,20}(?:\.\d{1,60})?(?:[eE][+-]?\d{1,4})?|nan|inf)"
_WHOLE = r"(\d{1,3}(?:,\d{3}){1,4}|\d{1,12})"
_ENDS = r"(?=,?(?:\s|$))"
_OLD = re.compile(rf"\bIter {_WHOLE}: (Train|Val) loss ({_NUMBER}){_ENDS}", re.ASCII)
_OLD_FIGURE = re.compile(rf"(Learning Rate|It/sec|Tokens/sec|Trained Tokens|Peak mem) ({_NUMBER}){_ENDS}", re.ASCII)
# What a launcher puts before a line ends with a space, or like "[rank0]:".
_PREFIX = r"(?:.*[\s\])>:|])?"
_NEW_TRAIN = re.compile(
    rf"{_PREFIX}{_WHOLE}\s+({_NUMBER})\s+[▼▲]\s+([\d,]{{1,20}}|nan|inf)\s+(\d{{1,12}}\.\d)k\s*", re.ASCII
)
_NEW_VAL = re.compile(rf"{_PREFIX}{_WHOLE}\s+val\s+({_NUMBER})\s+\d{{1,12}}\.\d\ds\s*", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class LossRecord:
    """One loss that was printed.

    `loss` is None when it was NaN, infinite or unread, and then `reason` says so. `attempt` counts from 1 how often
    training had started in this log when it was printed. What was not printed is None; memory is in GB as printed.
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
    encoding: str = ""


class TrainingLogParser:
    """Parses one log. `read_bytes` counts the bytes up to the end of the last whole line, from where it started."""

    def __init__(self, state: ParserState | None = None) -> None:
        last = state or ParserState()
        self._log_id, self._attempt, self._iteration = last.log_id, last.attempt, last.iteration
        self._kinds = last.kinds
        # One kept by an earlier version has read on without knowing: it took every log for UTF-8.
        self._encoding = last.encoding or (_UTF_8 if last.log_id else "")
        self._decoder = _decoder(self._encoding)
        self._first_byte = b""
        self.read_bytes = 0
        self._unfinished = b""
        self._unfinished_bytes = 0
        self._beginning = hashlib.sha256()

    @property
    def state(self) -> ParserState:
        """What another parser has to know to go on after the last whole line."""
        return ParserState(self._log_id, self._attempt, self._iteration, self._kinds, self._encoding)

    def feed(self, data: bytes) -> list[LossRecord]:
        """Take the next bytes; return the records of the lines that they complete.

        A line without its end is never read: half a number is a wrong number.
        """
        data, self._first_byte = self._first_byte + data, b""
        if not self._encoding:
            if len(data) < 2:
                self._first_byte = data
                return []
            self._encoding = _encoding(data)
            self._decoder = _decoder(self._encoding)
        text = self._decoder.decode(data).encode() if self._decoder else data
        *lines, unfinished = _LINE_END.split(self._unfinished + text)
        # One byte more than a line may have, so that it is known to be too long when its end comes.
        self._unfinished = unfinished[: _LONGEST_LINE_BYTES + 1]
        if length := self._whole_lines_length(data, text):
            self.read_bytes += self._unfinished_bytes + length
            self._unfinished_bytes = 0
        self._unfinished_bytes += len(data) - length
        return [record for line in lines for record in self._read(line)]

    def _whole_lines_length(self, data: bytes, text: bytes) -> int:
        """How many of the log's bytes there are up to and with the last line's end; `text` is what they say."""
        length = whole_lines_length(text)
        if self._decoder is None or not length:
            return length
        undecoded = len(self._decoder.getstate()[0])
        return len(data) - undecoded - len(text[length:].decode().encode(self._encoding))

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


def _encoding(start: bytes) -> str:
    """UTF-16 is known by its mark, or by the zero in its first character; all else is taken for UTF-8."""
    if start[:2] == codecs.BOM_UTF16_LE or (start[1] == 0 and start[0]):
        return "utf-16-le"
    if start[:2] == codecs.BOM_UTF16_BE or (start[0] == 0 and start[1]):
        return "utf-16-be"
    return _UTF_8


def _decoder(encoding: str) -> codecs.IncrementalDecoder | None:
    return codecs.getincrementaldecoder(encoding)("replace") if encoding.startswith("utf-16") else None


def parse_line(line: bytes) -> list[LossRecord]:
    """The losses in one line: none or one, or several where a progress bar swallowed the line's end."""
    if len(line) > _LONGEST_LINE_BYTES or not _MAY_BE_LOSS.search(line):
        return []
    text = _ESCAPE.sub("", line.decode("utf-8", "replace"))
    if match := _NEW_TRAIN.fullmatch(text):
        iteration, loss, tokens_per_s, thousands = match.groups()
        found = _record(
            iteration,
            "train",
            _Numbers((loss,)).value(loss),
            tokens_per_s=_figure(float(tokens_per_s.replace(",", "") or "nan")),
            trained_tokens=_tokens(float(f"{thousands}e3")),
        )
        return [found] if found else []
    if match := _NEW_VAL.fullmatch(text):
        found = _record(match[1], "val", _Numbers((match[2],)).value(match[2]))
        return [found] if found else []
    return list(_old_records(text))


def _old_records(text: str) -> Iterator[LossRecord]:
    heads = list(_OLD.finditer(text))
    for head, end in zip(heads, [*(head.start() for head in heads[1:]), len(text)], strict=False):
        figures = dict(_OLD_FIGURE.findall(text[head.end() : end]))
        numbers = _Numbers((head[3], *figures.values()))
        found = _record(
            head[1],
            "train" if head[2] == "Train" else "val",
            numbers.value(head[3]),
            learning_rate=_figure(numbers.value(figures.get("Learning Rate"))),
            iterations_per_s=_figure(numbers.value(figures.get("It/sec"))),
            tokens_per_s=_figure(numbers.value(figures.get("Tokens/sec"))),
            trained_tokens=_tokens(numbers.whole(figures.get("Trained Tokens"))),
            peak_memory_gb=_figure(numbers.value(figures.get("Peak mem"))),
        )
        if found:
            yield found


class _Numbers:
    """The numbers of one line: what a comma is in them, the others of the line may tell."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._comma_is_decimal = any(_is_decimal_comma(text) for text in texts)
        self._comma_is_thousands = any(("." in text and "," in text) or text.count(",") > 1 for text in texts)

    def value(self, text: str | None) -> float | None:
        """A number; None for one that is missing or has two readings."""
        if not text or "," not in text:
            return float(text) if text else None
        if _is_decimal_comma(text):
            return float(text.replace(",", "."))
        grouped, _, _ = text.partition(".")
        if not _THOUSANDS.fullmatch(grouped):
            return None
        if "." in text or text.count(",") > 1:
            return float(text.replace(",", ""))
        if self._comma_is_decimal is self._comma_is_thousands:
            return None
        return float(text.replace(",", "." if self._comma_is_decimal else ""))

    def whole(self, text: str | None) -> float | None:
        """A count, in which a comma marks thousands."""
        return float(text.replace(",", "")) if text and _THOUSANDS.fullmatch(text) else self.value(text)


def _is_decimal_comma(text: str) -> bool:
    """Whether this number's one comma cannot be a mark of thousands: 2,34 and 0,345 and 1,000e-05."""
    return bool(_DECIMAL_COMMA.fullmatch(text)) and (
        not _THOUSANDS.fullmatch(text) or text.lstrip("+-").startswith("0")
    )


def _record(
    iteration: str,
    kind: Kind,
    loss: float | None,
    *,
    learning_rate: float | None = None,
    iterations_per_s: float | None = None,
    tokens_per_s: float | None = None,
    trained_tokens: int | None = None,
    peak_memory_gb: float | None = None,
) -> LossRecord | None:
    """`loss` is None where its digits have two readings."""
    number = int(iteration.replace(",", ""))
    if number > _LATEST_ITERATION:
        return None
    finite = loss is not None and math.isfinite(loss)
    return LossRecord(
        number,
        kind,
        loss if finite else None,
        None if finite else UNREAD if loss is None else DIVERGED,
        learning_rate,
        iterations_per_s,
        tokens_per_s,
        trained_tokens,
        peak_memory_gb,
    )


def _figure(value: float | None) -> float | None:
    """A figure that cannot be negative; None for one that is missing or out of all bounds."""
    return value if value is not None and 0 <= value <= _LARGEST_FIGURE else None


def _tokens(value: float | None) -> int | None:
    return round(value) if value is not None and 0 <= value <= _MOST_TOKENS else None
