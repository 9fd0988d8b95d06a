"""Every probe of the templated suite, solved again from its prompt alone, against right and wrong answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import pytest

from ml_pipeline.scoring.checks import check_answer
from ml_pipeline.suites import Probe, load_suites

SUITE = load_suites(["capability_templates"])[0]
CAPABILITY = load_suites(["capability"])[0]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
COMPASS = ["north", "east", "south", "west"]
OPPOSITES = [
    *("day", "night", "full", "empty", "buy", "sell", "win", "lose", "wet", "dry", "alive", "dead", "entrance", "exit"),
    *("push", "pull", "clean", "dirty", "inside", "outside", "young", "old", "black", "white"),
]
KINDS = {
    **{"rose": "flower", "salmon": "fish", "hammer": "tool", "carrot": "vegetable", "sparrow": "bird"},
    **{"piano": "instrument", "lorry": "vehicle", "wasp": "insect"},
}
CAUSES = {
    **{"thunder": "lightning", "coughing": "smoking", "sweating": "exercise", "slippery roads": "frost"},
    **{"smoke": "fire", "poor harvests": "drought", "cracked walls": "an earthquake", "laughter": "a joke"},
    **{"fever": "a virus", "faded curtains": "sunlight"},
}
STORIES = {
    **{"soup": "salt", "tyre": "nail", "candle": "alight", "carpet": "boots", "ice cream": "heat"},
    **{"choir": "rehearsed", "plane": "fog", "jumper": "washed"},
}
FAMILIES = (
    {"Berlin", "London", "Dublin", "Vienna"},
    {"potato", "onion", "cabbage", "leek"},
    {"trout", "herring", "tuna", "cod"},
    {"shirt", "jacket", "trousers", "scarf"},
    {"seven", "eleven", "twenty", "forty"},
    {"guitar", "cello", "harp", "organ"},
    {"iron", "copper", "zinc", "tin"},
)
Answer = str | int | Fraction


def ints(prompt: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", prompt)]


def cut(pattern: str, prompt: str) -> tuple[str, ...]:
    found = re.search(pattern, prompt, re.DOTALL)
    assert found is not None, (pattern, prompt)
    return tuple(map(str, found.groups()))


def of_numbers(rule: Callable[..., Answer]) -> Callable[[str], Answer]:
    return lambda prompt: rule(*ints(prompt))


def opposite(prompt: str) -> str:
    at = OPPOSITES.index(cut(r"opposite of (\w+)\?", prompt)[0])
    return OPPOSITES[at + 1 if at % 2 == 0 else at - 1]


def chosen_cause(prompt: str) -> str:
    event, first = cut(r"^(.*?)\. What brought.*A\) (.*?)\n", prompt)
    (sign,) = [word for thing, word in STORIES.items() if thing in event]
    return "A" if sign in first.lower() else "B"


def beside(prompt: str) -> str:
    row: list[str] = re.findall(r"an? (\w+)", prompt.split("What stands")[0])
    return row[row.index(cut(r"of the (\w+)\?", prompt)[0]) + 1]


def turned(prompt: str) -> str:
    side, turn = cut(r"sails (\w+)\. .* to the (\w+)\.", prompt)
    return COMPASS[(COMPASS.index(side) + (1 if turn == "right" else -1)) % 4]


def day(prompt: str) -> str:
    name, when = cut(r"was (\w+)\. .* is (\w+)\?", prompt)
    return DAYS[(DAYS.index(name) + (1 if when == "today" else 2)) % 7]


def letter(prompt: str) -> str:
    (last,) = cut(r"read [A-Z] [A-Z] ([A-Z])", prompt)
    return chr(ord(last) + ints(prompt)[0])


def bead(prompt: str) -> str:
    row = cut(r"over: (.*) \.\.\.", prompt)[0].split(", ")
    return row[len(row) % 3]


def odd_one(prompt: str) -> str:
    words = cut(r"together: (.*?)\.", prompt)[0].split(", ")
    (odd,) = [word for word in words for family in FAMILIES if word in family and len(family & set(words)) == 1]
    return odd


def printed(prompt: str) -> str:
    program = prompt.split("\n\n", 1)[1]
    assert re.fullmatch(r"[\w\s=+*>():\"\[\],-]+", program)
    shown: list[str] = []
    exec(program, {"print": lambda value: shown.append(str(value)), "len": len})
    (line,) = shown
    return line


def either(yes: bool) -> str:
    return "yes" if yes else "no"


SOLVERS: dict[str, Callable[[str], Answer]] = {
    "arithmetic-add": of_numbers(lambda a, b: a + b),
    "arithmetic-subtract": of_numbers(lambda b, a: a - b),
    "arithmetic-multiply": of_numbers(lambda a, b: a * b),
    "algebra-one-step": of_numbers(lambda c, right: right - c),
    "algebra-two-step": of_numbers(lambda a, c, right: (right - c) // a),
    "algebra-evaluate": of_numbers(lambda x, a, c: a * x - c),
    "probability-cards": of_numbers(lambda n, _one, _n, k: Fraction(k, n)),
    "probability-raffle": of_numbers(lambda n, k: Fraction(k, n)),
    "geometry-tiles": of_numbers(lambda a, b: a * b),
    "geometry-fence": of_numbers(lambda a: a + a + a + a),
    "geometry-angle": of_numbers(lambda whole, a: whole - a),
    "sequences-count-on": of_numbers(lambda _a, _b, c, d: d + (d - c)),
    "sequences-count-down": of_numbers(lambda _a, _b, c, d: d + (d - c)),
    "sequences-doubling": of_numbers(lambda _a, _b, c: c + c),
    "percentages-class": of_numbers(lambda p, n: n * p // 100),
    "percentages-share": of_numbers(lambda n, k: Fraction(100 * k, n)),
    "deduction-middle": lambda prompt: prompt.split()[0],
    "deduction-membership": lambda prompt: either("Every" in prompt),
    "deduction-exclusion": lambda prompt: either("Not a single" not in prompt),
    "puzzles-hidden": lambda prompt: cut(r"or the (\w+) one", prompt)[0],
    "puzzles-guess": of_numbers(lambda a, total: total - a),
    "puzzles-wheels": of_numbers(lambda n, wheels: n * wheels),
    "sets-both": lambda prompt: next(n for n, count in Counter(ints(prompt)).items() if count == 2),
    "sets-only-first": of_numbers(lambda _all, both, first: first - both),
    "sets-member": lambda prompt: either(ints(prompt)[-1] in ints(prompt)[:-1]),
    "analogy-opposites": opposite,
    "analogy-category": lambda prompt: KINDS[cut(r"a (\w+) is a kind of what", prompt)[0]],
    "causal-choice": chosen_cause,
    "causal-direction": lambda prompt: next(
        cause for cause in CAUSES.values() if re.search(rf"[:d] {cause}\b", prompt)
    ),
    "spatial-between": beside,
    "spatial-turn": turned,
    "spatial-floors": of_numbers(lambda a, up, down: a + up - down),
    "temporal-days": day,
    "temporal-clock": of_numbers(lambda h, k: h + k),
    "temporal-age": of_numbers(lambda born, then: then - born),
    "pattern-letters": letter,
    "pattern-beads": bead,
    "pattern-odd": odd_one,
    "code-variables": printed,
    "code-length": printed,
    "code-branch": printed,
    "word-problems-bus": of_numbers(lambda a, off, on: a - off + on),
    "word-problems-save": of_numbers(lambda a, n: a * n),
    "word-problems-pages": of_numbers(lambda n, k: n - k),
}


def solved(probe: Probe) -> Answer:
    answer = SOLVERS[probe.template](probe.prompt)
    return int(answer) if isinstance(answer, str) and re.fullmatch(r"-?\d+", answer) else answer


def wrong_answers(probe: Probe, right: Answer) -> list[str]:
    assert probe.check is not None
    if isinstance(right, Fraction) and not probe.check["percent"]:
        return [f"{right + Fraction(1, 10)}", str(1 - right) if right != Fraction(1, 2) else "1/7"]
    if not isinstance(right, str):
        return [str(right + 1), str(right - 1), f"{right * 10}"]
    if probe.check["type"] == "yes_no":
        return [either(right == "no")]
    if probe.check["type"] == "choice":
        return ["AB"[right == "A"]]
    return [str(wrong) for wrong in probe.check["reject"]]


def sentences(answer: object) -> list[str]:
    return [f"{answer}", f"The answer is {answer}.", f"Let me think about it.\n\nAnswer: {answer}", f"**{answer}**"]


@pytest.mark.parametrize("template", sorted({probe.template for probe in SUITE.probes}))
def test_right_answers_pass_and_wrong_ones_fail(template: str) -> None:
    for probe in SUITE.probes:
        if probe.template != template:
            continue
        assert probe.check is not None
        right = solved(probe)
        for answer in sentences(right):
            assert check_answer(probe.check, answer, prompt=probe.prompt).passed, (probe.id, probe.prompt, answer)
        for answer in ["", "I do not know.", *wrong_answers(probe, right)]:
            found = check_answer(probe.check, answer, prompt=probe.prompt)
            assert not found.passed, (probe.id, probe.prompt, answer, found)
        for wrong in wrong_answers(probe, right):
            for answer in sentences(wrong)[1:]:
                assert not check_answer(probe.check, answer, prompt=probe.prompt).passed, (probe.prompt, answer)


PROBABILITIES = [probe for probe in SUITE.probes if probe.category == "probability"]


def rounded(share: Fraction, places: int) -> str:
    """By whole numbers, half up: 1/8 with two places is 0.13."""
    digits = (2 * share.numerator * 10**places + share.denominator) // (2 * share.denominator)
    return f"{digits // 10**places}.{digits % 10**places:0{places}d}"


@pytest.mark.parametrize("probe", PROBABILITIES, ids=lambda probe: str(probe.id))
def test_probabilities_are_exact(probe: Probe) -> None:
    assert probe.check is not None

    def passes(answer: str) -> bool:
        return check_answer(probe.check or {}, answer, prompt=probe.prompt).passed

    share, numbers = solved(probe), ints(probe.prompt)
    assert isinstance(share, Fraction)
    total, some = numbers[0], numbers[-1]
    assert share == Fraction(some, total)
    right = [f"{some}/{total}", f"{2 * some}/{2 * total}", f"{share}", f"{some} out of {total}", rounded(share, 4)]
    right += [f"{some}/{total} = {share}", f"{some}/{total} = {rounded(share, 3)}", f"{float(share):.2%}"]
    for answer in right:
        assert passes(answer), answer
        assert passes(f"The probability is {answer}."), answer
    wrong = {(some, total - some), (some, total - 1), (some, total + 1), (some - 1, total), (some + 1, total)}
    wrong |= {(total - some, total), (some - 1, total - 1), (some + 1, total + 1)}
    for over, under in wrong:
        if under and Fraction(over, under) != share:
            for answer in (f"{over}/{under}", f"{2 * over}/{2 * under}", f"{over}/{under} = {over / under:.2f}"):
                assert not passes(answer), answer
            if 0 < over < under:
                assert not passes(f"{over} out of {under}")
                assert not passes(f"{over / under:.6f}")


def test_there_are_hundreds_in_the_categories_of_the_fixed_suite() -> None:
    assert len(SUITE.probes) >= 600
    assert SUITE.categories == tuple(dict.fromkeys(probe.category for probe in CAPABILITY.probes))
    assert min(Counter(probe.category for probe in SUITE.probes).values()) >= 28
    assert len({probe.prompt for probe in SUITE.probes}) == len(SUITE.probes)
    assert not {probe.prompt for probe in SUITE.probes} & {probe.prompt for probe in CAPABILITY.probes}


def test_repeating_the_question_is_a_guess_at_best() -> None:
    echoes = [
        probe for probe in SUITE.probes if check_answer(probe.check or {}, probe.prompt, prompt=probe.prompt).passed
    ]
    assert {probe.check["type"] for probe in echoes if probe.check} <= {"phrase", "choice"}
    assert len(echoes) < 0.1 * len(SUITE.probes)


def test_no_single_answer_wins_much() -> None:
    """Saying the same to every probe of a kind, or always the first option, must not look like an ability."""
    answers = Counter(str(solved(probe)) for probe in SUITE.probes)
    assert answers.most_common(1)[0][1] < 0.06 * len(SUITE.probes)
    said = Counter(str(solved(probe)) for probe in SUITE.probes if probe.check and probe.check["type"] == "yes_no")
    assert abs(said["yes"] - said["no"]) <= 6
