"""Labels of any length scored by llama.cpp, in float32, against log-probabilities computed one token after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest

from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline_tests.adapters.tiny_models import VOCAB_SIZE, add_tokenizer, mlx_logits, tiny_gemma3, tiny_llama
from ml_pipeline_tests.backends.tiny_mlx import log_softmax

CONTEXT_TOKENS = 384
TEXTS = ["The sea is", "Ice is cold, and", "x"]
# Bytes are tokens here. A batch holds the logits of 64: these labels take one, two, 64, 65, 66, 130 and 300.
SIZES = (1, 2, 64, 65, 66, 130, 300)
LABELS = ["".join("abcdefgh"[(at * at + size) % 8] for at in range(size)) for size in SIZES]


def tiny_mamba(folder: Path) -> Path:
    """A recurrent model with random weights: it cannot forget a part of what it read."""
    width, inner, state, rank, kernel = 32, 64, 8, 4, 4
    random = np.random.default_rng(3)

    def values(*shape: int, size: float = 0.3) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return random.normal(0, size, shape).astype(np.float32)

    path = folder / "mamba.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    for add, value in (
        (writer.add_block_count, 2),
        (writer.add_context_length, 512),
        (writer.add_embedding_length, width),
        (writer.add_feed_forward_length, 0),
        (writer.add_head_count, 0),
        (writer.add_ssm_conv_kernel, kernel),
        (writer.add_ssm_inner_size, inner),
        (writer.add_ssm_state_size, state),
        (writer.add_ssm_time_step_rank, rank),
        (writer.add_vocab_size, VOCAB_SIZE),
        (writer.add_file_type, gguf.LlamaFileType.ALL_F32),
    ):
        add(value)
    writer.add_layer_norm_rms_eps(1e-5)
    add_tokenizer(writer)
    tensors = {"token_embd.weight": values(VOCAB_SIZE, width, size=1), "output_norm.weight": 1 + values(width)}
    for block in range(2):
        tensors |= {
            f"blk.{block}.{name}": value
            for name, value in {
                "attn_norm.weight": 1 + values(width),
                "ssm_in.weight": values(2 * inner, width),
                "ssm_conv1d.weight": values(inner, kernel),
                "ssm_conv1d.bias": values(inner),
                "ssm_x.weight": values(rank + 2 * state, inner),
                "ssm_dt.weight": values(inner, rank),
                "ssm_dt.bias": values(inner),
                "ssm_a": -np.exp(values(inner, state)),
                "ssm_d": values(inner),
                "ssm_out.weight": values(width, inner),
            }.items()
        }
    for name, values_of in tensors.items():
        writer.add_tensor(name, values_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


Score = Callable[[list[int], int], float]
"""The sum of the log-probabilities of the tokens from a place on."""


def summed(logits: np.ndarray[tuple[int, int], np.dtype[np.float32]], tokens: list[int], start: int) -> float:
    rows = log_softmax(logits)
    return float(sum(rows[at - 1, tokens[at]] for at in range(start, len(tokens))))


@pytest.fixture(scope="module", params=["llama", "gemma3", "mamba"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Score]]:
    """A base model, and what scores its tokens in another way: mlx-lm, or llama.cpp one token after another."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "mamba":
        path = tiny_mamba(folder)
        with closing(
            llama_cpp.Llama(str(path), n_ctx=CONTEXT_TOKENS, n_batch=1, n_threads=1, logits_all=True, verbose=False)
        ) as alone:

            def one_by_one(tokens: list[int], start: int) -> float:
                alone.reset()  # type: ignore[no-untyped-call]
                alone.eval(tokens)
                return summed(alone.scores[: len(tokens)], tokens, start)

            yield path, one_by_one
    else:
        # The window of gemma3 is shorter than the labels.
        made = (tiny_llama if request.param == "llama" else partial(tiny_gemma3, sliding_window=24))(folder)
        fresh = made.fresh()
        yield made.gguf_path, lambda tokens, start: summed(mlx_logits(fresh, tokens), tokens, start)


@pytest.mark.parametrize("sequences", [1, 3])
def test_long_labels_score_as_they_do_token_by_token(model: tuple[Path, Score], sequences: int) -> None:
    path, score = model
    backend = LlamaCppBackend(
        path, "tiny", sequences=sequences, context_tokens=CONTEXT_TOKENS, threads=1, kv_type="f32"
    )
    with closing(backend):

        def tokens(text: str) -> list[int]:
            return [int(token) for token in backend.model.tokenize(text, add_special=True, parse_special=True)]

        assert [len(tokens(TEXTS[0] + label)) - len(tokens(TEXTS[0])) for label in LABELS] == list(SIZES)
        found = backend.classify(TEXTS, LABELS).log_probabilities
        expected = [[score(tokens(text + label), len(tokens(text))) for label in LABELS] for text in TEXTS]
    # A token is worth about 6 here: a sum that lacks one, or has one twice, is far off.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=0.02)
