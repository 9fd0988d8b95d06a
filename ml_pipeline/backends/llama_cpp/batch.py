"""The batch handed to llama_decode: one C struct over numpy arrays, filled anew each step and never reallocated."""

from __future__ import annotations

import ctypes

import numpy as np

from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.llama_cpp.native import forget_log, last_log_lines
from ml_pipeline.backends.token_prefixes import Tokens
from ml_pipeline.errors import BackendError


class TokenBatch:
    """Tokens of several sequences to be decoded together, at most `model.batch_tokens` of them."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        capacity = model.batch_tokens
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._sequences = np.zeros(capacity, dtype=np.int32)
        self._sequence_counts = np.ones(capacity, dtype=np.int32)
        self._wanted = np.zeros(capacity, dtype=np.int8)
        int32_pointer = ctypes.POINTER(ctypes.c_int32)
        base, step = self._sequences.ctypes.data, self._sequences.itemsize
        # Each token names its sequences by a pointer; ours point into one array, set once.
        self._sequence_pointers = (int32_pointer * capacity)(
            *(ctypes.cast(base + step * index, int32_pointer) for index in range(capacity))
        )
        self._struct = model.lib.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(int32_pointer),
            embd=None,
            pos=self._positions.ctypes.data_as(int32_pointer),
            n_seq_id=self._sequence_counts.ctypes.data_as(int32_pointer),
            seq_id=self._sequence_pointers,
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        self.size = 0
        self.rows = 0

    @property
    def room(self) -> int:
        """How many more tokens fit."""
        return self._tokens.size - self.size

    @property
    def row_room(self) -> int:
        """How many more rows of logits may be asked for."""
        return self._model.output_rows - self.rows

    def clear(self) -> None:
        """Empty the batch."""
        self.size = self.rows = 0

    def add(self, sequence: int, position: int, tokens: Tokens, wanted_rows: int = 0) -> int:
        """Put `tokens` of a sequence in, the first at `position`, with logits for the last `wanted_rows` of them.

        Returns the index in the batch of the last token, which is llama.cpp's name for its row of logits.
        """
        count = len(tokens)
        if count > self.room or wanted_rows > self.row_room:
            # llama.cpp would abort the whole process.
            raise BackendError(
                f"a batch of {self.size + count} tokens and {self.rows + wanted_rows} outputs is too large"
            )
        start, stop = self.size, self.size + count
        self._tokens[start:stop] = tokens
        self._positions[start:stop] = np.arange(position, position + count, dtype=np.int32)
        self._sequences[start:stop] = sequence
        self._wanted[start:stop] = 0
        self._wanted[stop - wanted_rows : stop] = 1
        self.size = stop
        self.rows += wanted_rows
        return stop - 1

    def decode(self) -> None:
        """Run the model over the batch.

        Raises:
            BackendError: llama.cpp could not decode it; what the sequences hold is then unknown, so clear the memory.
        """
        self._struct.n_tokens = self.size
        forget_log()
        code = self._model.lib.llama_decode(self._model.context, self._struct)
        if code != 0:
            raise BackendError(f"llama_decode returned {code} on a batch of {self.size} tokens: {last_log_lines()}")
