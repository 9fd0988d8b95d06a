"""A tiny MLX model as a folder that mlx_lm loads, with a tokenizer and a chat template, and adapters for it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.utils import quantize_model

from ml_pipeline.backends.interface import Message
from ml_pipeline_tests.adapters.tiny_models import (
    VOCAB_SIZE,
    FloatArray,
    TinyModel,
    flattened,
    mlx_logits,
    save_adapter,
    tiny_llama,
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_model(folder: Path, make: Callable[[Path], TinyModel] = tiny_llama, *, bits: int | None = None) -> TinyModel:
    """Write the folder; its random weights are float32, so that rounding decides nothing, or have so many bits."""
    base = make(folder)
    weights = dict(base.weights)
    config = {name: value for name, value in dataclasses.asdict(base.args).items() if value is not None}
    config |= {"max_position_embeddings": 4096, "eos_token_id": 2, "bos_token_id": 1, "torch_dtype": "float32"}
    if bits is not None:
        model, config = quantize_model(base.fresh(), config, group_size=64, bits=bits)
        weights = flattened(model.parameters())
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)
    return base


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<unk>", "<s>", "</s>", *characters]
    tokens += [f"word{number}" for number in range(VOCAB_SIZE - len(tokens))]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_checkpoint(base: TinyModel, folder: Path, iteration: int, **options: Any) -> Path:
    """A run folder's numbered checkpoint beside its configuration; returns the path of the weights."""
    saved = save_adapter(base, folder, **options)
    return saved.weights.rename(folder / f"{iteration:07d}_adapters.safetensors")


def as_mlx_wants(checkpoint: Path, folder: Path) -> Path:
    """A copy under the names that mlx_lm.load expects."""
    folder.mkdir(parents=True)
    shutil.copy(checkpoint, folder / "adapters.safetensors")
    shutil.copy(checkpoint.with_name("adapter_config.json"), folder / "adapter_config.json")
    return folder


class Reference:
    """mlx_lm itself, in this process, with the same files."""

    def __init__(self, model: Path, adapter: Path | None = None) -> None:
        import mlx_lm

        loaded: Any = mlx_lm.load(str(model), adapter_path=str(adapter) if adapter else None)
        self.model, self.tokenizer = loaded

    def prompt(self, messages: tuple[Message, ...]) -> list[int]:
        """The tokens after the chat template."""
        chat = [{"role": message.role, "content": message.content} for message in messages]
        tokens: list[int] = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True)
        return tokens

    def steps(self, messages: tuple[Message, ...], max_tokens: int) -> list[Any]:
        """What mlx_lm.stream_generate yields."""
        import mlx_lm

        return list(mlx_lm.stream_generate(self.model, self.tokenizer, self.prompt(messages), max_tokens=max_tokens))

    def reply(self, messages: tuple[Message, ...], max_tokens: int) -> tuple[str, int, str]:
        """Text, tokens and why it ended. Bytes of a character that never became whole are left out."""
        steps = self.steps(messages, max_tokens)
        last, text = steps[-1], "".join(step.text for step in steps)
        # The server drops them when a token says stop, and keeps them at the longest answer.
        text = text.rstrip("\ufffd") if last.finish_reason == "stop" else text
        return text, last.generation_tokens, str(last.finish_reason)

    def answer(self, messages: tuple[Message, ...], max_tokens: int) -> str:
        """The text of `reply`."""
        return self.reply(messages, max_tokens)[0]

    def log_probabilities(self, tokens: list[int]) -> np.ndarray[Any, Any]:
        """After the last of these tokens, over the vocabulary."""
        return np.asarray(log_softmax(mlx_logits(self.model, tokens))[-1])


def log_softmax(logits: FloatArray) -> np.ndarray[Any, Any]:
    """Logits (length, vocabulary) to log-probabilities, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def server_processes(model: Path) -> list[int]:
    """The ids of the servers that run this model."""
    done = subprocess.run(["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    lines = [line.split(None, 1) for line in done.stdout.splitlines() if f"--model {model.resolve()}" in line]
    return [int(number) for number, _ in lines if number.isdigit() and int(number) != os.getpid()]


def gone_within(model: Path, timeout_s: float) -> bool:
    """Wait until no server runs this model."""
    give_up_at = time.monotonic() + timeout_s
    while server_processes(model):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.1)
    return True
