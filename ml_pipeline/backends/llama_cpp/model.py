"""One base model in memory with one context: loading, tokens, and the numbers that the other parts ask for."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ml_pipeline.adapters.base_gguf import read_base_facts
from ml_pipeline.backends.kernels import Kernels
from ml_pipeline.backends.llama_cpp.native import forget_log, last_log_lines, load_library
from ml_pipeline.backends.thinking_marks import is_thinking_token
from ml_pipeline.backends.token_prefixes import Tokens
from ml_pipeline.errors import BackendError

KvType = Literal["f16", "f32", "q8_0"]

# enum ggml_type and enum llama_flash_attn_type
_GGML_TYPES: dict[KvType, int] = {"f32": 0, "f16": 1, "q8_0": 8}
_FLASH_ATTENTION_AUTO, _FLASH_ATTENTION_OFF = -1, 0
# enum llama_token_attr: UNKNOWN and CONTROL; and tokens that were added to the vocabulary, control tokens in old files.
CONTROL, USER_DEFINED = 1 | 8, 16
_BATCH_TOKENS = 512
_OUTPUT_ROWS = 64


class LoadedModel:
    """The weights, read once, and a context of `sequences` independent sequences of `context_tokens` tokens each.

    Every sequence has a key-value buffer of its own (llama.cpp's `kv_unified = false`): attention then looks at one
    sequence's tokens only, which measured 17 % faster at 8 sequences than one shared buffer, and no request can take
    another's room. `kernels` should come out of `proven_kernels`, since others may crash. `weights` is a file to read
    the weights from instead, which holds the same model; see `decoded_weights`.

    Raises:
        BackendError: the file is missing or damaged, the context does not fit, or a number makes no sense.
    """

    def __init__(
        self,
        gguf: Path,
        *,
        sequences: int,
        context_tokens: int,
        kernels: Kernels,
        gpu_layers: int = 0,
        kv_type: KvType = "f16",
        weights: Path | None = None,
    ) -> None:
        self.facts = read_base_facts(gguf)
        self.path = gguf
        self.sequences = sequences
        self.context_tokens = context_tokens
        self.kv_type = kv_type
        self.kernels = kernels
        check_numbers(gguf, sequences, context_tokens, kernels.threads, kv_type)
        self.lib = load_library()
        self.batch_tokens = max(_BATCH_TOKENS, sequences)
        self.output_rows = max(_OUTPUT_ROWS, sequences)
        self.pointer = self._load(weights or gguf, gpu_layers)
        try:
            self._check_trained_context()
            self.context = self._make_context()
        except BackendError:
            self.lib.llama_model_free(self.pointer)
            raise
        self.memory = self.lib.llama_get_memory(self.context)
        self.vocabulary = self.lib.llama_model_get_vocab(self.pointer)
        self.vocabulary_size = int(self.lib.llama_vocab_n_tokens(self.vocabulary))
        self._pieces: dict[int, bytes] = {}
        self._closed = False

    def _load(self, weights: Path, gpu_layers: int) -> Any:
        params = self.lib.llama_model_default_params()
        # llama.cpp takes a negative number for "all layers".
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = self.kernels.extra_buffers
        forget_log()
        pointer = self.lib.llama_model_load_from_file(os.fsencode(weights), params)
        if not pointer:
            raise BackendError(
                f"{weights}: llama.cpp cannot load this base model: {last_log_lines()}. "
                "Fetch the file again, or update llama-cpp-python if the architecture is newer than it."
            )
        return pointer

    def _check_trained_context(self) -> None:
        trained = int(self.lib.llama_model_n_ctx_train(self.pointer))
        if 0 < trained < self.context_tokens:
            raise BackendError(
                f"{self.path}: context_tokens is {self.context_tokens}, but the model was trained for {trained}. "
                f"Set context_tokens to {trained} or less."
            )

    def _make_context(self) -> Any:
        params = self.lib.llama_context_default_params()
        params.n_ctx = self.context_tokens * self.sequences
        params.n_seq_max = self.sequences
        params.n_batch = params.n_ubatch = self.batch_tokens
        params.n_outputs_max = self.output_rows
        params.n_threads = params.n_threads_batch = self.kernels.threads
        params.type_k = params.type_v = _GGML_TYPES[self.kv_type]
        # The CPU's flash attention rounds an f32 cache to f16 all the same (measured: equal logits).
        flash_attention = self.kernels.flash_attention and self.kv_type != "f32"
        params.flash_attn_type = _FLASH_ATTENTION_AUTO if flash_attention else _FLASH_ATTENTION_OFF
        params.kv_unified = False
        # Prefixes are shared by cutting sequences back, which needs the keys that a sliding window would drop.
        params.swa_full = True
        params.no_perf = True
        forget_log()
        context = self.lib.llama_init_from_model(self.pointer, params)
        if not context:
            raise BackendError(
                f"{self.path}: no context of {self.sequences} sequences of {self.context_tokens} tokens can be made: "
                f"{last_log_lines()}. Lower sequences or context_tokens."
            )
        return context

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> Tokens:
        """Turn text into token ids.

        With `parse_special`, the text of a control token (`<|im_end|>`) becomes that token; with `add_special`, a
        beginning-of-sequence token is put in front where the model wants one and the text does not begin with it.
        """
        raw = text.encode("utf-8")
        # Most texts have fewer tokens than bytes; for one that does not, llama.cpp says how many, as a negative number.
        count = -len(raw) - 8
        for _ in range(2):
            room = -count
            buffer = (ctypes.c_int32 * room)()
            count = self.lib.llama_tokenize(self.vocabulary, raw, len(raw), buffer, room, False, parse_special)
            if count >= 0:
                break
        else:
            raise BackendError(f"{self.path}: llama.cpp cannot tokenise a text of {len(raw)} bytes.")
        tokens: Tokens = np.ctypeslib.as_array(buffer)[:count].astype(np.int32)
        beginning = self.lib.llama_vocab_bos(self.vocabulary)
        if add_special and self.lib.llama_vocab_get_add_bos(self.vocabulary) and tokens[:1].tolist() != [beginning]:
            return np.concatenate((np.array([beginning], dtype=np.int32), tokens))
        return tokens

    def tokens_of_kind(self, kinds: int) -> dict[int, str]:
        """The tokens of the vocabulary with one of these attributes (`CONTROL`, `USER_DEFINED`), and their texts."""
        attributes = self.lib.llama_vocab_get_attr
        found = [token for token in range(self.vocabulary_size) if attributes(self.vocabulary, token) & kinds]
        return {token: self.special_text(token) for token in found}

    def piece(self, token: int) -> bytes:
        """Return the bytes a token stands for: part of a character at times, nothing for a control token, unless it
        is a mark of thinking."""
        piece = self._pieces.get(token)
        if piece is None:
            buffer = ctypes.create_string_buffer(256)
            shown = is_thinking_token(self.special_text(token))
            length = self.lib.llama_token_to_piece(self.vocabulary, token, buffer, 256, 0, shown)
            piece = self._pieces[token] = buffer.raw[: max(0, length)]
        return piece

    def ends_answer(self, token: int) -> bool:
        """Whether this token ends an answer: end of sequence, end of turn, or another that the model marks so."""
        return bool(self.lib.llama_vocab_is_eog(self.vocabulary, token))

    def special_text(self, token: int) -> str:
        """Return the text of a special token for the chat template, "" for one that the model does not have."""
        return (
            "" if token < 0 else str(self.lib.llama_vocab_get_text(self.vocabulary, token).decode("utf-8", "replace"))
        )

    def logits(self, rows: int) -> npt.NDArray[np.float32]:
        """View the last batch's logits, (rows, vocabulary), one row for each token that asked, in batch order.

        The memory is llama.cpp's and is overwritten by the next decode: copy what is to last.
        """
        pointer = self.lib.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, shape=(rows, self.vocabulary_size))

    def close(self) -> None:
        """Free the context and the weights. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self.lib.llama_free(self.context)
            self.lib.llama_model_free(self.pointer)


def check_numbers(gguf: Path, sequences: int, context_tokens: int, threads: int, kv_type: str) -> None:
    """Raise BackendError, with every problem in it, unless these numbers make sense."""
    problems = []
    if not 1 <= sequences <= 256:
        problems.append(f"sequences is {sequences}; choose 1 to 256")
    if context_tokens < 32:
        problems.append(f"context_tokens is {context_tokens}; choose at least 32")
    if threads < 1:
        problems.append(f"threads is {threads}; choose at least 1, or none for all cores")
    if kv_type not in _GGML_TYPES:
        problems.append(f"kv_type is {kv_type!r}; choose one of {', '.join(_GGML_TYPES)}")
    if problems:
        raise BackendError.from_problems(f"llama.cpp backend for {gguf}", problems, "Change them in pipeline.yaml.")
