"""The text of an answer as its tokens arrive: bytes to characters, stop strings found at the end."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class AnswerText:
    """Collects the bytes of tokens into text and looks for stop strings only where new text could complete one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.text = ""
        self.stopped = False
        self._stop = tuple(string for string in stop if string)
        # A token may end in the middle of a character: the decoder waits for the rest.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._taken = 0

    def add(self, piece: bytes) -> bool:
        """Append a token's bytes; True when a stop string is complete, which is then cut off with all after it."""
        new = self._decoder.decode(piece)
        if not new:
            return False
        before = len(self.text)
        self.text += new
        found = [self.text.find(stop, max(0, before - len(stop) + 1)) for stop in self._stop]
        places = [place for place in found if place >= 0]
        if places:
            self.text = self.text[: min(places)]
            self.stopped = True
        return self.stopped

    def take(self, *, ended: bool) -> str:
        """Return the text not taken yet, holding back what may be the beginning of a stop string until `ended`."""
        end = len(self.text) if ended else len(self.text) - self._possible_stop()
        ready = self.text[self._taken : max(end, self._taken)]
        self._taken += len(ready)
        return ready

    def _possible_stop(self) -> int:
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self.text)), longest, -1):
                if self.text.endswith(stop[:size]):
                    longest = size
                    break
        return longest
