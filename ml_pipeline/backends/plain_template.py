"""The chat template of base models that have none: a single user message stands alone, a longer chat gets names."""

from __future__ import annotations

PLAIN_TEMPLATE = (
    "{% if messages|length == 1 and messages[0]['role'] == 'user' %}{{ messages[0]['content'] }}{% else %}"
    "{% for message in messages %}{{ message['role']|capitalize }}: {{ message['content'] }}\n\n{% endfor %}"
    "Assistant:{% endif %}"
)
