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
from ml_pipeline.errors import BackendError


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
        while waiting:
            taken, row = [], 0
            self._batch.clear()
            while waiting and len(waiting[0][1].tails[label]) - 1 <= min(self._batch.row_room, self._batch.room):
                sequence, text = waiting.pop(0)
                inner = text.tails[label][:-1]
                self._batch.add(sequence, len(text.prompt), inner, wanted_rows=len(inner))
                self._memory.append(sequence, inner)
                taken.append((sequence, text))
            if not taken:
                raise BackendError(f"label {label} is longer than {self._model.output_rows} tokens. Shorten it.")
            self._batch.decode()
            rows = self._model.logits(self._batch.rows)
            for sequence, text in taken:
                for token in text.tails[label][1:]:
                    text.scores[label] += float(log_softmax(rows[row])[token])
                    row += 1
                self._memory.cut(sequence, len(text.prompt))
