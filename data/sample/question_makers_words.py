"""Makers of questions about words and logic: each takes a random generator and returns (question, answer)."""

from __future__ import annotations

import random

from question_makers_stories import NAMES, Pair

_KINDS = ("wugs", "florps", "daxes", "blickets", "teachers", "robins", "pines", "sailors", "roses", "poets", "trout")
_CLASSES = ("birds", "plants", "swimmers", "readers", "singers", "fish", "blue things", "tall things", "quiet things")
_ORDERS = (
    ("taller", "tallest", "shortest"),
    ("older", "oldest", "youngest"),
    ("faster", "fastest", "slowest"),
    ("richer", "richest", "poorest"),
    ("heavier", "heaviest", "lightest"),
    ("stronger", "strongest", "weakest"),
)
_ANALOGIES = (
    (
        "opposite",
        "up:down wide:narrow fast:slow early:late rich:poor wet:dry full:empty near:far open:closed soft:hard",
    ),
    ("opposite", "thick:thin loud:quiet old:new strong:weak heavy:light true:false left:right begin:end"),
    ("young", "cow:calf sheep:lamb horse:foal duck:duckling goose:gosling lion:cub frog:tadpole pig:piglet"),
    ("home", "bee:hive spider:web fox:den rabbit:burrow horse:stable lion:den pig:sty"),
    ("maker", "baker:bread tailor:clothes potter:pots author:books brewer:beer cobbler:shoes carpenter:furniture"),
    ("worker's place", "teacher:school farmer:farm chef:kitchen sailor:ship judge:court actor:stage miner:mine"),
    ("capital", "Italy:Rome Spain:Madrid Egypt:Cairo Norway:Oslo Greece:Athens Russia:Moscow Peru:Lima Cuba:Havana"),
    ("part", "car:wheel book:page house:room hand:finger tree:leaf clock:hand shirt:sleeve flower:petal"),
    ("use", "knife:cut pen:write broom:sweep needle:sew shovel:dig oven:bake axe:chop brush:paint"),
    ("move", "horse:gallop kangaroo:hop snake:slither eagle:soar frog:jump worm:crawl"),
    ("sense", "eye:see ear:hear nose:smell tongue:taste"),
)
_CAUSES = (
    ("water was frozen overnight", "it turned to ice", "ice"),
    ("the ball hit the window hard", "the window broke", "broke"),
    ("nobody watered the flowers", "the flowers died", "died"),
    ("the cook left the bread in the oven too long", "the bread burned", "burned"),
    ("the wind blew strongly", "the leaves fell", "fell"),
    ("the runner did not drink all day", "the runner became thirsty", "thirsty"),
    ("the baby was woken by a drum", "the baby cried", "cried"),
    ("the sun shone on the snowman", "the snowman melted", "melted"),
    ("the driver ran out of fuel", "the car stopped", "stopped"),
    ("the child ate too many sweets", "the child felt sick", "sick"),
    ("the phone was not charged", "the phone switched off", "off"),
    ("someone left the gate open", "the dog ran away", "away"),
    ("the river rose after the storm", "the fields flooded", "flooded"),
    ("the cat knocked the vase over", "the vase smashed", "smashed"),
    ("the student practised every day", "the student got better", "better"),
    ("the power was cut", "the lights went out", "out"),
)
WORDS = [
    "river",
    "stone",
    "apple",
    "garden",
    "yellow",
    "cloud",
    "tiger",
    "bread",
    "music",
    "lemon",
    "planet",
    "silver",
    "candle",
    "window",
    "basket",
]
_ODD_GROUPS = (
    "apple pear grape plum mango",
    "dog cat horse goat mouse",
    "red blue green pink brown",
    "chair table bed desk",
    "violin flute drum trumpet",
    "hammer saw drill wrench",
    "oak pine birch maple",
    "Mars Venus Saturn Jupiter",
)


def deduction(rng: random.Random) -> Pair:
    """Syllogisms, if-then, and orders of three."""
    name, b, c = rng.sample(NAMES, 3)
    kind, klass, other = rng.choice(_KINDS), rng.choice(_CLASSES), rng.choice(("happy", "awake", "hungry", "kind"))
    roll = rng.randrange(6)
    if roll == 0:
        ask = rng.choice((f"Is every one of the {kind} {other}?", f"Are all {kind} {other}?"))
        return f"All {kind} are {klass}. All {klass} are {other}. {ask}", f"{kind}, {klass}, {other}. Answer: Yes"
    if roll == 1:
        question = f"No {klass} are {other}. All {kind} are {klass}. Are any {kind} {other}?"
        return question, f"{kind} are {klass}, which are never {other}. Answer: No"
    if roll == 2:
        snow = f"If it snows, {name} stays home. {name} did not stay home. Did it snow?"
        other_way = f"All {kind} are {klass}. {name} belongs to the {klass}. Must {name} belong to the {kind}?"
        return rng.choice(
            (
                (f"All {kind} are {other}. {name} is one of the {kind}. Is {name} {other}?", "Answer: Yes"),
                (snow, f"{name} would be home. Answer: No"),
                (other_way, f"There are other {klass}. Answer: No"),
            )
        )
    if roll == 3:
        cause, effect = rng.choice(
            (
                ("the bell rings", "the doors open"),
                ("the switch is on", "the fan turns"),
                ("it is a holiday", "the shop is shut"),
                ("the key fits", "the box opens"),
            )
        )
        subject, verb = effect.rsplit(" ", 1)
        return f"If {cause}, {effect}. We know {cause}. Is it true that {subject} {verb}?", "It follows. Answer: Yes"
    more, most, least = rng.choice(_ORDERS)
    top = rng.random() < 0.5
    facts = [f"{name} is {more} than {b}.", f"{b} is {more} than {c}."]
    rng.shuffle(facts)
    question = f"{' '.join(facts)} Who is the {most if top else least}?"
    return question, f"{name}, {b}, {c}. Answer: {name if top else c}"


def analogy(rng: random.Random) -> Pair:
    """A is to B as C is to ..., within one relation."""
    _, pairs = rng.choice(_ANALOGIES)
    (a, b), (c, d) = (pair.split(":") for pair in rng.sample(pairs.split(), 2))
    ask = rng.choice(
        (
            f"{a.capitalize()} is to {b} as {c} is to what?",
            f"Complete the analogy: {a} : {b} :: {c} : ?",
            f"{a.capitalize()} is to {b} as {c} is to ___.",
            f"If {a} goes with {b}, what goes with {c} in the same way?",
        )
    )
    return ask, f"Answer: {d}"


def causal(rng: random.Random) -> Pair:
    """Cause or effect of a short event, and which of two comes first."""
    (cause, effect, key), (wrong, _, _) = rng.sample(_CAUSES, 2)
    roll = rng.randrange(4)
    if roll == 0:
        question = f"{cause.capitalize()}, so {effect}. What was the cause?"
        return question, f"Answer: {cause}"
    if roll == 1:
        question = f"{effect.capitalize()} because {cause}. What was the effect?"
        return question, f"Answer: {effect}"
    if roll == 2:
        options = [cause, wrong]
        rng.shuffle(options)
        right = "AB"[options.index(cause)]
        question = f"{effect.capitalize()}. Which is the likely cause? A) {options[0]} B) {options[1]}"
        return question, f"Answer: {right}"
    return f"{cause.capitalize()}. What most likely happened then?", f"{effect.capitalize()}. Answer: {key}"


def pattern(rng: random.Random) -> Pair:
    """Repeating patterns, letters of the alphabet, and the odd one out."""
    roll = rng.randrange(4)
    if roll <= 1:
        symbols = rng.choice((WORDS, ["red", "blue", "green", "black"], list("ABCDXYZ"), ["circle", "star", "square"]))
        unit = rng.sample(symbols, rng.choice((2, 3)))
        if rng.random() < 0.3:
            unit = [unit[0], unit[0], unit[1]]
        length = len(unit) * 2 + rng.randrange(len(unit))
        shown = ", ".join(unit[i % len(unit)] for i in range(length))
        ask = rng.choice(("What comes next: {}?", "Continue the pattern: {}, ...", "Which is next after {}?"))
        return ask.format(shown), f"Answer: {unit[length % len(unit)]}"
    if roll == 2:
        step, start = rng.choice((1, 2, 2, 3)), 2 + rng.randrange(10)
        letters = [chr(65 + start + step * i) for i in range(5)]
        ask = rng.choice(("Which letter comes next: {}, ?", "What is the next letter in {}, ...?"))
        return ask.format(", ".join(letters[:4])), f"Answer: {letters[4]}"
    group, foreign = rng.sample(_ODD_GROUPS, 2)
    odd = rng.choice(foreign.split())
    members = [*rng.sample(group.split(), 3), odd]
    rng.shuffle(members)
    return f"Which is the odd one out: {', '.join(members)}?", f"Answer: {odd}"
