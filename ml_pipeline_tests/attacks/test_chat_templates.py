"""Chat templates out of hostile model files: each ends soon, takes no memory of this process, and is not run again."""

from __future__ import annotations

import time

import pytest

from ml_pipeline.backends.bounded_template import BoundedTemplate
from ml_pipeline.backends.interface import Message
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.attacks.bounded import run_bounded
from ml_pipeline_tests.attacks.conftest import Held

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DEEP = "".join(f"{{% for a{n} in range(99999) %}}" for n in range(15)) + "x" + "{% endfor %}" * 15
MEMORY, TIME, SIZE = "MB of memory", "processor time", "characters"
ATTACKS = {
    "loops in loops": (LOOP, TIME),
    "fifteen loops, all of whose texts are kept": (DEEP, f"{TIME}|{MEMORY}"),
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        TIME,
    ),
    "a recursive loop": ("{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}", "recursion"),
    "lorem ipsum": ("{{ lipsum(n=10**9) }}", f"{TIME}|{MEMORY}"),
    "a text times a number": ("{{ 'a' * 10**9 }}", MEMORY),
    "a list times a number": ("{{ ([1] * 10**9) | length }}", MEMORY),
    "a power": ("{{ (10 ** (10 ** 8)) % 7 }}", TIME),
    "doubled again and again": (
        "{% set ns = namespace(t='ab') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
        MEMORY,
    ),
    "a long text": ("{{ 'a' * 10**7 }}", SIZE),
    "center": ("{{ 'a' | center(10**9) }}", MEMORY),
    "indent": ("{{ ('a\n' * 10000) | indent(10**6) }}", MEMORY),
    "format": ("{{ '%1000000000d' | format(1) }}", MEMORY),
    "str.format": ("{{ '{:>1000000000}'.format('a') }}", MEMORY),
    "replace": ("{{ ('a' * 10**5) | replace('a', 'b' * 10**5) }}", MEMORY),
    "join": ("{{ (['a'] * 10**5) | join('b' * 10**5) }}", MEMORY),
    "batch": ("{{ [1] | batch(10**9, 0) | list | length }}", f"{MEMORY}|{TIME}"),
    "slice": ("{{ [1] | slice(10**9) | list | length }}", f"{MEMORY}|{TIME}"),
    "tojson": ("{{ [[[[1]]]] | tojson(indent=10**9) }}", MEMORY),
    "to_bytes": ("{{ (1).to_bytes(10**9, 'big') | length }}", MEMORY),
    "expandtabs": ("{{ '\t'.expandtabs(10**9) | length }}", MEMORY),
    "range": ("{{ range(10**9) | list | length }}", "Range too big"),
    "only what the trial has not": ("{% if messages[0].content != 'Hi' %}" + LOOP + "{% endif %}ok", TIME),
    "deep brackets": ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", "not valid jinja2|recursion"),
    "many loops to compile": (
        "{% for a in [1] %}" * 300 + "x" + "{% endfor %}" * 300,
        "not valid jinja2|refuses|ended",
    ),
    "out of the sandbox": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses"),
}


def render(template: str) -> list[object]:
    """What is said, and the seconds of a second rendering."""
    message, again_s, bounded = "", 0.0, None
    try:
        bounded = BoundedTemplate(template, "hostile.gguf", {"tools": None})
        bounded.render([Message("user", "Hello")])
    except BackendError as error:
        message = str(error)
    if bounded is not None:
        began = time.monotonic()
        try:
            bounded.render([Message("user", "Hello")])
        except BackendError:
            again_s = time.monotonic() - began
        bounded.close()
    return [message, again_s]


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_template_is_ended(name: str, held: Held) -> None:
    template, why = ATTACKS[name]
    outcome = run_bounded(render, template, memory_mb=1024, cpu_s=20)
    assert outcome.error is None
    message, again_s = outcome.value
    assert any(word in message for word in why.split("|")), message
    assert message.startswith("hostile.gguf: ")
    if "where a sound one takes milliseconds" in message:
        assert again_s < 0.1, "it is not tried again"
    held(outcome, attack=f"chat template: {name}", by="a child with limits on time and memory", seconds=15, grown_mb=50)
    assert outcome.peak_mb < 700


def test_a_loop_without_end_is_ended(held: Held) -> None:
    outcome = run_bounded(render, LOOP, memory_mb=1024, cpu_s=20)
    assert "processor time" in outcome.value[0]
    held(
        outcome, attack="chat template: a loop without end", by="a child with a limit on time", seconds=15, grown_mb=50
    )
