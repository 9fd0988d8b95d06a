"""Reading the letter of a multiple choice that an answer states, or the text that stands for it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ml_pipeline.scoring.phrases import find_mentions
from ml_pipeline.scoring.statements import repeats, sentences, statements


def stated_choice(text: str, choices: Mapping[str, str], prompt: str = "") -> str | None:
    """The letter that the plain text states, or None.

    A letter counts when it stands alone ("C", "(C)", "C)", "option C"), so that the article "A" is not read as one.
    """
    letters = "".join(choices)
    standing = re.compile(
        rf"(?<![\w'])(?:\(([{letters}])\)|([{letters}])(?=[).:,\]}}*\"'`]|\s*$|\s*\n|[ ](?:is|because|since|as)\b|[ ]-)"
        rf"|(?:option|choice|letter|answer|operator|is)[ ]+[*(\"'`]*([{letters}])\b(?![ ][a-z]))"
    )
    by_text = {content.casefold(): letter for letter, content in choices.items()}
    spans = [(statement.start, statement.end) for statement in statements(text)]
    spoken = sentences(text)
    spans += [span for span in spoken if not repeats(prompt, text[slice(*span)])] or spoken
    for by_letter in (True, False):
        for start, end in spans:
            if by_letter:
                match = standing.search(text, start, end)
                if match:
                    return next(letter for letter in match.groups() if letter)
            else:
                mentions = find_mentions(text[start:end], list(choices.values()))
                if len({mention.phrase for mention in mentions}) == 1:
                    return by_text[mentions[0].phrase.casefold()]
    only = re.fullmatch(rf"\W*([{letters.lower()}])\W*", text)
    return only[1].upper() if only else None
