"""Templates render in a child as llama-cpp-python and transformers render them, which know nothing of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llama_cpp import llama_chat_format

from ml_pipeline.backends.bounded_template import BoundedTemplate
from ml_pipeline.backends.interface import Message
from ml_pipeline.backends.plain_template import PLAIN_TEMPLATE
from ml_pipeline.errors import BackendError

LLAMA_CPP = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "add_generation_prompt": True,
    **dict.fromkeys(("functions", "function_call", "tools", "tool_choice")),
}
TRANSFORMERS: dict[str, Any] = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "add_generation_prompt": True,
    "enable_thinking": True,
    "tools": None,
    "documents": None,
}
# What the templates of today's families are made of: system text put into the first turn (Gemma), thinking taken out of
# earlier turns (Qwen), tools and dates in the system turn (Llama), macros, and marks of what the assistant says.
SYSTEM_IN_TURN = """
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('the roles must alternate') }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start>' + role + '\n' + (prefix if loop.first else '') }}
    {%- if message['content'] is iterable and message['content'] is not string -%}
        {%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}
    {%- else -%}
        {{ message['content'] | trim }}
    {%- endif -%}
    {{ '<end>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start>model\n' }}{%- endif -%}
"""
THINKING_TAKEN_OUT = """
{%- if tools %}
    {{- '<|im_start|>system\n# Tools\n' }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not (message.content.startswith('<r>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- set reasoning = '' %}
    {%- if message.role == "assistant" and '</think>' in content %}
        {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {%- if message.role == "assistant" and loop.index0 > ns.last and reasoning %}
        {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + content }}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}
"""
MACROS_AND_DATES = """
{%- macro turn(message, extra='') -%}
<|{{ message.role | upper }}|>{{ message['content'] | replace('  ', ' ') }}{{ extra }}
{%- endmacro -%}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- set year = strftime_now("%Y") if strftime_now is defined else '2024' -%}
{{ bos_token }}{{ 'Cutting' ~ ' ' ~ (year | length) }}
{% for message in messages %}
{% if message.role == 'system' and not loop.first %}{% continue %}{% endif %}
{{ turn(message, '#%02d' | format(loop.index)) }}{{ loop.cycle(' odd', ' even') }}
{% if loop.nextitem is defined and loop.nextitem.role == message.role %}{{ ' same' }}{% endif %}
{% generation %}{{ {'role': message.role, 'n': [1, 2.5, none, true]} | tojson(indent=2) }}{% endgeneration %}
{% if loop.index > 6 %}{% break %}{% endif %}
{% endfor %}
{{ messages | map(attribute='role') | join(',') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ (messages | last).content.split() | join('_') }} {{ dict(a=1) | dictsort }}
{{ range(3) | list }} {{ "<&>" | tojson }}
"""
TEMPLATES = {
    "chatml": llama_chat_format.CHATML_CHAT_TEMPLATE,
    "llama 3": llama_chat_format.LLAMA3_INSTRUCT_CHAT_TEMPLATE,
    "mistral": llama_chat_format.MISTRAL_INSTRUCT_CHAT_TEMPLATE,
    "mixtral": llama_chat_format.MIXTRAL_INSTRUCT_CHAT_TEMPLATE,
    "plain": PLAIN_TEMPLATE,
    "system in turn": SYSTEM_IN_TURN,
    "thinking taken out": THINKING_TAKEN_OUT,
    "macros and dates": MACROS_AND_DATES,
}
CHATS = [
    [("user", "Hi")],
    [("system", " Be brief. "), ("user", "What is 2 + 2?\n")],
    [("user", "a"), ("assistant", "<think>\nsecret\n</think>\n\nb"), ("user", "c")],
    [("system", "s"), ("user", "ünï 'q' \"r\" <|im_end|> \ud800 \U0001f600"), ("assistant", "b"), ("user", "d")],
    [("user", "a"), ("user", "twice")],
]
REFUSED = "refused"


@contextmanager
def rendering(template: str, variables: dict[str, Any]) -> Iterator[BoundedTemplate]:
    bounded = BoundedTemplate(template, "model.gguf", variables)
    try:
        yield bounded
    finally:
        bounded.close()


def rendered(template: BoundedTemplate, chat: list[tuple[str, str]]) -> str:
    try:
        return template.render([Message(role, content) for role, content in chat])  # type: ignore[arg-type]
    except BackendError:
        return REFUSED


def by_llama_cpp(template: str, chat: list[tuple[str, str]]) -> str:
    formatter: Any = llama_chat_format.Jinja2ChatFormatter(template=template, eos_token="</s>", bos_token="<s>")
    try:
        return str(formatter(messages=[{"role": role, "content": content} for role, content in chat]).prompt)
    except Exception:
        return REFUSED


def by_transformers(template: str, chat: list[tuple[str, str]]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": role, "content": content} for role, content in chat]
    try:
        found: Any = render_jinja_template([messages], chat_template=template, **TRANSFORMERS)
        return str(found[0][0])
    except Exception:
        return REFUSED


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_gives_what_llama_cpp_python_and_transformers_give(name: str) -> None:
    template = TEMPLATES[name]
    with rendering(template, LLAMA_CPP) as one, rendering(template, TRANSFORMERS) as other:
        found = [(rendered(one, chat), rendered(other, chat)) for chat in CHATS]
    assert found == [(by_llama_cpp(template, chat), by_transformers(template, chat)) for chat in CHATS]
    assert REFUSED not in found[0]


def test_what_a_template_refuses_is_said_in_its_words() -> None:
    with rendering(TEMPLATES["mistral"], LLAMA_CPP) as template:
        with pytest.raises(BackendError, match=r"model\.gguf: the chat template refuses these .* roles must alternate"):
            template.render([Message("user", "a"), Message("user", "b")])
        assert template.render([Message("user", "a")]) == "<s>[INST] a [/INST]"


def test_a_template_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(BackendError, match=r"model\.gguf: its chat template is not valid jinja2: .*Use a conversion"):
        BoundedTemplate("{% if %}", "model.gguf", {})


def test_a_child_that_was_killed_is_started_again() -> None:
    with rendering("{{ messages[0].content }}", {}) as template:
        assert template._child is not None
        os.kill(template._child.pid, signal.SIGKILL)
        template._child.wait()
        with pytest.raises(BackendError, match=r"the process that renders its chat template was ended by SIGKILL"):
            template.render([Message("user", "a")])
        assert template.render([Message("user", "b")]) == "b"
        template.close()
        assert template.render([Message("user", "c")]) == "c"
