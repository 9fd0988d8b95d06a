"""Texts as one stretch of bytes: what is counted over a column without a loop over its texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

_WIDE_SPACES = [
    chr(code).encode()
    for code in (0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Parts of texts, in order: `starts` and `ends` in bytes, the `owner` of each, and how many each text has."""

    starts: Ints
    ends: Ints
    owner: Ints
    counts: Ints


@dataclass(frozen=True, eq=False)
class TextBytes:
    """The UTF-8 bytes of n texts one after another; text i is `data[offsets[i]:offsets[i + 1]]`. White space is Go's."""

    data: npt.NDArray[np.uint8]
    offsets: Ints

    @classmethod
    def of(cls, texts: pa.Array) -> TextBytes:
        """View the bytes of an Arrow array of strings without nulls; nothing is copied but the offsets."""
        width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
        _, offsets_buffer, data_buffer = texts.buffers()
        offsets = np.zeros(1, np.int64)
        if offsets_buffer is not None and len(texts):
            every = np.frombuffer(offsets_buffer, width)
            offsets = every[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        size = int(offsets[-1] - offsets[0])
        data = np.frombuffer(data_buffer, np.uint8, size, int(offsets[0])) if size else np.zeros(0, np.uint8)
        return cls(data, offsets - offsets[0])

    @property
    def sizes(self) -> Ints:
        """Bytes of each text."""
        return np.diff(self.offsets)

    def has(self, byte: int) -> Flags:
        """Which texts hold a byte."""
        return self._per_text(np.flatnonzero(self.data == byte)) > 0

    def has_pair(self, byte: int) -> Flags:
        """Which texts hold a byte twice in a row."""
        places = np.flatnonzero(self.data == byte)
        second = places[1:][np.diff(places) == 1]
        return self._per_text(second[~np.isin(second, self.offsets)]) > 0

    def split(self, byte: int) -> Pieces:
        """The texts cut at every such byte, which is left out; a text without it is one piece."""
        cuts = np.flatnonzero(self.data == byte)
        counts = self._per_text(cuts) + 1
        starts = np.sort(np.concatenate([self.offsets[:-1], cuts + 1]))
        ends = np.sort(np.concatenate([cuts, self.offsets[1:]]))
        return Pieces(starts, ends, np.repeat(np.arange(len(counts)), counts), counts)

    def trimmed(self, pieces: Pieces) -> Pieces:
        """The pieces without white space at their ends, and without those that hold nothing else."""
        word_starts, word_ends = self._words
        following = np.searchsorted(word_ends, pieces.starts, side="right")
        preceding = np.searchsorted(word_starts, pieces.ends, side="left")
        starts = np.maximum(pieces.starts, np.append(word_starts, self.data.size)[following])
        ends = np.minimum(pieces.ends, np.append(0, word_ends)[preceding])
        kept = starts < ends
        owner = pieces.owner[kept]
        return Pieces(starts[kept], ends[kept], owner, np.bincount(owner, minlength=len(pieces.counts)))

    def distinct(self, pieces: Pieces) -> Ints:
        """How many different pieces each text has."""
        if not pieces.owner.size:
            return np.zeros(len(pieces.counts), np.int64)
        # Piece, gap, piece, gap ...: an array of all of them over the very same bytes, of which every second counts.
        edges = np.stack([pieces.starts, pieces.ends], axis=1).ravel()
        buffers = [None, pa.py_buffer(edges), pa.py_buffer(self.data)]
        encoded = pa.Array.from_buffers(pa.large_binary(), edges.size - 1, buffers).dictionary_encode()
        kinds = len(encoded.dictionary)
        codes = encoded.indices.to_numpy()[::2]
        pairs = np.unique(pieces.owner * kinds + codes)
        return np.bincount(pairs // kinds, minlength=len(pieces.counts))

    @cached_property
    def word_counts(self) -> Ints:
        """Words of each text: stretches without white space."""
        return self._per_text(self._words[0])

    @cached_property
    def _words(self) -> tuple[Ints, Ints]:
        """Where words start and end. No word goes on from one text into the next."""
        spaces = np.ones(self.data.size + 1, np.bool_)
        spaces[:-1] = (self.data == 32) | (self.data - np.uint8(9) < 5)
        for place, width in self._wide_spaces():
            spaces[place : place + width] = True
        inside = ~spaces[:-1]
        edges = self.offsets[(self.offsets > 0) & (self.offsets < self.data.size)]
        opens, closes = inside.copy(), inside.copy()
        opens[1:] &= spaces[:-2]
        closes[:-1] &= spaces[1:-1]
        opens[edges] |= inside[edges]
        closes[edges - 1] |= inside[edges - 1]
        return np.flatnonzero(opens), np.flatnonzero(closes) + 1

    def _wide_spaces(self) -> Iterator[tuple[int, int]]:
        """Place and width in bytes of every white space outside ASCII."""
        if not (self.data >= 0xC2).any():
            return
        leads = {lead: np.flatnonzero(self.data == lead) for lead in {space[0] for space in _WIDE_SPACES}}
        for space in _WIDE_SPACES:
            places = leads[space[0]]
            for step, byte in enumerate(space[1:], start=1):
                places = places[self.data[places + step] == byte]  # UTF-8: what a lead byte promises is there
            for place in places.tolist():
                yield place, len(space)

    def _per_text(self, places: Ints) -> Ints:
        """How many of the places, which are in order, lie in each text."""
        return np.diff(np.searchsorted(places, self.offsets))
