"""Reading which of several possible answers a text states: names, words, times of day, yes or no."""
# ruff: noqa: RUF001  letters of other scripts that look like Latin ones are what is read here

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

from ml_pipeline.scoring.number_words import word_numbers
from ml_pipeline.scoring.plain_text import plain, unmarked
from ml_pipeline.scoring.statements import Statement, folded_words, is_question, repeats, sentences, statements

# A copula starts a claim of its own: "what does not belong is the harp".
_FEW_WORDS = r"(?:[ ]+(?!(?:but|is|are|was|were)\b)[\w'-]{1,20}){0,3}[ ]+[\"'*(]*\Z"
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|without|cannot|rather than|instead of|opposed to|nicht|kein|keine|pas|não"
    r"|nunca|jamais"
    r"|(?:more|likelier|better)(?:[ ]+\w{1,20})?[ ]+than)|n't)" + _FEW_WORDS + r"|\b(?:no es|non è|не)[ ]+[\"']*\Z"
    r"|(?:不是|并非|不会是|ではなく|じゃなく)[\"']?\Z|\bnon-\Z|\breplac(?:e|ing)[ ]+[\"'`]?\Z",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[\"'*)]*(?:[ ]+[a-z]{1,15})?[ ]+(?:is|was|are|were|does|did|do|can|could|would|will|seems?)"
    r"(?:[ ]?not\b|n't\b|[ ]+(?:much[ ]+)?(?:less|wrong|incorrect|ruled out|excluded|false|impossible|unlikely"
    r"|empty)\b)"
    r"|[\"'*)]*(?:[ ]+[a-z]{1,15})?[\"'* ]*[:=-][ *]*(?:no|false|wrong|incorrect|empty|\u2717|\u2718"
    r"|\u274c)(?![\w ]*\w)"
    r"|[\"'*)]*[ ]+(?:cannot|can't)\b|ではなく|ではありません|ではない",
    re.IGNORECASE,
)
_STILL_DENIED = re.compile(
    r"[\"'*]*(?:[ ]+[a-z]{1,15})?,?[ ]+(?:or|nor)[ ]+(?:in[ ]+)?(?:the[ ]+)?[\"'*]*", re.IGNORECASE
)
_BECAUSE = re.compile(r"\b(?:because|since|(?<=, )as|given that|if)\b", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[,;:]|\b(?:and|but|while|whereas|making|with)\b", re.IGNORECASE)
_CONTRAST = re.compile(
    r",?[ ]+\b(?:while|whereas|although|though)\b|,?[ ]+(?:as opposed to|rather than|instead of|(?:just[ ]+)?like)\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r",?[ ]+(?:and[ ]+)?then\b|,?[ ]+followed by\b", re.IGNORECASE)
_OR = re.compile(r"[\"']?[ ]+(?:box|one)?,?[ ]*or[ ]+(?:in[ ]+)?(?:the[ ]+|an?[ ]+)?[\"']?", re.IGNORECASE)
_IMMEDIATE = re.compile(
    r"\b(?:right after|next|directly after|immediately after|just after|directly to the)\b", re.IGNORECASE
)
_OPENING = re.compile(r"[\s,:*\"'(]*(?:(?:the|in|it is|it's|then|we|know|that|only)[ ]+)*[\"'*]*", re.IGNORECASE)
_SYMBOL = r"<>=!+*/%&|^~-"
# Scripts that put no blanks between words, and Hangul, whose words bear endings.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_COMPASS = frozenset(("north", "east", "south", "west"))

_LABEL = r"[^\W_][\w '’/-]{0,40}?"
_LABELLED_BEFORE = re.compile(
    rf"(?:^|[\n,;{{|(.])[ \t\"'>\d.)-]*(?P<label>{_LABEL})[\"' *]*[:=][ \"'*\[]*(?:the[ ]|an?[ ])?\Z"
)
_LABELLED_AFTER = re.compile(rf"[\"' *]*[:=][ \"'*]*(?:the[ ]|an?[ ])?(?P<label>{_LABEL})[\"']?[ *]*(?=[\n,;}}|.]|$)")
_ORDER = re.compile(r"(?P<first>[\w' -]{1,40}?)[ ]+to[ ]+(?P<last>[\w' -]{1,40})\Z")
_RUN_SEPARATOR = re.compile(r"(?:[\s,;>→*|\"'\[\]]|->|=>|\band\b|\bthen\b|\n[ ]*\d{1,2}[.)])*", re.IGNORECASE)
_RUN_FROM_SMALL = re.compile(r"[ ]*<[ ]*")
_LINE_NUMBERS = re.compile(r"(?m)^[ \t]*\d{1,2}[.):]")
_ASKS_FIRST = re.compile(
    r"\b(?:winner|won|wins|first|tallest|biggest|largest|oldest|fastest|greatest|highest|heaviest|longest|most"
    r"|best|quickest"
    r"|richest|strongest|earliest|maximum|front)\b",
    re.IGNORECASE,
)
_ASKS_LAST = re.compile(
    r"\b(?:last|shortest|smallest|youngest|slowest|least|lowest|lightest|fewest|worst|poorest|weakest|latest"
    r"|minimum|back)\b",
    re.IGNORECASE,
)
# What is said of one end of a scale is not said of the one that is asked for.
_OPPOSED = tuple(
    (re.compile(rf"\b(?:{one})\b", re.IGNORECASE), re.compile(rf"\b(?:{other})\b", re.IGNORECASE))
    for pair in (
        (r"shortest|lowest", r"tallest|longest|highest"),
        (r"smallest|least|fewest", r"biggest|largest|greatest|most"),
        (r"youngest", r"oldest"),
        (r"slowest|last|latest", r"fastest|quickest|first|earliest|winner|won|wins"),
        (r"lightest", r"heaviest"),
        (r"weakest", r"strongest"),
        (r"poorest", r"richest"),
        (r"worst", r"best"),
        (r"truth|truthful|truth-teller|honest", r"liar|lies|lie|lying|lied"),
        (r"causes?", r"(?:effects?|consequences?)(?![ ]+of\b)"),
    )
    for one, other in (pair, pair[::-1])
)
_PART = re.compile(
    r"[,;:()\n→]|[.!?](?=\s)|[ ]-[ ]|\b(?:and|but|while|whereas|making|with|because|since|so|if|then|therefore"
    r"|hence|which|who"
    r"|when)\b",
    re.IGNORECASE,
)
# "Which word does not belong?" asks for what is denied.
_ASKS_DENIED = re.compile(r"\b(?:does|do)(?:[ ]not|n't)[ ]+(?P<verb>[a-z]+)\b", re.IGNORECASE)
_IS_NOT = re.compile(r"[\"'*)]*[ ]+(?:is|are)(?:[ ]not|n't)\b", re.IGNORECASE)
_BUT = re.compile(r",?[ ]+but\b", re.IGNORECASE)
_HEARSAY = re.compile(
    r"\b(?:think|thinks|thought|believe|believes|assume|assumes|guess|guessed|say|says|said|seems?|might|may|often"
    r"|mistaken(?:ly)?|confuse[sd]?|expect(?:ed)?|looks?|tempting)\b",
    re.IGNORECASE,
)
_CORRECTED = re.compile(
    r"\W*(?:however|but|actually|in fact|instead|no,|wait|hmm|oh|sorry|correction|on second thoughts?)\b", re.IGNORECASE
)
_SELF_CORRECTION = re.compile(
    r"(?:\.{2,}|[-,;?!—…])[ ]*(?:oh[ ]+|hmm[ ]+)?(?:no|wait|sorry|scratch that|i mean|make that|actually)(?=[,.:!?]"
    r"|[ ]-)",
    re.IGNORECASE,
)
_NUMBERED_STEP = re.compile(r"[^\W\d_][ ]\d{1,2}:")
_EARLIER_STEP = re.compile(
    r"\b(?:first|1st|initially|originally|at[ ]the[ ](?:start|beginning)|start(?:s|ed|ing)?[ ](?:at|with|from"
    r"|facing|by|out)"
    r"|begin(?:s|ning)?[ ](?:at|with|by)|step[ ]1)\b",
    re.IGNORECASE,
)
_LATER_STEP = re.compile(r"\b(?:the second|second one|finally|after that|afterwards|again|later)\b", re.IGNORECASE)
_LISTED = re.compile(r"(?:[\s,.\"'*]|\band\b|\bboth\b|&)*", re.IGNORECASE)
_SEMICOLON = re.compile(";")
# "Which city is ..." asks for no city in particular.
_ASKED_KIND = re.compile(
    r"\b(?:which|what|who|whose|the|does|did|are|was|were|how|you)\b(?:[ ]+\w+(?=[ ]+(?:is|are|was|does|did|do)\b))?"
)
_YES_NO_QUESTION = re.compile(
    r"(?:^|[,:.!?][ ]+|\n)(?:then[ ]+|so[ ]+)?(?P<aux>is|are|was|were|does|do|did|must|can|could|will|would|should|has"
    r"|have)[ ]+(?P<rest>[^?]{1,200})\?",
    re.IGNORECASE,
)
_EMPTY = frozenset(
    (
        *("a", "an", "the", "it", "he", "she", "they", "we", "you", "i", "of", "in", "on", "at", "to", "out", "be"),
        *("this", "that", "there"),
    )
)
_NECESSITY = r"\b(?:must|has[ ]+to|have[ ]+to|needs?)\b"
_NEGATION = re.compile(r"\b(?:not|no|never|cannot)\b|n't\b", re.IGNORECASE)
_NEGATION_BEFORE = re.compile(
    r"\b(?:no|never|do(?:es)?[ ]+not|(?:do|does|wo|ca|need|must)n't|not|cannot)[ ]+(?:\w+[ ]+)?\Z",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"\b(?:if|whether|might|may|maybe|perhaps|possibly|could|cannot[ ]+(?:say|tell|know)|doubt|determine|assume|claims?"
    r"|unclear|suppose)\b",
    re.IGNORECASE,
)
_FOLLOWS = re.compile(
    r"[\"']?[ ]+(?:follows|(?:comes|is)[ ]+(?:right[ ]+|directly[ ]+|just[ ]+)?after)[ ]+(?:the[ ]+)?[\"']?",
    re.IGNORECASE,
)
_PRECEDES = re.compile(
    r"[\"']?[ ]+(?:is[ ]+followed[ ]+by|precedes|(?:comes|is)[ ]+(?:right[ ]+|directly[ ]+|just[ ]+)?before)[ ]+"
    r"(?:the[ ]+)?[\"']?",
    re.IGNORECASE,
)
_EFFECT = re.compile(
    r"\b(?:causes?|produces?|creates?|makes?|triggers?)[ ]+(?:the[ ]+|an?[ ]+)?[\"']?\Z", re.IGNORECASE
)
_AFTER_COLON = re.compile(r"[^\W\d_]:[ ]+[\"'*]*\Z")
_NEXT_IN_TURN = re.compile(r"\b(?:and|then|finally|lastly|after that|to|becomes|turns into|leads to)\b", re.IGNORECASE)
_PAIRED = re.compile(
    r"[\"']?[ ]*(?:and|vs\.?|versus|/|<->|↔|-|(?:is[ ]+)?followed[ ]+by|precedes"
    r"|(?:is|comes)[ ]+(?:right[ ]+|directly[ ]+|just[ ]+|immediately[ ]+)?before)[ ]*[\"']?",
    re.IGNORECASE,
)
_ASKS_CAUSE = re.compile(r"\bcaus(?:e|es|ed|ing)\b", re.IGNORECASE)
_IS_CAUSED = re.compile(
    r"[\"')]*[ ]+(?:\w+ly[ ]+)?(?:(?:is|are|was|were|gets?)[ ]+(?:\w+ly[ ]+)?(?:caused|produced|created|triggered"
    r"|generated|brought[ ]+(?:about|on)|made|explained)[ ]+by"
    r"|results?[ ]+from|comes?[ ]+from|arises?[ ]+from|stems?[ ]+from|follows?[ ]+from|(?:is|are)[ ]+due[ ]+to"
    r"|(?:is|are)[ ]+(?:the|an?)[ ]+(?:result|effect|consequence|product|outcome|sound)[ ]+of|(?:happens?"
    r"|occurs?)[ ]+because[ ]+of"
    r"|because[ ]+of)[ ]+(?:the[ ]+|an?[ ]+)?[\"'(]*\Z",
    re.IGNORECASE,
)
_CAUSES = re.compile(
    r"[\"')]*[ ]+(?:\w{1,15}(?:[ ]+\w{1,15}){0,4}[ ]+and[ ]+)?(?:\w+ly[ ]+|can[ ]+|may[ ]+|will[ ]+"
    r"|that[ ]+)?(?:causes?|caused|produces?|creates?|leads?[ ]+to"
    r"|led[ ]+to|makes?|triggers?|results?[ ]+in"
    r"|brings?[ ]+(?:about|on)|generates?|gives?[ ]+rise[ ]+to|induces?|(?:is|are)[ ]+(?:the"
    r"|a)[ ]+(?:\w+[ ]+)?(?:cause|source|origin|reason)[ ]+(?:of|for|behind)"
    r"|(?:is|are)[ ]+what[ ]+(?:causes|makes|produces)|(?:is|are)[ ]+responsible[ ]+for|→|->|=>)[ ]+(?:the[ ]+"
    r"|an?[ ]+)?[\"'(]*\Z",
    re.IGNORECASE,
)

_NEGATED = re.compile(
    r"(?:\b(?:not|never|hardly|nicht|pas)|n't)[ ]+(?:(?:an?|the|word|necessarily|simply|just|really|quite|entirely"
    r"|always|actually)[ ]+){0,2}[\"'(]*\Z",
    re.IGNORECASE,
)
# "no" counts alone or before a pause or a pronoun: "no doubt" and "no one" are not answers.
_YES_NO = re.compile(
    r"(?<![\w'-])(?<!yes or )(?<!yes and )(?:"
    r"(?P<no_phrase>not[ ]+necessarily|certainly[ ]+not|definitely[ ]+not|absolutely[ ]+not|of[ ]+course[ ]+not"
    r"|not[ ]+at[ ]+all|not[ ]+the[ ]+case"
    r"|untrue|incorrect)"
    r"|(?P<yes>yes(?! (?:or|and) no)|yeah|yep|yup|true(?=\W*\Z|[.,!\"'*)]|[ ]{2})|(?<=not )true|(?<=n't )true"
    r"|(?<=necessarily )true)"
    r"|(?:nope|nah|false(?![ ]+(?:claim|premise|statement))|no(?=\s*\Z|[^\w\s'-]|\s*\n|[ ]{2}|[ ]-"
    r"|[ ](?:it|he|she|they|the|this|that|we|you|because|not|there)\b)))(?![\w-])",
    re.IGNORECASE,
)
_FOREIGN_YES_NO = re.compile(
    r"(?:(?P<yes>\b(?:ja|oui|sí|sì|sim|да|evet|tak|ναι|có)\b|是的|对的|はい|네|예|हाँ|हां|نعم|ใช่|হ্যাঁ)"
    r"|\b(?:nein|non|não|нет|hayır|nie|όχι|nee|không)\b|不是|否|いいえ|아니요|아니오|नहीं|لا|ไม่ใช่|না)"
    r"(?=[ ]*[,.!;:()\n—-]|[ ]{2}|\s*\Z)",
    re.IGNORECASE,
)
_YES_NO_FIRST = re.compile(
    r"\W*(?:yes|yeah|yep|yup|true|no|nope|nah|false|not[ ]+necessarily|certainly[ ]+not|of[ ]+course[ ]+not"
    r"|definitely[ ]+not)\b",
    re.IGNORECASE,
)
_ASSENT_FIRST = re.compile(
    r"\W*(?:of course|certainly|definitely|absolutely|indeed|affirmative|correct)(?![ ]+not)\b", re.IGNORECASE
)

_TIME_PHRASE = re.compile(r"\d{1,2}[:.]\d{2}")
_HOUR = r"(?P<{0}>\d{{1,2}}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
_CLOCK = re.compile(
    r"(?<![\w:.])(?:(?P<h>\d{1,2})(?:[h.]|[ ]?:[ ]?)(?P<m>[0-5]\d)(?::00)?(?![\d:]|\.\d)(?:[ ]?(?:h|hrs|hours"
    r"|Uhr)\b)?|(?P<military>[01]\d"
    r"|2[0-3])(?P<mm>[0-5]\d)(?=[ ]?(?:hours|hrs|h\b))"
    r"|(?:an?[ ]+)?(?P<part>quarter|half)[ ]+(?P<side>past|after|to|before|till)[ ]+" + _HOUR.format("hour") + r"(?!\w)"
    r"|(?P<minutes>[\w-]{1,14})[ ]+minutes?[ ]+(?P<side2>past|after|to|before|till)[ ]+"
    + _HOUR.format("hour2")
    + r"(?!\w)"
    r"|(?<![a-z]-)"
    + _HOUR.format("hour3")
    + r"[ -]+(?P<minute_word>fifteen|thirty|forty-five|twenty|ten|forty|fifty)(?![\w-]))",
    re.IGNORECASE,
)
_LETTER_RUN = re.compile(r"(?<![\w'])[A-Z](?:(?:[ ]*(?:,|→|->)[ ]*|[ ]{1,3}|,[ ]*and[ ]+)[A-Z](?![\w'])){2,}")


@dataclass(frozen=True, slots=True)
class Mention:
    """One of the possible answers, at its place."""

    phrase: str
    start: int
    end: int


def folded(text: str) -> str:
    """The text for comparison without regard to case, in every script (Unicode's NFKC_Casefold)."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return text if text.isascii() else unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def find_mentions(
    text: str, phrases: Sequence[str], case_sensitive: bool = False, asks_denied: str | None = None
) -> list[Mention]:
    """Every affirmed mention of the phrases as whole words, longest phrase first; denied ones ("not in the red box")
    and parts of compounds ("north-west") are left out. `asks_denied` is a verb whose denial is asked for ("belong" of
    "Which word does not belong?"), so that its affirmation denies.

    The places are in `folded(text)` unless `case_sensitive`; for a text that is folded already they are its own.
    """
    if not case_sensitive:
        text = folded(text)
    pattern, names = _pattern(tuple(phrases), case_sensitive)
    mentions: list[Mention] = []
    last_denied: int | None = None
    matches = list(pattern.finditer(text))
    compounds = _compounds(text, matches)
    for match in matches:
        start, end = match.span()
        denied = (
            start in compounds
            or _DENIED_BEFORE.search(text, max(0, start - 60), start) is not None
            or _is_denied_after(text, end, asks_denied)
            or (last_denied is not None and _STILL_DENIED.fullmatch(text, last_denied, start) is not None)
        )
        last_denied = end if denied else None
        if not denied:
            mentions.append(Mention(names[_fold(match[0], case_sensitive)], start, end))
    return mentions


def stated_phrase(
    text: str,
    phrases: Sequence[str],
    *,
    prompt: str = "",
    about: Sequence[str] = (),
    case_sensitive: bool = False,
    alike: Sequence[str] = (),
) -> str | None:
    """The phrase that the plain text states as its answer, or None; "red or blue" for one that leaves it open.

    Phrases that are `alike` may stand beside each other ("small or little").
    `about` are words of what is asked for: where a sentence names several phrases, the one in their clause counts.
    Times of day are read however they are written where a phrase is one.
    """
    names = {phrase: phrase for phrase in phrases}
    if any(_TIME_PHRASE.fullmatch(phrase) for phrase in phrases):
        text, prompt = clock_times(text), clock_times(prompt)
        names = {clock_times(phrase): phrase for phrase in reversed(phrases)}
    if not case_sensitive:
        text, prompt = folded(text), folded(prompt)
    same = {name for name, phrase in names.items() if phrase in alike}
    reader = _Reader(text, list(names), prompt, about, case_sensitive)
    stated = None if reader.is_a_list(same) else reader.read()
    if stated is None:
        return None
    if other := reader.alternative(stated, same):
        return f"{names[stated]} or {names[other]}"
    return names.get(stated, stated)


def clock_times(text: str) -> str:
    """The text with its times of day as "12:15"."""
    return _CLOCK.sub(_clock_time, text)


class _Reader:
    """Reads one text, folded unless case counts."""

    def __init__(
        self, text: str, phrases: Sequence[str], prompt: str, about: Sequence[str], case_sensitive: bool
    ) -> None:
        self._source = text
        self._text = unmarked(text)
        self._phrases = phrases
        self._prompt = prompt
        self._about = about
        self._case_sensitive = case_sensitive
        self._topic = _pattern(tuple(about), False, loose=True)[0] if about else None
        denied = _ASKS_DENIED.search(" ".join(prompt[slice(*span)] for span in sentences(prompt, questions=True)[-1:]))
        mentions = find_mentions(self._text, phrases, case_sensitive, denied["verb"] if denied else None)
        opposites = [other for one, other in _OPPOSED if self._topic and any(map(one.fullmatch, about))]
        self._mentions = [m for m in mentions if not any(self._is_of(m, other) for other in opposites)]

    def _is_of(self, mention: Mention, other: re.Pattern[str]) -> bool:
        """Whether a mention stands in a clause that speaks of another thing than what is asked for."""
        assert self._topic is not None
        span = _part_of(self._text, mention)
        return other.search(self._text, *span) is not None and self._topic.search(self._text, *span) is None

    def is_a_list(self, alike: set[str]) -> bool:
        """Whether the text is nothing but several of the phrases, joined with "and"."""
        distinct = {mention.phrase for mention in self._mentions}
        if len(distinct) < 2 or distinct <= alike:
            return False
        edges = [0, *(place for m in self._mentions for place in (m.start, m.end)), len(self._text)]
        gaps = [self._text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
        return all(map(_LISTED.fullmatch, gaps)) and re.search(r"\band\b|&", gaps[-2]) is not None

    def read(self) -> str | None:
        arranged = False
        for statement in statements(self._source):
            if statement.firmness != "stated" and not arranged:
                arranged = True
                if found := self._arranged():
                    return found
            inside = _inside(self._mentions, (statement.start, statement.end))
            if statement.firmness == "concluded" and {m.phrase for m in inside} <= self._questioned:
                # "The trophy is beside it, so it is to the right of the mirror."
                continue
            if inside:
                return self._in_statement(statement, inside)
        if not arranged and (found := self._arranged()):
            return found
        return self._in_sentences()

    def alternative(self, stated: str, alike: set[str]) -> str | None:
        """The phrase that the last mention of the stated one leaves open with "or", unless both are alike."""
        last = next((m for m in reversed(self._mentions) if m.phrase == stated), None)
        for first, second in pairwise(self._mentions):
            pair = {first.phrase, second.phrase}
            open_one = last in (first, second) and len(pair) == 2 and not pair <= alike
            if open_one and _OR.fullmatch(self._text, first.end, second.start):
                return second.phrase if first is last else first.phrase
        return None

    def _in_statement(self, statement: Statement, inside: list[Mention]) -> str:
        span = (statement.start, statement.end)
        if statement.firmness == "concluded":
            return self._claimed(span, inside)
        inside = _inside(inside, self._after_correction(span, inside))
        inside = _inside(inside, self._before_the_following(span, inside))
        new = [mention for mention in inside if mention.phrase not in self._asked]
        if _IMMEDIATE.search(self._prompt) and new:
            # "Wednesday follows Tuesday" for what comes right after Tuesday.
            inside = new
        outside = self._outside_brackets(inside, span)
        return (outside or inside)[-1 if statement.firmness == "bare" else 0].phrase

    def _in_sentences(self) -> str | None:
        if self._asks_cause:
            # Of "it causes the thunder" the thunder is no cause.
            causes = [m for m in self._mentions if not _EFFECT.search(self._text, max(0, m.start - 24), m.start)]
            self._mentions = causes or self._mentions
        spoken = [
            part for span in sentences(self._text) for part in _parts(self._text, span) if _inside(self._mentions, part)
        ]
        fresh = [span for span in spoken if not repeats(self._prompt, self._text[slice(*span)])]
        # The word that is asked for may well be one of the prompt's; a whole sentence of its own answers nothing.
        fresh = fresh or [span for span in spoken if len(self._text[slice(*span)].split()) < 5]
        fresh = self._without_steps(fresh)
        on_topic = [span for span in fresh if self._topic and self._topic.search(self._text, *span)]
        for span in reversed((on_topic or fresh)[1:]):
            if is_correction(self._text[slice(*span)]):
                return self._claimed(span, _inside(self._mentions, span))
        for span in on_topic or fresh:
            clause = _inside(self._mentions, _without_reason(self._text, span))
            clause = _inside(clause, self._after_correction(span, clause))
            if len({mention.phrase for mention in clause}) == 1:
                return clause[0].phrase
        for span in (on_topic or fresh)[-1:]:
            return self._claimed(span, _inside(self._mentions, span))
        return None

    def _without_steps(self, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The sentences without those that only start a way to the answer: "After the first turn you face south"."""
        sums = [
            s for s in spans if re.search(r"=[ ]*\d", self._text[slice(*s)]) or _NUMBERED_STEP.search(self._text, *s)
        ]
        asks_first = _EARLIER_STEP.search(" ".join(self._about) or self._prompt)
        steps = set(sums[:-1]) | {s for s in spans if not asks_first and _EARLIER_STEP.search(self._text, *s)}
        return [span for span in spans if span not in steps] or spans

    def _arranged(self) -> str | None:
        """The phrase at the place that is asked for: by a label, in an order, in a series, or as the cause."""
        return self._labelled() or self._ordered() or self._next_letter() or self._cause() or self._follower()

    def _follower(self) -> str | None:
        """Of "Monday comes after Sunday" the Monday, where the prompt has the Sunday."""
        if self._asks_cause:
            return None
        for pair in pairwise(self._mentions):
            between = pair[0].end, pair[1].start
            later, earlier = pair if _FOLLOWS.fullmatch(self._text, *between) else reversed(pair)
            if later is pair[1] and not (self._asks_next and _PRECEDES.fullmatch(self._text, *between)):
                continue
            if earlier.phrase in self._asked and later.phrase not in self._questioned | {earlier.phrase}:
                return later.phrase
        return None

    @cached_property
    def _asks_next(self) -> bool:
        return _IMMEDIATE.search(self._prompt) is not None or re.search(r"\bfollowing\b", self._prompt) is not None

    @cached_property
    def _asks_cause(self) -> bool:
        return _ASKS_CAUSE.search(" ".join(self._about) or self._prompt) is not None

    def _labelled(self) -> str | None:
        """ "Shortest: Cleo", "Ada: truth-teller", and the end that is asked for of "Shortest to tallest: ..."."""
        if self._topic is None:
            return None
        found = None
        for mention in self._mentions:
            before = _LABELLED_BEFORE.search(self._text, max(0, mention.start - 60), mention.start)
            if before:
                if order := _ORDER.search(before["label"]):
                    run = self._run_from(mention)
                    if len(run) > 1 and (end := self._asked_end(order)):
                        found = run[0 if end == "first" else -1].phrase
                elif self._is_topic(before):
                    found = mention.phrase
                continue
            line_start = re.search(
                r"(?:\A|[\n,{|;])[ \t\"'\d.)-]*\Z", self._text[max(0, mention.start - 12) : mention.start]
            )
            after = _LABELLED_AFTER.match(self._text, mention.end) if line_start else None
            if after and self._topic.search(after["label"]):
                found = mention.phrase
        return found

    def _is_topic(self, before: re.Match[str]) -> bool:
        """Whether a label, "1st" as well as "first", is what is asked for."""
        assert self._topic is not None
        first = re.search(r"\b1st\b", before[0]) is not None and self._topic.search("first") is not None
        return first or self._topic.search(before["label"]) is not None

    def _asked_end(self, order: re.Match[str]) -> str | None:
        assert self._topic is not None
        for end in ("first", "last"):
            if self._topic.search(order[end]):
                return end
        return None

    def _ordered(self) -> str | None:
        """The end that is asked for of a text that is nothing but all the phrases in an order."""
        distinct = list(dict.fromkeys(mention.phrase for mention in self._mentions))
        asked = " ".join(self._about) or self._prompt
        first, last = _ASKS_FIRST.search(asked) is not None, _ASKS_LAST.search(asked) is not None
        if len(distinct) < 3 or len(distinct) != len(self._mentions) or first == last:
            return None
        gaps = [self._text[a.end : b.start] for a, b in pairwise(self._mentions)]
        lead = _LINE_NUMBERS.sub("", self._text[: self._mentions[0].start])
        if re.search(r"[^\W\d_]", lead.split(":")[-1]) or re.search(
            r"[^\W_]", self._text[self._mentions[-1].end :].split("\n\n")[0]
        ):
            return None
        if all(_RUN_FROM_SMALL.fullmatch(gap) for gap in gaps):
            return distinct[-1 if first else 0]
        if all(_RUN_SEPARATOR.fullmatch(_LINE_NUMBERS.sub("", gap)) for gap in gaps):
            return distinct[0 if first else -1]
        return None

    def _run_from(self, mention: Mention) -> list[Mention]:
        run: list[Mention] = []
        for following in self._mentions:
            if following.start < mention.start:
                continue
            if run and not _RUN_SEPARATOR.fullmatch(self._text[run[-1].end : following.start]):
                break
            run.append(following)
        return run

    def _next_letter(self) -> str | None:
        """The letter that follows the prompt's own in a series that goes on it."""
        if not self._case_sensitive or not all(len(phrase) == 1 and phrase.isupper() for phrase in self._phrases):
            return None
        asked = re.findall(r"(?<![\w'])[A-Z](?![\w'])", self._prompt)
        for match in reversed(list(_LETTER_RUN.finditer(self._text))[:20]):
            letters: list[str] = re.findall(r"[A-Z]", match[0])
            for size in range(min(len(letters) - 1, len(asked)), 1, -1):
                if any(asked[at : at + size] == letters[:size] for at in range(len(asked) - size + 1)):
                    return letters[size]
        return None

    def _cause(self) -> str | None:
        """Of "X causes Y" or "Y is caused by X" the X, where the cause is asked for."""
        if not self._asks_cause:
            return None
        for first, second in pairwise(self._mentions):
            gap = self._text[first.end : second.start]
            if first.phrase == second.phrase or len(gap) > 60 or "\n" in gap:
                continue
            if _IS_CAUSED.match(gap):
                return second.phrase
            if _CAUSES.match(gap):
                return first.phrase
        return None

    def _before_the_following(self, span: tuple[int, int], inside: list[Mention]) -> tuple[int, int]:
        """Where the next one is asked for, the stretch without what follows that: "Wednesday, and then Thursday"."""
        cut = _GOES_ON.search(self._text, *span) if _IMMEDIATE.search(self._prompt) else None
        before = {mention.phrase for mention in _inside(inside, (span[0], cut.start()))} if cut else set()
        return (span[0], cut.start()) if cut and before - (self._questioned or self._asked) else span

    def _after_correction(self, span: tuple[int, int], inside: list[Mention]) -> tuple[int, int]:
        """The stretch from its last correction of itself on: "small, no, huge"."""
        for match in deque(_SELF_CORRECTION.finditer(self._text, *span), maxlen=1):
            if _inside(inside, (match.end(), span[1])):
                return match.end(), span[1]
        return span

    @cached_property
    def _asked(self) -> set[str]:
        """The phrases that the prompt names."""
        return {mention.phrase for mention in find_mentions(self._prompt, self._phrases, self._case_sensitive)}

    @cached_property
    def _question(self) -> str:
        """The last question of the prompt; empty where it has none."""
        questions = _questions(self._prompt)
        return self._prompt[slice(*questions[-1])] if questions else ""

    @cached_property
    def _words_of_question(self) -> frozenset[str]:
        return _words(_ASKED_KIND.sub(" ", self._question.casefold()))

    @cached_property
    def _questioned(self) -> set[str]:
        """The phrases that the prompt's question names."""
        named = {mention.phrase for mention in find_mentions(self._question, self._phrases, self._case_sensitive)}
        return named if len(named) == 1 else set()

    def _claimed(self, span: tuple[int, int], inside: list[Mention]) -> str:
        """The phrase that a sentence with at least one mention claims."""
        claim = _without_reason(self._text, self._after_correction(span, inside))
        contrast = _CONTRAST.search(self._text, *claim)
        if contrast and _inside(inside, (claim[0], contrast.start())):
            claim = (claim[0], contrast.start())
        claim = self._before_the_following(claim, inside)
        claim = self._side_of_but(claim, inside)
        inside = _inside(inside, claim) or inside
        inside = self._outside_brackets(inside, claim) or inside
        if (step := self._last_step(claim, inside)) is not None:
            return step.phrase
        if self._topic is not None:
            for clause in _clauses(self._text, claim):
                named = _inside(inside, clause)
                if len({mention.phrase for mention in named}) == 1 and self._topic.search(self._text, *clause):
                    return named[0].phrase
        elif closest := self._closest_clause(claim, inside):
            named = _inside(inside, closest)
            inside = [mention for mention in named if mention.phrase not in self._asked] or named
        gap = self._text[inside[0].end : inside[1].start] if len(inside) > 1 else "is"
        continued = not re.search(r"[^\W\d_]", _NEXT_IN_TURN.sub("", gap)) or "=" in gap
        continued = continued or _AFTER_COLON.search(self._text, claim[0], inside[-1].start) is not None
        opens = not continued and _OPENING.fullmatch(self._text, claim[0], inside[0].start) is not None
        if opens and self._pairs_the_asked(inside[:2]):
            return inside[1].phrase
        return (inside[0] if opens else inside[-1]).phrase

    def _pairs_the_asked(self, pair: list[Mention]) -> bool:
        """Whether a sentence names a word of the prompt and its partner: "Hot and cold are opposites"."""
        if len(pair) < 2 or not _PAIRED.fullmatch(self._text, pair[0].end, pair[1].start):
            return False
        return pair[0].phrase in self._asked and pair[1].phrase not in self._asked

    def _side_of_but(self, claim: tuple[int, int], inside: list[Mention]) -> tuple[int, int]:
        """Of "Sydney is the largest city, but the capital is Canberra" the side that speaks of what is asked."""
        found = _BUT.search(self._text, *claim)
        sides = [(claim[0], found.start()), (found.end(), claim[1])] if found else []
        if not sides or not all(_inside(inside, side) for side in sides):
            return claim
        first, second = (self._words_asked(side) for side in sides)
        hearsay = [_HEARSAY.search(self._text, *side) is not None for side in sides]
        if hearsay[0] != hearsay[1]:
            return sides[hearsay.index(False)]
        if first == second == 0:
            return claim
        return sides[0 if first > second else 1]

    def _last_step(self, claim: tuple[int, int], inside: list[Mention]) -> Mention | None:
        """What the last clause of a way to the answer says: "the first turn makes it south, the second one west"."""
        clauses = [clause for clause in _clauses(self._text, claim) if len(_inside(inside, clause)) == 1]
        if len(clauses) < 2 or self._asks_next or _LATER_STEP.search(self._text, *clauses[-1]) is None:
            return None
        # "Cleo is the shortest, then Ben" speaks of what is asked in one clause only.
        on_topic = {self._topic is not None and self._topic.search(self._text, *c) is not None for c in clauses}
        return _inside(inside, clauses[-1])[0] if len(on_topic) == 1 else None

    def _closest_clause(self, claim: tuple[int, int], inside: list[Mention]) -> tuple[int, int] | None:
        """The clause with the most words of the question, where several clauses name one phrase each."""
        inside = [mention for mention in inside if mention.phrase not in self._asked] or inside
        clauses = [clause for clause in _clauses(self._text, claim) if len(_inside(inside, clause)) == 1]
        is_short = any(len(self._text[slice(*clause)].split()) < 3 for clause in clauses)
        if len(clauses) < 2 or is_short:
            return None
        counts = [self._words_asked(clause) for clause in clauses]
        best = max(counts)
        return clauses[counts.index(best)] if counts.count(best) == 1 else None

    def _words_asked(self, span: tuple[int, int]) -> int:
        """How many words of what is asked for a stretch has."""
        if self._topic is not None:
            return len({match[0].casefold() for match in self._topic.finditer(self._text, *span)})
        return len(self._words_of_question & _words(self._text[slice(*span)].casefold()))

    def _outside_brackets(self, mentions: list[Mention], span: tuple[int, int]) -> list[Mention]:
        brackets = [match.span() for match in re.finditer(r"\([^()\n]{0,200}\)", self._text[span[0] : span[1]])]
        return [m for m in mentions if not any(start < m.start - span[0] < end for start, end in brackets)]


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d_]{3,}", text))


def is_correction(sentence: str) -> bool:
    """Whether a sentence corrects or limits what was said before it: "However, the capital is Canberra"."""
    return _CORRECTED.match(sentence) is not None and _HEARSAY.search(sentence) is None


def stated_yes_or_no(text: str, prompt: str = "") -> str | None:
    """ "yes" or "no" as the plain text states it: by a marker, in a conclusion, as its first word, or at the end.

    What is not true is no, what is not false is yes. A text with neither word may state what the prompt asks: "Tom is
    an animal" for "Is Tom an animal?".
    """
    source, text = text, unmarked(text)
    mentions = [_yes_or_no(text, match) for match in _YES_NO.finditer(text)]
    marked = [
        Mention("yes" if match["yes"] else "no", match.start(), match.end()) for match in _FOREIGN_YES_NO.finditer(text)
    ]
    for statement in statements(source):
        if inside := _inside(mentions, (statement.start, statement.end)):
            return inside[0].phrase
        if inside := _inside(marked, (statement.start, statement.start + 12)):
            return inside[0].phrase
    if mentions and _YES_NO_FIRST.match(text):
        return mentions[0].phrase
    opening = [mention for mention in marked if re.search(r"(?:\A|[.!?:\n])\W*\Z", text[: mention.start][-12:])]
    if opening and not mentions:
        return opening[0].phrase
    if _ASSENT_FIRST.match(text):
        return "yes"
    return mentions[-1].phrase if mentions else _asserted(text, prompt)


def _asserted(text: str, prompt: str) -> str | None:
    """Whether the last sentence that has all content words of the prompt's question affirms or denies them."""
    questions = _questions(prompt)
    asked = _YES_NO_QUESTION.search(prompt[slice(*questions[-1])].strip()) if questions else None
    if asked is None:
        return None
    words = [word for word in re.findall(r"[^\W_]+", asked["rest"].casefold()) if word not in _EMPTY][:12]
    modal = _NECESSITY if asked["aux"].casefold() == "must" else ""
    if not words or (len(words) < 2 and not modal):
        return None
    gap = r"(?:(?!\b(?:and|or|so|because|if|since|when)\b)[^.,;:?!\n]){0,30}?"
    # Atomic, so that an answer of the question's words over and over costs no more than another one.
    pattern = re.compile(modal + "".join(f"(?>{gap}{_inflected(word)})" for word in words), re.IGNORECASE)
    told = {folded_words(prompt[slice(*span)]) for span in sentences(prompt)}
    for start, end in reversed(sentences(text)):
        sentence = text[start:end]
        found = deque(pattern.finditer(sentence), maxlen=1)
        if not found or folded_words(sentence) in told:
            continue
        before = sentence[max(0, found[0].start() - 40) : found[0].start()]
        said = {match[0].casefold() for part in (before, found[0][0]) for match in _UNSURE.finditer(part)}
        if said - {asked["aux"].casefold()}:
            return None
        return "no" if _NEGATION.search(found[0][0]) or _NEGATION_BEFORE.search(before) else "yes"
    return None


def _inflected(word: str) -> str:
    if word in ("have", "has"):
        return r"\b(?:have|has)\b"
    return rf"\b{re.escape(word)}(?:s|es|d|ed|ing)?\b"


def _questions(prompt: str) -> list[tuple[int, int]]:
    return [span for span in sentences(prompt, questions=True) if is_question(prompt[slice(*span)])]


def _is_denied_after(text: str, end: int, asks_denied: str | None) -> bool:
    if asks_denied:
        verb = rf"[\"'*)]*[ ]+(?:(?:do|does)(?P<not>[ ]+not|n't)[ ]+)?{re.escape(asks_denied)}s?\b"
        joined = r"(?:,[ ]+(?:and[ ]+)?[\w'-]{1,20}|[ ]+and[ ]+[\w'-]{1,20}){0,4}?"
        if found := re.match(joined + verb, text[end : end + 120], re.IGNORECASE):
            return found["not"] is None
        if _IS_NOT.match(text, end):
            # "The harp is not clothing" says why it does not belong.
            return False
    return _DENIED_AFTER.match(text, end) is not None


def _parts(text: str, span: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The parts of a sentence between its semicolons."""
    start, end = span
    for match in _SEMICOLON.finditer(text, start, end):
        yield start, match.end()
        start = match.end()
    yield start, end


def _part_of(text: str, mention: Mention) -> tuple[int, int]:
    """The clause that a mention stands in."""
    before = deque(_PART.finditer(text, max(0, mention.start - 200), mention.start), maxlen=1)
    after = _PART.search(text, mention.end, mention.end + 200)
    start = before[0].end() if before else max(0, mention.start - 200)
    return start, after.start() if after else min(len(text), mention.end + 200)


def _yes_or_no(text: str, match: re.Match[str]) -> Mention:
    said = match["yes"] is not None
    if match["no_phrase"] is None and _NEGATED.search(text, max(0, match.start() - 40), match.start()):
        said = not said
    return Mention("yes" if said else "no", match.start(), match.end())


def _clock_time(match: re.Match[str]) -> str:
    if match["h"] or match["military"]:
        return f"{int(match['h'] or match['military'])}:{match['m'] or match['mm']}"
    if match["hour3"]:
        return f"{_small(match['hour3'])}:{_small(match['minute_word']):02d}"
    hour = _small(match["hour"] or match["hour2"])
    minutes = {"quarter": 15, "half": 30}[match["part"].lower()] if match["part"] else _small(match["minutes"])
    if minutes < 0 or minutes >= 60:
        return match[0]
    if (match["side"] or match["side2"]).lower() in ("to", "before", "till"):
        hour, minutes = hour - 1 or 12, 60 - minutes
    return f"{hour}:{minutes:02d}"


def _small(written: str) -> int:
    """A whole number below 60 in digits or in words; -1 for anything else."""
    if written.isdecimal():
        return int(written)
    values = [word.value for word in word_numbers(written)]
    return int(values[0]) if len(values) == 1 and values[0] < 60 else -1


def _compounds(text: str, matches: Sequence[re.Match[str]]) -> set[int]:
    """Places of phrases that a hyphen, or between points of the compass a blank, joins to another one."""
    places: set[int] = set()
    for first, second in pairwise(matches):
        gap = text[first.end() : second.start()]
        compass = first[0].casefold() in _COMPASS and second[0].casefold() in _COMPASS
        if gap == "-" or (compass and gap == " "):
            places |= {first.start(), second.start()}
    for match in matches:
        near = text[max(0, match.start() - 6) : match.start()], text[match.end() : match.end() + 6]
        if match[0].casefold() in _COMPASS and (
            re.search(r"(?:north|east|south|west)[ -]\Z", near[0], re.IGNORECASE)
            or re.match(r"[ -](?:north|east|south|west)", near[1], re.IGNORECASE)
        ):
            places.add(match.start())
    return places


def _clauses(text: str, span: tuple[int, int]) -> Iterator[tuple[int, int]]:
    start, end = span
    for match in _CLAUSE_END.finditer(text, start, end):
        yield start, match.start()
        start = match.end()
    yield start, end


def _without_reason(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """The part of a sentence that claims: up to "because ...", or after the comma of "Since ..., "."""
    start, end = span
    reason = _BECAUSE.search(text, start, end)
    if reason is None:
        return span
    if text[start : reason.start()].strip(" \t*-\"'"):
        return start, reason.start()
    comma = text.rfind(",", reason.end(), end)
    return (comma + 1, end) if comma >= 0 else span


def _inside(mentions: Sequence[Mention], span: tuple[int, int]) -> list[Mention]:
    return [mention for mention in mentions if span[0] <= mention.start < span[1]]


def _fold(text: str, case_sensitive: bool) -> str:
    text = " ".join(text.split())
    return text if case_sensitive else folded(text)


@lru_cache(maxsize=256)
def _pattern(
    phrases: tuple[str, ...], case_sensitive: bool, loose: bool = False
) -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern for phrases, and each by its folded text. `loose`: with hyphens, blanks and underscores alike."""
    written = {phrase: plain(phrase) if case_sensitive else folded(plain(phrase)) for phrase in phrases}
    names = {_fold(text, case_sensitive): phrase for phrase, text in reversed(written.items())}
    ordered = sorted((name for name in names if name), key=len, reverse=True)
    joint = r"(?:\s+|[-_])" if loose else r"\s+"
    alternatives = "|".join(
        _edge(name[0], "<")
        + joint.join(map(re.escape, re.split(r"[ _-]" if loose else " ", name)))
        + _edge(name[-1], ">")
        for name in ordered
    )
    return re.compile(alternatives or r"(?!)", 0 if case_sensitive else re.IGNORECASE), names


def _edge(char: str, side: str) -> str:
    """No word may go on beyond a word's edge, no number beyond a number's, and no operator beyond an operator's."""
    look = "?<!" if side == "<" else "?!"
    if re.fullmatch(f"[{_UNSPACED}]", char):
        return ""
    if not (char.isalnum() or char == "_" or unicodedata.category(char) in ("Mn", "Mc")):
        return f"({look}[{_SYMBOL}])" if char in _SYMBOL else ""
    edge = rf"({look}[^\W{_UNSPACED}])"
    if char.isdecimal():
        edge += r"(?<!\d[.,:])" if side == "<" else r"(?![.,:]\d)"
    if not char.isascii():
        edge += f"({look}[{_marks()}])"
    return edge


@lru_cache(maxsize=1)
def _marks() -> str:
    """The combining marks, which belong to the letter before them, as ranges for a character class."""
    points = [point for point in range(0x300, 0x11A00) if unicodedata.category(chr(point)) in ("Mn", "Mc")]
    ranges: list[list[int]] = []
    for point in points:
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
