"""The chat template of a model folder, rendered as `TokenizerWrapper.apply_chat_template` of mlx-lm does it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from ml_pipeline.backends.bounded_template import BoundedTemplate
from ml_pipeline.backends.plain_template import PLAIN_TEMPLATE
from ml_pipeline.errors import BackendError


def bounded_template(tokenizer: Any, where: str) -> BoundedTemplate | None:
    """The folder's own template, else `PLAIN_TEMPLATE`; None where mlx-lm renders with code of its own.

    A template can use what transformers gives it: the special tokens by name, and no tools and documents.

    Raises:
        BackendError: there are several templates and none is the default, or see `BoundedTemplate`.
    """
    inner = getattr(tokenizer, "_tokenizer", tokenizer)
    if not tokenizer.has_chat_template:
        template = PLAIN_TEMPLATE
    elif _renders_itself(tokenizer, inner):
        return None
    else:
        try:
            template = inner.get_chat_template()
        except ValueError as error:
            raise BackendError(f"{where}: its chat template cannot be chosen: {error}") from error
    variables = {
        **inner.special_tokens_map,
        getattr(tokenizer, "_thinking_kwarg", "enable_thinking"): bool(getattr(tokenizer, "has_thinking", False)),
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
    }
    return BoundedTemplate(template, where, variables)


def _renders_itself(tokenizer: Any, inner: Any) -> bool:
    own = type(inner).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
    return own or inner.chat_template is None or getattr(tokenizer, "_chat_template", None) is not None
