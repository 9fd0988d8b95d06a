"""Word salad is told from right answers in several languages, mathematics, code and tables."""

from __future__ import annotations

import random
import sysconfig
import time
from pathlib import Path

import pytest

from ml_pipeline.scoring.word_salad import is_word_salad

BROKEN = [  # by the sample's run that training broke, from its iteration 30 on
    "4. 4 8 8 8 Answer: 4. 4 4 4 2 4 4 Answer: 4.  answer .  4 4 4  4 8 Answer: 4.",
    " Answer = 1 *  Answer + + + + + +   = 1 + 3 + 5 = 1  = 1 + 3 + 3 + 5 = 5 = 1  *     *  +  +  + + + + + +",
    " Answer: Answer:\n\n =\n\n =\n =\n\n Answer: =:\n\n = =:\n\n::\n\n =::\n\n Answer Answer:\n\n =: "
    "Answer::\n\n Answer:",
    "4:4. Answer: 4:4.4. Answer: 40000. Answer: 40000. Answer: 40000. Answer: 40000._000000. Answer: 40000.00. "
    "40000.00.",
    " = = Answer:\n\n\n\n Answer: =\n\n\n\n\n + = =  = = *  =  * * * * * * * * * * * Answer:\n\n = = = = =     "
    "* * * = =    = =",
    " Answer answer Answer::\n\n\n\n Answer: = =\n\n Answer::\n\n\n Answer::\n\n\n Answer:::\n\n Answer::\n\n: "
    "Answer\n\n\n:::\n\n no",
]
RIGHT = {
    "English": "Rain forms when warm air rises and cools. The water vapour in it condenses on dust into "
    "droplets, which "
    "grow until they are too heavy to stay up, and fall.",
    "German": "Regen entsteht, wenn warme Luft aufsteigt und abkühlt. Der Wasserdampf kondensiert an Staub zu "
    "Tröpfchen, "
    "die wachsen, bis sie zu schwer sind.",
    "French": "La pluie se forme quand l'air chaud monte et se refroidit. La vapeur d'eau se condense sur la "
    "poussière, et "
    "les gouttes tombent quand elles sont trop lourdes.",
    "Finnish": "Sade syntyy, kun lämmin ilma nousee ja jäähtyy. Vesihöyry tiivistyy pölyhiukkasiin pisaroiksi, "
    "jotka kasvavat "
    "kunnes ne ovat liian raskaita pysyäkseen ilmassa ja putoavat lopulta maahan.",
    "Russian": "Дождь образуется, когда тёплый воздух поднимается и охлаждается. Водяной пар конденсируется на "
    "пыли в капли, "
    "которые растут и падают.",
    "Japanese": "雨は、暖かい空気が上昇して冷えるときにできます。水蒸気がちりの周りで水滴になり、"
    "重くなると落ちてきます。これが雨です。雲の中では小さな水滴がぶつかり合い、だんだん大きくなります。",
    "Hungarian": "Az eső akkor keletkezik, amikor a meleg levegő felemelkedik és lehűl. A vízgőz a porszemcséken "
    "cseppekké csapódik le, amelyek addig nőnek, amíg túl nehezek lesznek.",
    "a proof": "Let a = b. Then a^2 = ab, so a^2 - b^2 = ab - b^2, and (a + b)(a - b) = b(a - b). Dividing by a "
    "- b, which is 0, "
    "is not allowed.",
    "an equation": "x^2 - 5x + 6 = 0\n(x - 2)(x - 3) = 0\nx - 2 = 0 or x - 3 = 0\nx = 2 or x = 3",
    "steps": "3 + 4 = 7, 7 + 5 = 12, 12 + 6 = 18, 18 + 7 = 25, so the sum is 25.",
    "LaTeX": "$$\\frac{a+b}{2} \\ge \\sqrt{ab}$$ since $(\\sqrt{a} - \\sqrt{b})^2 \\ge 0$, that is $a + b \\ge "
    "2\\sqrt{ab}$.",
    "code": "def f(n):\n    if n <= 1:\n        return 1\n    return n * f(n - 1)\n\n\nprint(f(5))  # 120",
    "nested brackets": "print(max(min(a, b), min(max(a, b), c)))\nprint(sorted([a, b, c])[1])\nassert f(f(f(x))) == x",
    "a table": "\n".join(f"{i} x {j} = {i * j}" for i in (3, 7) for j in range(1, 11)),
    "a truth table": "| p | q | p and q |\n|---|---|---|\n| T | T | T |\n| T | F | F |\n| F | T | F |\n| F | F | F |",
    "a matrix": "\n".join("[" + ", ".join(str(int(i == j)) for j in range(6)) + "]" for i in range(6)),
    "a matrix of blanks": "\n".join(" ".join(str(int(i == j)) for j in range(6)) for i in range(6)),
    "a count": ", ".join(map(str, range(1, 60))),
    "a list": "- apple\n- banana\n- cherry\n- date\n- fig\n- grape\n- kiwi\n- lemon\n- mango\n- orange\n- "
    "papaya\n- quince",
    "marks": "A: 4\nB: 4\nC: 4\nD: 4\nE: 5\nF: 4\nG: 4\nH: 4",
    "a song": "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but "
    "a dream.",
    "a rule": "Title\n" + "=" * 60 + "\nText below it.",
    "a letter": "B",
    "nothing": "",
}


@pytest.mark.parametrize("text", BROKEN)
def test_the_broken_samples_answers_are(text: str) -> None:
    assert is_word_salad(text)


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_are_not(name: str) -> None:
    assert not is_word_salad(RIGHT[name])
    assert not is_word_salad(f"{RIGHT[name]}\n\n{RIGHT['English']}")


def test_no_passage_of_pythons_own_library_is() -> None:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    blocks = [block for file in files for block in file.read_text("utf-8", "replace").split("\n\n")]
    passages = [block for block in blocks if 200 < len(block) < 2000]
    assert len(passages) > 3000
    assert [passage for passage in passages if is_word_salad(passage)] == []


@pytest.mark.parametrize("few", [2, 4, 6])
def test_few_words_shuffled_are_and_many_are_not(few: int) -> None:
    draw = random.Random(few)
    for _ in range(200):
        assert is_word_salad(" ".join(draw.choice("abcdefgh"[:few]) for _ in range(60)))
        assert not is_word_salad(" ".join(str(draw.randrange(60)) for _ in range(60)))


def test_a_long_text_takes_no_time() -> None:
    began = time.process_time()
    is_word_salad("a = b " * 3_300)
    assert time.process_time() - began < 1
