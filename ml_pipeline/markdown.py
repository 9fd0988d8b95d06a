"""Text from elsewhere as Markdown that shows just that text: no link, no picture, no tag, whatever it holds."""

from __future__ import annotations

import re

from ml_pipeline.printable import printable_line

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_WITHIN_A_LINE = re.compile(r"[\\`*~\[\]<>!&|#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_BARE_LINK = re.compile(r"(?:https?|ftp|mailto|xmpp)(?=:)|www(?=\.)", re.IGNORECASE)
_BARE_MAIL = re.compile(r"(?<=[\w.+-])(?=@[\w-]+\.)")
GAP = "\u200b"
"""A space of no width. GitHub's Markdown makes links of bare addresses in the text that is left when all escapes are
undone, so that only another character in between holds it back."""


def markdown_text(value: object, longest: int = 4000) -> str:
    """One line of text as Markdown; line breaks and what moves a cursor are spaces, and so many characters are kept."""
    return _PUNCTUATION.sub(r"\\\g<0>", _line(value, longest))


def markdown_words(value: object, longest: int = 4000) -> str:
    """The same for words in the middle of a sentence of ours, which stays readable where it is no Markdown: only what
    means something there is escaped. `plain_words` undoes it."""
    return _WITHIN_A_LINE.sub(r"\\\g<0>", _line(value, longest))


def plain_words(sentence: str) -> str:
    """A sentence with `markdown_words` in it as plain text, for readers that take no Markdown."""
    return _ESCAPED.sub(r"\g<1>", sentence).replace(GAP, "")


def without_links(text: str) -> str:
    """The text, in which no program finds an address that it makes a link of by itself; it looks as it did."""
    return _BARE_MAIL.sub(GAP, _BARE_LINK.sub(rf"\g<0>{GAP}", text))


def _line(value: object, longest: int) -> str:
    # Of a long text the rest is not even looked at.
    return without_links(printable_line(str(value)[: longest + 1], longest))
