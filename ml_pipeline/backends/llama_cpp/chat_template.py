"""The chat template: how messages become the one text that the model was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ml_pipeline.backends.base_template import own_template
from ml_pipeline.backends.bounded_template import BoundedTemplate
from ml_pipeline.backends.interface import Message
from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.plain_template import PLAIN_TEMPLATE


class ChatTemplate:
    """The template from the model's own metadata, else `PLAIN_TEMPLATE`; see `BoundedTemplate` for what it raises.

    A template can use what llama-cpp-python gives it: the names of tools are there, and none.
    """

    def __init__(self, model: LoadedModel) -> None:
        template = own_template(model.facts) or PLAIN_TEMPLATE
        self.sha256 = hashlib.sha256(template.encode("utf-8")).hexdigest()
        variables = {
            "eos_token": model.special_text(model.lib.llama_vocab_eos(model.vocabulary)),
            "bos_token": model.special_text(model.lib.llama_vocab_bos(model.vocabulary)),
            "add_generation_prompt": True,
            **dict.fromkeys(("functions", "function_call", "tools", "tool_choice")),
        }
        self._template = BoundedTemplate(template, str(model.path), variables)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt for these messages, ready for the assistant's turn. See `BoundedTemplate.render`."""
        return self._template.render(messages)

    def close(self) -> None:
        """End its process. Safe to call twice."""
        self._template.close()
