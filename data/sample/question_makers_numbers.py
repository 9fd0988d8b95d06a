"""Makers of questions in figures: each takes a random generator and returns (question, answer)."""

from __future__ import annotations

import math
import random

from question_makers_stories import Pair


def arithmetic(rng: random.Random) -> Pair:
    """Sums, differences, products, quotients, and two operations in a row."""
    kind = rng.randrange(6)
    ask = rng.choice(("What is {}?", "Calculate {}.", "Compute {}.", "How much is {}?", "Work out {}.", "Evaluate {}."))
    if kind == 0:
        a, b = rng.randint(3, 99), rng.randint(3, 99)
        shown = rng.choice((f"{a} + {b}", f"{a} plus {b}", f"the sum of {a} and {b}"))
        return ask.format(shown), f"{a} + {b} = {a + b}. Answer: {a + b}"
    if kind == 1:
        b, c = rng.randint(2, 50), rng.randint(2, 60)
        shown = rng.choice((f"{b + c} - {b}", f"{b + c} minus {b}"))
        return ask.format(shown), f"{b + c} - {b} = {c}. Answer: {c}"
    if kind == 2:
        a, b = rng.randint(2, 12), rng.randint(2, 12)
        shown = rng.choice((f"{a} * {b}", f"{a} times {b}", f"{a} x {b}", f"the product of {a} and {b}"))
        return ask.format(shown), f"{a} * {b} = {a * b}. Answer: {a * b}"
    if kind == 3:
        a, b = rng.randint(2, 12), rng.randint(2, 12)
        shown = rng.choice((f"{a * b} / {b}", f"{a * b} divided by {b}"))
        return ask.format(shown), f"{a * b} / {b} = {a}. Answer: {a}"
    if kind == 4:
        a, b = rng.randint(13, 29), rng.randint(3, 9)
        tens, ones = a // 10 * 10, a % 10
        steps = f"{tens} * {b} = {tens * b}, {ones} * {b} = {ones * b}, {tens * b} + {ones * b} = {a * b}"
        return ask.format(rng.choice((f"{a} * {b}", f"{a} times {b}"))), f"{steps}. Answer: {a * b}"
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 20)
    if rng.random() < 0.5:
        return ask.format(f"{c} + {a} * {b}"), f"{a} * {b} = {a * b}, {c} + {a * b} = {a * b + c}. Answer: {a * b + c}"
    return ask.format(f"{a} * {b} + {c}"), f"{a} * {b} = {a * b}, {a * b} + {c} = {a * b + c}. Answer: {a * b + c}"


def algebra(rng: random.Random) -> Pair:
    """One unknown, one or two steps."""
    v = rng.choice("xyznp")
    x, a, c = rng.randint(2, 12), rng.randint(2, 9), rng.randint(1, 15)
    equation, steps = rng.choice(
        (
            (f"{v} + {c} = {x + c}", f"{v} = {x + c} - {c} = {x}"),
            (f"{v} - {c} = {x}", f"{v} = {x} + {c} = {x + c}"),
            (f"{a}{v} = {a * x}", f"{v} = {a * x} / {a} = {x}"),
            (f"{a}{v} + {c} = {a * x + c}", f"{a}{v} = {a * x + c} - {c} = {a * x}, {v} = {a * x} / {a} = {x}"),
            (f"{a}{v} - {c} = {a * x - c}", f"{a}{v} = {a * x - c} + {c} = {a * x}, {v} = {a * x} / {a} = {x}"),
            (f"{v} / {a} = {x}", f"{v} = {x} * {a} = {x * a}"),
        )
    )
    ask = rng.choice(
        (
            f"Solve for {v}: {equation}.",
            f"If {equation}, what is {v}?",
            f"Find {v} when {equation}.",
            f"What value of {v} makes {equation} true?",
        )
    )
    return ask, f"{steps}. Answer: {steps.rsplit(' ', 1)[1]}"


def probability(rng: random.Random) -> Pair:
    """Draws from a bag, a die, a coin, a spinner; the answer is a fraction."""
    if rng.random() < 0.7:
        one, two = rng.sample(("red", "blue", "green", "white", "black", "yellow"), 2)
        thing = rng.choice(("balls", "marbles", "beads", "socks", "counters", "sweets"))
        box = rng.choice(("bag", "box", "jar", "drawer", "hat"))
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        ask = rng.choice(("What is the probability that it is {}?", "How likely is it to be {}, as a fraction?"))
        question = f"A {box} holds {a} {one} and {b} {two} {thing}. One is taken at random. {ask.format(one)}"
        return question, _fraction(f"{a} + {b} = {a + b} in all, {a} are {one}", a, a + b)
    sides = rng.choice((6, 8, 10, 12, 20))
    die = rng.choice((f"A fair die with {sides} sides is rolled.", f"A spinner has the numbers 1 to {sides}."))
    k = rng.randint(2, sides - 1)
    event, good = rng.choice(
        (
            (f"the number {k}", 1),
            (f"more than {k}", sides - k),
            (f"less than {k}", k - 1),
            ("an odd number", sides // 2),
        )
    )
    return f"{die} What is the probability of getting {event}?", _fraction(f"{good} of {sides} outcomes", good, sides)


def _fraction(steps: str, top: int, bottom: int) -> str:
    divisor = math.gcd(top, bottom)
    simple = f"{top // divisor}/{bottom // divisor}"
    return f"{steps}. Answer: {simple}" if divisor == 1 else f"{steps}: {top}/{bottom} = {simple}. Answer: {simple}"


def geometry(rng: random.Random) -> Pair:
    """Areas, perimeters, angles, sides."""
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    unit = rng.choice(("cm", "m", "units", "metres"))
    kind = rng.randrange(6)
    if kind == 0:
        shape = rng.choice(("rectangle", "garden", "floor", "rectangular field"))
        question = f"A {shape} is {a} {unit} long and {b} {unit} wide. What is its area?"
        return question, f"{a} * {b} = {a * b}. Answer: {a * b}"
    if kind == 1:
        question = f"What is the perimeter of a rectangle with sides {a} {unit} and {b} {unit}?"
        return question, f"{a} + {b} = {a + b}, 2 * {a + b} = {2 * (a + b)}. Answer: {2 * (a + b)}"
    if kind == 2:
        if rng.random() < 0.5:
            return f"A square has sides of {a} {unit}. Find its area.", f"{a} * {a} = {a * a}. Answer: {a * a}"
        return f"What is the perimeter of a square of side {a} {unit}?", f"4 * {a} = {4 * a}. Answer: {4 * a}"
    if kind == 3:
        p, q = rng.randrange(20, 90, 5), rng.randrange(20, 85, 5)
        question = f"Two angles of a triangle are {p} and {q} degrees. How large is the third?"
        return question, f"{p} + {q} = {p + q}, 180 - {p + q} = {180 - p - q}. Answer: {180 - p - q}"
    if kind == 4:
        base = a * 2
        question = f"A triangle has base {base} {unit} and height {b} {unit}. What is its area?"
        return question, f"{base} * {b} = {base * b}, half is {a * b}. Answer: {a * b}"
    shape, sides = rng.choice(
        (("quadrilateral", 4), ("pentagon", 5), ("octagon", 8), ("heptagon", 7), ("decagon", 10), ("nonagon", 9))
    )
    return (
        f"How many {rng.choice(('sides', 'corners'))} does a {shape} have?",
        f"A {shape} has {sides}. Answer: {sides}",
    )


def sequences(rng: random.Random) -> Pair:
    """The next number of a sequence."""
    start, step = rng.randint(1, 30), rng.randint(2, 12)
    kind = rng.randrange(5)
    if kind <= 1:
        terms, rule = [start + step * i for i in range(5)], f"add {step}: "
    elif kind == 2:
        terms, rule = [start + step * (5 - i) for i in range(5)], f"subtract {step}: "
    elif kind == 3:
        ratio, first = rng.choice((2, 3)), rng.randint(1, 9)
        terms, rule = [first * ratio**i for i in range(5)], f"times {ratio}: "
    else:
        first = rng.randint(1, 9)
        terms, rule = [(first + i) ** 2 for i in range(5)], f"squares, {first + 4} * {first + 4}: "
    shown = ", ".join(map(str, terms[:4]))
    ask = rng.choice(
        (
            "What comes next: {}, ?",
            "What is the next number in {}?",
            "Continue the sequence: {}, ...",
            "{}, __. Fill in.",
        )
    )
    return ask.format(shown), f"{rule}{terms[4]}. Answer: {terms[4]}"


def percentages(rng: random.Random) -> Pair:
    """Round percentages of round numbers, and prices after a discount."""
    percent, divisor, times = rng.choice(
        ((10, 10, 1), (20, 5, 1), (25, 4, 1), (50, 2, 1), (5, 20, 1), (30, 10, 3), (40, 10, 4), (75, 4, 3), (60, 10, 6))
    )
    part = rng.randint(1, 12)
    whole = part * divisor
    steps = f"{whole} / {divisor} = {part}" + (f", {part} * {times} = {part * times}" if times > 1 else "")
    value = part * times
    if rng.random() < 0.7:
        ask = rng.choice(
            ("What is {}% of {}?", "Find {}% of {}.", "Calculate {} percent of {}.", "How much is {}% of {}?")
        )
        return ask.format(percent, whole), f"{steps}. Answer: {value}"
    thing = rng.choice(("coat", "lamp", "bike", "chair", "phone", "bag"))
    question = f"A {thing} costs ${whole} and is reduced by {percent}%. What is the new price in dollars?"
    return question, f"{steps}, {whole} - {value} = {whole - value}. Answer: {whole - value}"
