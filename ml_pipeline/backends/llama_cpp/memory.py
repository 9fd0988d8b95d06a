"""What each sequence's key-value cache holds, and the reuse of what sequences have in common."""

from __future__ import annotations

import numpy as np

from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.token_prefixes import Tokens, shared_prefix

# A copy moves a sequence's whole buffer, so what it saves must grow with the buffer.
_TOKENS_A_PREFIX_TOKEN_PAYS_FOR = 128


class SequenceMemory:
    """The tokens decoded in each sequence, kept in step with llama.cpp's own memory.

    A finished sequence keeps its tokens until its place is needed, so that a later prompt with the same beginning can
    start from it, in place or by copy.
    """

    def __init__(self, model: LoadedModel, min_shared_prefix: int) -> None:
        self._model = model
        self._tokens = np.zeros((model.sequences, model.context_tokens), dtype=np.int32)
        self._lengths = [0] * model.sequences
        self.min_shared_prefix = max(min_shared_prefix, model.context_tokens // _TOKENS_A_PREFIX_TOKEN_PAYS_FOR)

    def length(self, sequence: int) -> int:
        """How many tokens the sequence holds, which is the position of its next one."""
        return self._lengths[sequence]

    def shared(self, sequence: int, prompt: Tokens) -> int:
        """How many tokens of `prompt` the sequence holds already, leaving the last for the logits."""
        held = self._tokens[sequence, : self._lengths[sequence]]
        return shared_prefix(held, prompt[:-1])

    def best_shared(self, prompt: Tokens) -> tuple[int, int]:
        """Return the sequence that holds most of `prompt`, and how many tokens of it."""
        counts = [self.shared(sequence, prompt) for sequence in range(self._model.sequences)]
        best = int(np.argmax(counts))
        return best, counts[best]

    def start(self, sequence: int, prompt: Tokens) -> int:
        """Make a sequence ready for `prompt` and return how many of its tokens need no decoding."""
        own = self.shared(sequence, prompt)
        source, most = self.best_shared(prompt)
        if most - own >= self.min_shared_prefix:
            self._copy(source, sequence)
            own = most
        self.cut(sequence, own if own >= self.min_shared_prefix else 0)
        return self._lengths[sequence]

    def cut(self, sequence: int, length: int) -> None:
        """Drop all but the first `length` tokens; all of them where the model cannot forget in part."""
        remove = self._model.lib.llama_memory_seq_rm
        # Recurrent models keep a state, not tokens: they refuse to forget in part.
        if not remove(self._model.memory, sequence, length, -1):
            remove(self._model.memory, sequence, -1, -1)
            length = 0
        self._lengths[sequence] = min(length, self._lengths[sequence])

    def append(self, sequence: int, tokens: Tokens) -> None:
        """Note that these tokens were decoded at the end of the sequence."""
        start = self._lengths[sequence]
        self._tokens[sequence, start : start + len(tokens)] = tokens
        self._lengths[sequence] = start + len(tokens)

    def move(self, source: int, target: int) -> None:
        """Take a sequence to another place, whatever that one held."""
        self._copy(source, target)
        self.cut(source, 0)

    def clear(self, *, zero: bool = False) -> None:
        """Forget everything. `zero` also writes over the forgotten keys and values, which takes the time of writing the
        whole cache: needed after weights that may have left NaN in it, since a masked NaN is still NaN in a sum.
        """
        self._model.lib.llama_memory_clear(self._model.memory, zero)
        self._lengths = [0] * self._model.sequences

    def _copy(self, source: int, target: int) -> None:
        # Sequences with buffers of their own can be copied in full only.
        self._model.lib.llama_memory_seq_cp(self._model.memory, source, target, -1, -1)
        self._tokens[target] = self._tokens[source]
        self._lengths[target] = self._lengths[source]
