"""Scores labels as continuations of texts: every text is read once, whatever the number of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ml_pipeline.backends.llama_cpp.batch import TokenBatch
from ml_pipeline.backends.llama_cpp.log_softmax import log_softmax
from ml_pipeline.backends.llama_cpp.memory import SequenceMemory
from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.token_prefixes import Tokens, shared_prefix, split_labels


@dataclass(slots=True)
class _Text:
    """A text with its labels: all (text + label) begin with `prompt`, and `tails` are what follows."""

    prompt: Tokens
    tails: list[Tokens]
    scores: list[float] = field(default_factory=list)


class Classifier:
    """Log-probabilities of labels, the sum over each label's tokens, batched over the model's sequences."""

    def __init__(self, model: LoadedModel, memory: SequenceMemory, batch: TokenBatch) -> None:
        self._model = model
        self._memory = memory
        self._batch = batch

    def scores(self, texts: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
        """Return one row a text and one number a label, each log P(label | text) by the model as it stands.

        Text and label are tokenised together, so that a label reads as it would in a document; where a label changes
        how the end of its text is cut into tokens, all labels of that text are scored from the last common token.

        Raises:
            BackendError: a text with its longest label is longer than the context, or there is nothing to score.
        """
        items = [self._split(index, text, labels) for index, text in enumerate(texts)]
        self._memory.clear()
        try:
            for group in self._groups(items):
                self._read(group)
        finally:
            self._memory.clear()
        return [item.scores for item in items]

    def _split(self, index: int, text: str, labels: Sequence[str]) -> _Text:
        def tokens(part: str) -> Tokens:
            return self._model.tokenize(part, add_special=True, parse_special=True)

        return _Text(*split_labels(index, text, labels, tokens, self._model.context_tokens))

    def _groups(self, items: list[_Text]) -> Iterator[list[_Text]]:
        """One group a round; the first text goes alone when the others can start from what it shares with them."""
        width = self._model.sequences
        start = 0
        if width > 1 and len(items) > 1:
            shared = min(shared_prefix(items[0].prompt, item.prompt) for item in items[1:])
            if shared >= self._memory.min_shared_prefix:
                yield items[:1]
                start = 1
        for first in range(start, len(items), width):
            yield items[first : first + width]

    def _read(self, group: list[_Text]) -> None:
        first = self._read_prompts(group)
        for text, log_probabilities in zip(group, first, strict=True):
            text.scores = [float(log_probabilities[tail[0]]) for tail in text.tails]
        longest = max(len(text.tails) for text in group)
        for label in range(longest):
            self._read_tails(group, label)

    def _read_prompts(self, group: list[_Text]) -> list[npt.NDArray[np.float32]]:
        results: dict[int, npt.NDArray[np.float32]] = {}
        for sequence, text in enumerate(group):
            self._memory.start(sequence, text.prompt)
        while len(results) < len(group):
            ready = []
            self._batch.clear()
            for sequence, text in enumerate(group):
                done = self._memory.length(sequence)
                tokens = text.prompt[done : done + self._batch.room]
                if len(tokens) == 0:
                    continue
                whole = done + len(tokens) == len(text.prompt)
                self._batch.add(sequence, done, tokens, wanted_rows=int(whole))
                self._memory.append(sequence, tokens)
                if whole:
                    ready.append(sequence)
            self._batch.decode()
            rows = self._model.logits(len(ready)) if ready else ()
            results.update({sequence: log_softmax(row) for sequence, row in zip(ready, rows, strict=True)})
        return [results[sequence] for sequence in range(len(group))]

    def _read_tails(self, group: list[_Text], label: int) -> None:
        """Add what the second and later tokens of one label score; the sequences end as they were."""
        waiting = [(sequence, text) for sequence, text in enumerate(group) if len(text.tails[label]) > 1]
        if any(self._memory.length(sequence) < len(text.prompt) for sequence, text in waiting):
            # A recurrent model cannot forget a label alone: it has forgotten the text as well.
            self._read_prompts(group)
        while waiting:
            taken = []
            self._batch.clear()
            while waiting and len(waiting[0][1].tails[label]) - 1 <= self._rows_left:
                sequence, text = waiting.pop(0)
                self._add(sequence, text.tails[label][:-1])
                taken.append((sequence, text, 1))
            if not taken:
                self._read_long_tail(*waiting.pop(0), label)
                continue
            self._score(taken, label)
            for sequence, text, _ in taken:
                self._memory.cut(sequence, len(text.prompt))

    def _read_long_tail(self, sequence: int, text: _Text, label: int) -> None:
        """A label with more tokens than a batch has rows of logits, in pieces."""
        inner, most = text.tails[label][:-1], self._rows_left
        for start in range(0, len(inner), most):
            self._add(sequence, inner[start : start + most])
            self._score([(sequence, text, start + 1)], label)
            self._batch.clear()
        self._memory.cut(sequence, len(text.prompt))

    @property
    def _rows_left(self) -> int:
        """How many more tokens may be read whose logits are wanted."""
        return min(self._batch.row_room, self._batch.room)

    def _add(self, sequence: int, tokens: Tokens) -> None:
        """Read these tokens next in the sequence, and have the logits after each."""
        self._batch.add(sequence, self._memory.length(sequence), tokens, wanted_rows=len(tokens))
        self._memory.append(sequence, tokens)

    def _score(self, taken: list[tuple[int, _Text, int]], label: int) -> None:
        """Decode the batch; add what the labels' tokens score, from the given place on, each under a row of logits."""
        self._batch.decode()
        rows, row = self._model.logits(self._batch.rows), 0
        for sequence, text, place in taken:
            read = self._memory.length(sequence) - len(text.prompt)
            for token in text.tails[label][place : read + 1]:
                text.scores[label] += float(log_softmax(rows[row])[token])
                row += 1
