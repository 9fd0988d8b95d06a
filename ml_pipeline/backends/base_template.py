"""The chat template that a base model brings with it."""

from __future__ import annotations

from ml_pipeline.adapters.base_gguf import BaseModelFacts

_TEMPLATE_KEY = "tokenizer.chat_template"


def own_template(facts: BaseModelFacts) -> str | None:
    """The jinja2 template in the model's own metadata; None for a model without one."""
    return str(facts.metadata.get(_TEMPLATE_KEY) or "") or None
