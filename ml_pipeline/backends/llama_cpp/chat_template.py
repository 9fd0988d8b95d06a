"""The chat template: how messages become the one text that the model was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ml_pipeline.backends.base_template import own_template
from ml_pipeline.backends.interface import Message
from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.plain_template import PLAIN_TEMPLATE
from ml_pipeline.errors import BackendError


class ChatTemplate:
    """The template from the model's own metadata, rendered in a jinja2 sandbox; else `PLAIN_TEMPLATE`."""

    def __init__(self, model: LoadedModel) -> None:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        template = own_template(model.facts) or PLAIN_TEMPLATE
        self.sha256 = hashlib.sha256(template.encode("utf-8")).hexdigest()
        self._path = model.path
        try:
            self._formatter: Any = Jinja2ChatFormatter(
                template=template,
                eos_token=model.special_text(model.lib.llama_vocab_eos(model.vocabulary)),
                bos_token=model.special_text(model.lib.llama_vocab_bos(model.vocabulary)),
                add_generation_prompt=True,
            )
        except Exception as error:
            raise BackendError(
                f"{model.path}: its chat template is not valid jinja2: {error}. Use a conversion with a sound template."
            ) from error

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt for these messages, ready for the assistant's turn.

        Raises:
            BackendError: the template refuses them, as some do a system message or two user messages in a row.
        """
        plain = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(self._formatter(messages=plain).prompt)
        # A template is a program out of a file: anything may come out of it.
        except Exception as error:
            raise BackendError(f"{self._path}: the chat template refuses these messages: {error}") from error
