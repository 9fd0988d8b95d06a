"""Texts as one stretch of bytes: what is counted over a column without a loop over its texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

_WIDE_SPACES: tuple[tuple[bytes, bytes], ...] = (
    (b"\xc2", b"\x85\xa0"),
    (b"\xe1\x9a", b"\x80"),
    (b"\xe2\x80", bytes([*range(0x80, 0x8B), 0xA8, 0xA9, 0xAF])),
    (b"\xe2\x81", b"\x9f"),
    (b"\xe3\x80", b"\x80"),
)
"""Go's white space outside ASCII, in UTF-8: how it begins, and the last bytes that it may have."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Parts of texts, in order: `starts` and `ends` in bytes, the `owner` of each, and how many each text has."""

    starts: Ints
    ends: Ints
    owner: Ints
    counts: Ints


@dataclass(frozen=True, eq=False)
class TextBytes:
    """The UTF-8 bytes of n texts one after another; text i is `data[offsets[i]:offsets[i + 1]]`.

    White space is Go's.
    """

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

    def find(self, sequence: bytes) -> Ints:
        """Where a sequence of bytes begins, in order; matches may overlap."""
        places = np.flatnonzero(self.data[: max(self.data.size - len(sequence) + 1, 0)] == sequence[0])
        for step, byte in enumerate(sequence[1:], start=1):
            places = places[self.data[places + step] == byte]
        ends = self.offsets[np.searchsorted(self.offsets, places, side="right")]
        return places[places + len(sequence) <= ends]

    def has(self, sequence: bytes) -> Flags:
        """Which texts hold a sequence of bytes."""
        return self._per_text(self.find(sequence)) > 0

    def split(self, byte: bytes) -> Pieces:
        """The texts cut at every such byte, which is left out; a text without it is one piece."""
        cuts = self.find(byte)
        counts = self._per_text(cuts) + 1
        # Stable, for that sort is quick with two runs that are each in order.
        starts = np.sort(np.concatenate([self.offsets[:-1], cuts + 1]), kind="stable")
        ends = np.sort(np.concatenate([cuts, self.offsets[1:]]), kind="stable")
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
        often = np.bincount(codes)[codes] > 1
        pairs = np.unique(pieces.owner[often] * kinds + codes[often])
        owners = np.concatenate([pieces.owner[~often], pairs // kinds])
        return np.bincount(owners, minlength=len(pieces.counts))

    @cached_property
    def word_counts(self) -> Ints:
        """Words of each text: stretches without white space."""
        starts, ends = self._words
        before = np.searchsorted(ends, self.offsets[:-1], side="right")
        return np.where(self.sizes > 0, np.searchsorted(starts, self.offsets[1:]) - before, 0)

    @cached_property
    def _words(self) -> tuple[Ints, Ints]:
        """Where words start and end; one that ends a text may go on in the next."""
        spaces = np.ones(self.data.size + 2, np.bool_)
        inner = spaces[1:-1]
        np.equal(self.data, 32, out=inner)
        inner |= self.data - np.uint8(9) < 5
        if (self.data >= 0xC2).any():
            for begin, last in _WIDE_SPACES:
                places = self.find(begin)
                places = places[np.isin(self.data[places + len(begin)], np.frombuffer(last, np.uint8))]
                for step in range(len(begin) + 1):
                    inner[places + step] = True
        edges = np.flatnonzero(spaces[1:] != spaces[:-1])
        return edges[::2], edges[1::2]

    def _per_text(self, places: Ints) -> Ints:
        """How many of the places, which are in order, lie in each text."""
        return np.diff(np.searchsorted(places, self.offsets))
