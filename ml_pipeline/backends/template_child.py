"""The child's side of `bounded_template`: renders one chat template, as often as it is asked, under hard limits.

The environment is that of transformers' `apply_chat_template` and of llama-cpp-python's formatter, which are the same
for what templates may use: a sandbox, blocks without their line feeds, `tojson` without HTML escapes,
`raise_exception`, `strftime_now`, `{% break %}`, and `{% generation %}` as if it were not there.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _GenerationTags(jinja2.ext.Extension):
    tags = {"generation"}  # noqa: RUF012  jinja2's own hook

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def compiled(template: str) -> jinja2.Template:
    """The template, ready to be rendered; raises jinja2.TemplateError."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTags, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda text: datetime.now().strftime(text)
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _limit_memory(extra_bytes: int) -> None:
    """Bound the address space. macOS has no such bound; there the time bounds what can be taken."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Take the template and the limits in the first line of standard input, and messages in each other one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields).encode() + b"\n")
        answers.flush()

    lines = sys.stdin.buffer
    given = json.loads(lines.readline())
    # A signal that nobody handles ends the process, wherever it is: in jinja2, or in C.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _limit_memory(given["memory_bytes"])
    template: jinja2.Template | None = None
    while line := lines.readline() if template else b"null":
        messages = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, given["cpu_s"])
        try:
            if template is None:
                template, text = compiled(given["template"]), ""
            else:
                text = template.render(messages=messages, **given["variables"])
        except MemoryError:
            answer(limit="memory")
            return
        # A template is a program out of a file: anything may come out of it.
        except Exception as error:
            answer(error=f"{error!s:.2000}" or type(error).__name__)
            if template is None:
                return
            continue
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if len(text) > given["most_characters"]:
            answer(limit="size")
            return
        answer(text=text)


if __name__ == "__main__":
    main()
