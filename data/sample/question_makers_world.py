"""Makers of questions about place, time, sets and code: each takes a generator and returns (question, answer)."""

from __future__ import annotations

import random

from question_makers_stories import NAMES, Pair
from question_makers_words import WORDS

_COMPASS = ("north", "east", "south", "west")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_OBJECTS = ["lamp", "clock", "vase", "book", "cup", "radio", "plant", "box"]


def sets(rng: random.Random) -> Pair:
    """Intersection, union, difference, membership and size of small sets."""
    pool = rng.sample(range(1, 20), 6)
    shared = sorted(pool[: rng.randint(1, 2)])
    a, b = sorted([*shared, *pool[2:4]]), sorted([*shared, *pool[4:6]])
    union, only = sorted({*a, *b}), sorted(set(a) - set(b))
    sa, sb = _braces(a), _braces(b)
    roll = rng.randrange(6)
    if roll <= 1:
        ask = rng.choice(("What is the intersection of {} and {}?", "Which numbers are in both {} and {}?"))
        return ask.format(sa, sb), f"Answer: {', '.join(map(str, shared))}"
    if roll == 2:
        return f"What is the union of {sa} and {sb}?", f"Answer: {_braces(union)}"
    if roll == 3:
        question = f"How many elements are in the union of {sa} and {sb}?"
        return question, f"{_braces(union)} has {len(union)}. Answer: {len(union)}"
    if roll == 4:
        return f"A = {sa} and B = {sb}. Which elements are in A but not in B?", f"Answer: {', '.join(map(str, only))}"
    x = rng.choice([*a, *b])
    return f"Is {x} an element of {sa}?", f"Answer: {'Yes' if x in a else 'No'}"


def _braces(values: list[int]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def spatial(rng: random.Random) -> Pair:
    """Turns, opposite directions, left and right, above and below."""
    name = rng.choice(NAMES)
    i = rng.randrange(4)
    here = _COMPASS[i]
    roll = rng.randrange(6)
    if roll <= 1:
        turn, by = rng.choice((("right", 1), ("left", 3), ("around", 2), ("right twice", 2)))
        verb = rng.choice(("faces", "looks", "is walking", "is heading"))
        question = f"{name} {verb} {here} and turns {turn}. Which direction is it now?"
        return question, f"Answer: {_COMPASS[(i + by) % 4]}"
    if roll == 2:
        return f"Which direction is opposite to {here}?", f"Answer: {_COMPASS[(i + 2) % 4]}"
    if roll == 3:
        back = _COMPASS[(i + 2) % 4]
        a, b = rng.randint(5, 12), rng.randint(1, 4)
        question = f"{name} walks {a} steps {here} and then {b} steps {back}. How many steps from the start is {name}?"
        return question, f"{a} - {b} = {a - b}. Answer: {a - b}"
    x, y, z = rng.sample(_OBJECTS, 3)
    if roll == 4:
        side, end = rng.choice(
            (("left", "rightmost"), ("left", "leftmost"), ("right", "rightmost"), ("right", "leftmost"))
        )
        first = (side == "left") == (end == "leftmost")
        question = f"The {x} is {side} of the {y}. The {y} is {side} of the {z}. Which is {end}?"
        return question, f"Answer: {x if first else z}"
    place, opposite = rng.choice(
        (("above", "below"), ("below", "above"), ("behind", "in front of"), ("inside", "around"))
    )
    if place == "inside":
        return f"The {x} is inside the {y}. The {y} is inside the {z}. Is the {x} inside the {z}?", "Answer: Yes"
    question = f"The {x} is {place} the {y}. Is the {y} {place} or {opposite} the {x}?"
    return question, f"Answer: {opposite}"


def temporal(rng: random.Random) -> Pair:
    """Days, months, hours, and which came first."""
    i, n = rng.randrange(7), rng.randint(2, 10)
    roll = rng.randrange(6)
    if roll <= 1:
        sign, words = rng.choice(((1, "will it be in {} days"), (-1, "was it {} days ago")))
        day = _DAYS[(i + sign * n) % 7]
        steps = [_DAYS[(i + sign * k) % 7] for k in range(1, n + 1)]
        if n > 7:
            return (
                f"Today is {_DAYS[i]}. What day {words.format(n)}?",
                f"7 days is a week, {n - 7} more: {day}. Answer: {day}",
            )
        return f"Today is {_DAYS[i]}. What day {words.format(n)}?", f"{', '.join(steps)}. Answer: {day}"
    m, k = rng.randrange(12), rng.randint(1, 4)
    if roll == 2:
        steps = [_MONTHS[(m + j) % 12] for j in range(1, k + 1)]
        which = "Which month comes right after" if k == 1 else f"Which month comes {k} months after"
        return f"{which} {_MONTHS[m]}?", f"{', '.join(steps)}. Answer: {steps[-1]}"
    hour, hours = rng.randint(1, 11), rng.randint(1, 8)
    if roll == 3:
        end = (hour + hours - 1) % 12 + 1
        what = rng.choice(("film", "train ride", "class", "party", "match"))
        question = f"A {what} starts at {hour} o'clock and lasts {hours} hours. When does it end?"
        total = f"{hour} + {hours} = {hour + hours}"
        return (
            question,
            f"{total if hour + hours <= 12 else f'{total}, {hour + hours} - 12 = {end}'}. Answer: {end} o'clock",
        )
    if roll == 4:
        minutes = rng.randrange(5, 56, 5)
        question = f"How many minutes pass from {hour}:{minutes - 5:02d} to {hour}:{minutes:02d}?"
        return question, f"{minutes} - {minutes - 5} = 5. Answer: 5"
    name, other, third = rng.sample(NAMES, 3)
    first = rng.random() < 0.5
    question = f"{name} came before {other}. {other} came before {third}. Who came {'first' if first else 'last'}?"
    return question, f"{name}, {other}, {third}. Answer: {name if first else third}"


def code(rng: random.Random) -> Pair:
    """What a line of Python gives."""
    word, other = rng.sample(WORDS, 2)
    numbers = rng.sample(range(1, 20), rng.randint(3, 4))
    a, b, i = rng.randint(5, 30), rng.randint(2, 6), rng.randrange(3)
    expression, steps, value = rng.choice(
        (
            (f'len("{word}")', f"{' '.join(word)} is {len(word)} letters", len(word)),
            (f"len({numbers})", "", len(numbers)),
            (f"{numbers}[{i}]", f"index {i} counts from 0", numbers[i]),
            (f'"{word}"[{i}]', f"{' '.join(word)}, index {i}", word[i]),
            (f'"{word}".upper()', "", word.upper()),
            (f'"{word}" + "{other}"', "", word + other),
            (f"{a} // {b}", f"{b} * {a // b} = {a // b * b}", a // b),
            (f"{a} % {b}", f"{b} * {a // b} = {a // b * b}, {a} - {a // b * b} = {a % b}", a % b),
            (f"max({numbers})", "", max(numbers)),
            (f"min({numbers})", "", min(numbers)),
            (f"sum({numbers[:2]})", f"{numbers[0]} + {numbers[1]}", sum(numbers[:2])),
            (f"{b}**2", f"{b} * {b}", b * b),
            (f"{a} > {a + i - 1}", "", a > a + i - 1),
            (f"{numbers}[-1]", "-1 is the last", numbers[-1]),
        )
    )
    if rng.random() < 0.25:
        expression, steps, value = f"x = {a}; x = x + {b}; print(x)", f"{a} + {b} = {a + b}", a + b
    ask = rng.choice(("What does {} give in Python?", "In Python, what is {}?", "What is printed by print({})?"))
    if expression.startswith("x ="):
        ask = "What does this Python code print? {}"
    return ask.format(expression), f"{steps}. Answer: {value}" if steps else f"Answer: {value}"
