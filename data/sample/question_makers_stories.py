"""Makers of short stories about numbers: each takes a random generator and returns (question, answer)."""

from __future__ import annotations

import random

Pair = tuple[str, str]

NAMES = [
    "Anita",
    "Boris",
    "Clara",
    "David",
    "Elena",
    "Felix",
    "Grace",
    "Hugo",
    "Iris",
    "Jonas",
    "Kira",
    "Leo",
    "Maya",
    "Nina",
    "Oscar",
    "Paula",
    "Quinn",
    "Rosa",
    "Samir",
    "Tara",
    "Umar",
    "Vera",
    "Wendy",
    "Yusuf",
    "Zoe",
    "Amir",
    "Bella",
    "Carlos",
    "Dina",
    "Emil",
]
THINGS = [
    "pens",
    "stamps",
    "shells",
    "coins",
    "buttons",
    "cookies",
    "marbles",
    "stickers",
    "books",
    "lemons",
    "plums",
    "candles",
    "cards",
    "tickets",
    "beads",
    "muffins",
    "nuts",
    "pears",
    "ribbons",
    "bottles",
]


def puzzles(rng: random.Random) -> Pair:
    """Small riddles whose answer is a number."""
    name = rng.choice(NAMES)
    kind = rng.randrange(5)
    if kind == 0:
        total, kept = rng.randint(10, 40), rng.randint(2, 9)
        who, beast = rng.choice(
            (("shepherd", "goats"), ("breeder", "dogs"), ("keeper", "birds"), ("child", "balloons"))
        )
        question = f"A {who} has {total} {beast}. All but {kept} are lost. How many remain?"
        return question, f"All but {kept} are lost, so {kept} remain. Answer: {kept}"
    if kind == 1:
        x, a, b = rng.randint(2, 12), rng.randint(2, 5), rng.randint(1, 9)
        question = (
            f"{name} thinks of a number, multiplies it by {a} and adds {b}. The result is {a * x + b}. Which number?"
        )
        return question, f"{a * x + b} - {b} = {a * x}, {a * x} / {a} = {x}. Answer: {x}"
    if kind == 2:
        beasts = rng.choice((("cows", 4), ("ducks", 2), ("spiders", 8), ("ants", 6), ("horses", 4)))
        n = rng.randint(2, 9)
        return (
            f"How many legs do {n} {beasts[0]} have?",
            f"{n} * {beasts[1]} = {n * beasts[1]}. Answer: {n * beasts[1]}",
        )
    if kind == 3:
        now, years = rng.randint(5, 40), rng.randint(2, 15)
        if rng.random() < 0.5:
            question = f"{name} is {now} years old. How old will {name} be in {years} years?"
            return question, f"{now} + {years} = {now + years}. Answer: {now + years}"
        other = rng.choice([n for n in NAMES if n != name])
        question = f"{name} is {now}. {other} is {years} years older than {name}. How old is {other}?"
        return question, f"{now} + {years} = {now + years}. Answer: {now + years}"
    n, minutes = rng.randint(2, 9), rng.randint(2, 9)
    who, verb, thing = rng.choice(
        (("bakers", "bake", "loaves"), ("painters", "paint", "walls"), ("robots", "build", "cars"))
    )
    question = (
        f"{n} {who} {verb} {n} {thing} in {minutes} hours. How many hours do {n + 3} {who} need for {n + 3} {thing}?"
    )
    return question, f"Each needs {minutes} hours for one. Answer: {minutes}"


def word_problems(rng: random.Random) -> Pair:
    """Shopping, sharing, travelling."""
    name, other = rng.sample(NAMES, 2)
    thing = rng.choice(THINGS)
    a, b = rng.randint(3, 30), rng.randint(2, 12)
    kind = rng.randrange(7)
    if kind == 0:
        got = rng.choice(("buys", "finds", "wins", "gets"))
        question = f"{name} has {a} {thing} and {got} {b} more. How many {thing} does {name} have now?"
        return question, f"{a} + {b} = {a + b}. Answer: {a + b}"
    if kind == 1:
        gone = rng.choice((f"gives {b} to {other}", f"loses {b}", f"sells {b}", f"uses {b}"))
        question = f"{name} had {a + b} {thing} and {gone}. How many are left?"
        return question, f"{a + b} - {b} = {a}. Answer: {a}"
    if kind == 2:
        price = rng.randint(2, 9)
        question = f"{thing.capitalize()} cost ${price} each. How many dollars do {b} cost?"
        return question, f"{b} * {price} = {b * price}. Answer: {b * price}"
    if kind == 3:
        each = rng.randint(2, 12)
        who = rng.choice(("friends", "pupils", "boxes"))
        question = f"{b * each} {thing} are shared equally among {b} {who}. How many each?"
        return question, f"{b * each} / {b} = {each}. Answer: {each}"
    if kind == 4:
        speed, hours = rng.randrange(10, 100, 10), rng.randint(2, 6)
        what = rng.choice(("car", "bus", "boat", "cyclist", "truck"))
        question = f"A {what} travels at {speed} km per hour for {hours} hours. How many km does it go?"
        return question, f"{speed} * {hours} = {speed * hours}. Answer: {speed * hours}"
    if kind == 5:
        c = rng.randint(1, a)
        question = f"{name} has {a} {thing}, buys {b} more and then gives away {c}. How many does {name} have?"
        return question, f"{a} + {b} = {a + b}, {a + b} - {c} = {a + b - c}. Answer: {a + b - c}"
    boxes, per = rng.randint(2, 9), rng.randint(2, 12)
    question = f"There are {boxes} boxes with {per} {thing} in each. How many {thing} in all?"
    return question, f"{boxes} * {per} = {boxes * per}. Answer: {boxes * per}"
