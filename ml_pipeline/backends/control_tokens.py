"""Keeps what people and models write into messages from becoming control tokens, such as `<|im_end|>`.

Whoever ends a turn in the middle of a message can put words into the assistant's mouth, or into a judge's. A backend
that makes tokens itself knows every control token of the vocabulary that it has loaded: it renders the chat template
with the messages as they are, and cuts each control token that is written out in a message in two when it makes tokens,
so that the model reads it as text. A server makes tokens of the whole prompt by itself: there a space goes into them.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ml_pipeline.backends.interface import Message
from ml_pipeline.errors import BackendError

_MOST_SEPARATORS = 8
_FRAME = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))


class RenderedPrompt(str):
    """A prompt after the chat template. `breaks` are the places where a control token that a message spells is to be
    cut in two, in ascending order: two prompts of the same text are the same prompt where these are the same."""

    __slots__ = ("breaks",)

    breaks: tuple[int, ...]

    def __new__(cls, text: str, breaks: Iterable[int] = ()) -> RenderedPrompt:
        """A prompt with its breaks."""
        prompt = super().__new__(cls, text)
        prompt.breaks = tuple(breaks)
        return prompt


class ControlTokens:
    """The control tokens of a vocabulary, `texts` by id. Those of one character, and white space, are text."""

    def __init__(self, texts: Mapping[int, str]) -> None:
        self.texts = {token: text for token, text in texts.items() if len(text) > 1 and not text.isspace()}
        self._known = frozenset(self.texts.values())
        # By their first characters, then by length: a vocabulary may have thousands.
        self._lengths: dict[str, tuple[int, ...]] = {}
        for first in {text[0] for text in self._known}:
            self._lengths[first] = tuple(sorted({len(text) for text in self._known if text[0] == first}))
        firsts = "".join(re.escape(first) for first in sorted(self._lengths))
        self._first = re.compile(f"[{firsts}]" if firsts else r"(?!)")

    def places(self, text: str) -> Iterator[int]:
        """Where the second character of each control token in the text stands, overlapping ones included."""
        for found in self._first.finditer(text):
            start = found.start()
            if any(text[start : start + length] in self._known for length in self._lengths[found[0]]):
                yield start + 1

    def spaced(self, text: str) -> str:
        """The text with a space after the first character of each control token, which is none by that."""
        return _inserted(text, self.places(text), " ")

    def with_framing(self, texts: Mapping[int, str], render: Callable[[Sequence[Message]], str]) -> ControlTokens:
        """These, and those of further tokens that the chat template writes around messages.

        Some files give their control tokens as tokens of the user's; others of those are words, tags or line feeds.
        """
        try:
            frame = render(_FRAME)
        except BackendError:
            frame = ""
        framing = {token: text for token, text in texts.items() if text in frame and not text.isalnum()}
        return ControlTokens({**self.texts, **framing})


_BAR = "[|\N{FULLWIDTH VERTICAL LINE}]"
_SHAPES = (
    # <|im_end|>, DeepSeek's with bars of full width, and Gemma 4's with one bar: <|channel>, <channel|>.
    rf"<(?={_BAR}[^\s<>]{{1,80}}>|[^\s<>]{{1,80}}{_BAR}>)|\[(?=\|\w{{1,40}}\|\])",
    r"<(?=/?s>|/?(?:bos|eos|pad|unk|mask|cls|sep|sop|eop|eod|eot|eom|blank)(?:_token)?>|/?\w+:(?:bos|eos|pad|think|tool_call)>)",
    r"<(?=/?seed:\w+>|mask:\d+>)",
    r"<(?=(?:start|end)_of_\w+>|(?:fim|file|repo|gh|issue|jupyter|pr|commit|extra_id|empty)_\w+>|(?:filename|reponame)>)",
    r"<(?=(?:unused|reserved|special|extra|dummy)_?\w*\d+>|/?tool_(?:call|response|list|result)s?>)",
    r"<(?=</?SYS>>)",
    r"◁(?=/?\w{1,40}▷)",
    r"\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_\w{1,20}|ARGS|CALL_ID|THINK|MODEL_SETTINGS|[gs]?MASK|@BOS@)\])",
    r"\[(?=(?:UNK|CLS|SEP|PAD|BOS|EOS|BEGIN_AUDIO|AUDIO|IMG\w{0,10}|PREFIX|MIDDLE|SUFFIX|control_\d+)\])",
)


class _KnownShapes:
    """The control tokens of models whose vocabulary is on a server: by how they look."""

    _found = re.compile("|".join(_SHAPES), re.IGNORECASE)

    def spaced(self, text: str) -> str:
        """As `ControlTokens.spaced`."""
        return self._found.sub(lambda found: found[0] + " ", text)


KNOWN_SHAPES = _KnownShapes()
"""For servers that tell nothing of their vocabulary."""


def spaced_messages(messages: Iterable[Message], control: ControlTokens | _KnownShapes) -> list[Message]:
    """The messages with a space in each control token that they spell."""
    return [replace(message, content=control.spaced(message.content)) for message in messages]


def render_apart(
    messages: Sequence[Message], render: Callable[[Sequence[Message]], str], control: ControlTokens
) -> RenderedPrompt:
    """Render messages, and find where control tokens that they spell stand in the prompt.

    The template is rendered with a mark at these places that nobody can have written: a hash of the messages. Where it
    does something else by that (it looks at a message's text), the tokens get a space each.
    """
    places = [list(control.places(message.content)) for message in messages]
    prompt = render(messages)
    if not any(places):
        return RenderedPrompt(prompt)
    mark = _mark(prompt)
    marked = render(
        [
            replace(message, content=_inserted(message.content, found, mark))
            for message, found in zip(messages, places, strict=True)
        ]
    )
    pieces = marked.split(mark)
    if "".join(pieces) != prompt:
        return RenderedPrompt(render(spaced_messages(messages, control)))
    return RenderedPrompt(prompt, list(itertools.accumulate(map(len, pieces)))[:-1])


def tokens_apart(prompt: RenderedPrompt, tokenise: Callable[[str], list[int]], control: ControlTokens) -> list[int]:
    """The tokens of a prompt, none of them a control token that a message spells.

    `tokenise` makes control tokens of all that a text spells. One of them is put where the prompt is to be cut, and
    taken out again: what stands on either side of a control token is made into tokens by itself. Where the vocabulary
    has none that serves, a space is put there.
    """
    if not prompt.breaks:
        return tokenise(prompt)
    spaced = tokenise(_inserted(prompt, prompt.breaks, " "))
    wanted = [token for token in spaced if token in control.texts]
    written = set(prompt.breaks)
    for separator, text in itertools.islice(control.texts.items(), _MOST_SEPARATORS):
        # The template's own ones of this kind stay. Two that begin at one place are the message's.
        own = [found.start() for found in re.finditer(re.escape(text), prompt) if found.start() + 1 not in written]
        ours = [place in written for place in sorted([*own, *prompt.breaks])]
        found = tokenise(_inserted(prompt, prompt.breaks, text))
        if found.count(separator) != len(ours):
            continue
        turn = iter(ours)
        kept = [token for token in found if token != separator or not next(turn)]
        if [token for token in kept if token in control.texts] == wanted:
            return kept
    return spaced


def _inserted(text: str, places: Iterable[int], what: str) -> str:
    ends = [*places, len(text)]
    return what.join(text[start:end] for start, end in zip([0, *ends], ends, strict=False))


def _mark(prompt: str) -> str:
    raw = prompt.encode("utf-8", "surrogatepass")
    marks = (hashlib.sha256(b"%d %s" % (number, raw)).hexdigest() for number in itertools.count())
    return next(mark for mark in marks if mark not in prompt)
