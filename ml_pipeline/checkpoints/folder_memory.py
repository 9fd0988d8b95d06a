"""What is remembered of run folders between two looks, so that a look costs what changed and not what exists.

A folder's modification time changes when a file in it is made, renamed or removed. It does not change when a file
grows or is overwritten in place, nor when something happens in a folder inside it. So a run folder is only remembered
with the times of its nested folders, and not while a file in it is young; a file that was overwritten later shows at
the next full look. So does one made within a second of a look at a machine whose clock is slow by more than the
settling time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Remembered(Generic[Found]):
    """What was found in a run folder and those inside it; `mtimes_ns` are theirs, by path."""

    mtimes_ns: Mapping[str, int]
    found: Found


@dataclass
class FolderMemory(Generic[Found]):
    """The run folders of one source that need not be listed again while their times stay as they are.

    `context` is whatever else the findings depend on (families, filter): another context forgets everything.
    """

    context: object = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Held during a look, so that two at a time do not mix."""
    _folders: dict[str, Remembered[Found]] = field(default_factory=dict)
    _full_look_at_s: float = 0.0

    def begin(self, context: object, full_look_s: float, clock_s: float | None = None) -> None:
        """Start a look; forgets everything when the last full look is `full_look_s` ago, or the context changed."""
        now_s = time.monotonic() if clock_s is None else clock_s
        if context != self.context or not self._folders or now_s - self._full_look_at_s >= full_look_s:
            self.context, self._folders, self._full_look_at_s = context, {}, now_s

    def inner_folders(self, tops: Mapping[str, int]) -> list[str]:
        """The nested folders whose times have to be asked for, of the run folders whose own time is as before."""
        return [path for top, mtime_ns in tops.items() for path in self._mtimes(top, mtime_ns) if path != top]

    def recall(self, top: str, mtime_ns: int, inner_mtimes_ns: Mapping[str, int]) -> Found | None:
        """What was found in a run folder, if its time and those of the folders inside it are as they were."""
        known = self._mtimes(top, mtime_ns)
        if not known or any(inner_mtimes_ns.get(path) != known[path] for path in known if path != top):
            return None
        return self._folders[top].found

    def remember(self, top: str, mtimes_ns: Mapping[str, int], found: Found, *, settled_before_ns: int) -> None:
        """Keep what was found, unless a folder changed so lately that a further change might not show in its time."""
        if max(mtimes_ns.values()) < settled_before_ns:
            self._folders[top] = Remembered(dict(mtimes_ns), found)
        else:
            self._folders.pop(top, None)

    def forget(self, top: str) -> None:
        """Have a run folder listed at the next look."""
        self._folders.pop(top, None)

    def keep_only(self, tops: Iterable[str]) -> None:
        """Forget the run folders that are gone."""
        for gone in self._folders.keys() - set(tops):
            del self._folders[gone]

    def _mtimes(self, top: str, mtime_ns: int) -> Mapping[str, int]:
        known = self._folders.get(top)
        return known.mtimes_ns if known and known.mtimes_ns[top] == mtime_ns else {}
