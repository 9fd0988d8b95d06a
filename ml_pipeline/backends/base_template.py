"""The chat template of a base model, and what stands in for it."""

from __future__ import annotations

from ml_pipeline.adapters.base_gguf import BaseModelFacts

_TEMPLATE_KEY = "tokenizer.chat_template"

# For base models without a template, as a template: a single user message stands alone, a longer chat gets names.
PLAIN_TEMPLATE = (
    "{% if messages|length == 1 and messages[0]['role'] == 'user' %}{{ messages[0]['content'] }}{% else %}"
    "{% for message in messages %}{{ message['role']|capitalize }}: {{ message['content'] }}\n\n{% endfor %}"
    "Assistant:{% endif %}"
)


def own_template(facts: BaseModelFacts) -> str | None:
    """The jinja2 template in the model's own metadata; None for a model without one."""
    return str(facts.metadata.get(_TEMPLATE_KEY) or "") or None
