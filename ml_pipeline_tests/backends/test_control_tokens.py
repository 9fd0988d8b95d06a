"""What a message spells is text to the model, whatever the vocabulary: on every architecture that is converted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.adapters.gguf_header import read_token_kinds
from ml_pipeline.backends.completion_cache import CachedBackend, CompletionCache
from ml_pipeline.backends.control_tokens import (
    KNOWN_SHAPES,
    ControlTokens,
    RenderedPrompt,
    render_apart,
    spaced_messages,
    tokens_apart,
)
from ml_pipeline.backends.interface import CompletionRequest, GenerationOptions, Message
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.adapters import tiny_architectures
from ml_pipeline_tests.adapters.tiny_architectures import ARCHITECTURES, tiny
from ml_pipeline_tests.adapters.tiny_models import VOCAB_SIZE

CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n"
)
COHERE = (
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>{{ '<|CHATBOT_TOKEN|>' if m['role'] == 'assistant' else "
    "'<|USER_TOKEN|>' }}{{ m['content'] }}<|END_OF_TURN_TOKEN|>{% endfor %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
)
ROLES = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endfor %}<|assistant|>\n"
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}"
    "{% else %}[INST]{{ m['content'] }}[/INST]{% endif %}{% endfor %}"
)
EXAONE = "{% for m in messages %}[|{{ m['role'] }}|]{{ m['content'] }}[|endofturn|]\n{% endfor %}[|assistant|]"
SEED = "{% for m in messages %}<seed:bos>{{ m['role'] }}\n{{ m['content'] }}<seed:eos>{% endfor %}<seed:bos>assistant\n"
PLAIN = None

# Of each architecture: the kind of its vocabulary, its own control tokens as its makers wrote them, and its template.
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_pad|>"]
STARCODER = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<file_sep>", "<jupyter_code>", "<reponame>"]
PHI3 = ["<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
GRANITE = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"]
GLM = [
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
]
COHERES = ["<BOS_TOKEN>", "<EOP_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"]
COHERES += ["<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|START_THINKING|>", "<|END_THINKING|>"]
EXAONES = ["[BOS]", "[|endofturn|]", "[|system|]", "[|user|]", "[|assistant|]", "<|endoftext|>"]
VOCABULARIES: dict[str, tuple[str, list[str], str | None]] = {
    "mistral": ("llama", ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]"], MISTRAL),
    "mixtral": ("llama", [], MISTRAL),
    "gemma": ("llama", ["<start_of_turn>", "<end_of_turn>", "<unused7>"], GEMMA),
    "gemma2": ("llama", ["<start_of_turn>", "<end_of_turn>", "[@BOS@]"], GEMMA),
    "gemma3": ("llama", ["<start_of_turn>", "<end_of_turn>", "<start_of_image>"], GEMMA),
    "minicpm": ("llama", ["<|im_start|>", "<|im_end|>", "<|tool_call|>"], CHATML),
    "phi3": ("llama", PHI3[1:], ROLES),
    "qwen2": ("gpt2", QWEN, CHATML),
    "qwen3": ("gpt2", QWEN, CHATML),
    "qwen2moe": ("gpt2", QWEN, CHATML),
    "qwen3moe": ("gpt2", QWEN, CHATML),
    "granite": ("gpt2", GRANITE, PLAIN),
    "granitemoe": ("gpt2", GRANITE, PLAIN),
    "smollm3": ("gpt2", ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"], CHATML),
    "olmo2": ("gpt2", ["<|endoftext|>", "<|endofprompt|>", "<|user|>", "<|assistant|>"], ROLES),
    "olmoe": ("gpt2", ["<|endoftext|>", "|||IP_ADDRESS|||", "<|padding|>"], ROLES),
    "starcoder2": ("gpt2", STARCODER, PLAIN),
    "stablelm": ("gpt2", ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>"], CHATML),
    "phi2": ("gpt2", ["<|endoftext|>"], PLAIN),
    "cohere": ("gpt2", COHERES, COHERE),
    "cohere2": ("gpt2", COHERES, COHERE),
    "glm": ("gpt2", GLM, ROLES),
    "glm4": ("gpt2", GLM, ROLES),
    "ernie4_5": ("llama", ["<mask:1>", "<|begin_of_sentence|>", "<|end_of_sentence|>", "<mask:4>"], PLAIN),
    "hunyuan": ("gpt2", ["<|startoftext|>", "<|extra_0|>", "<|extra_4|>", "<|eos|>"], PLAIN),
    "seed_oss": (
        "gpt2",
        ["<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>", "<seed:cot_budget_reflect>"],
        SEED,
    ),
    "exaone": ("gpt2", EXAONES, EXAONE),
    "exaone4": ("gpt2", EXAONES, EXAONE),
    "mistral3": ("gpt2", ["<s>", "</s>", "[INST]", "[/INST]", "[THINK]", "[/THINK]", "<SPECIAL_20>"], MISTRAL),
}
COMMON = ["<unk>", "<s>", "</s>"]
# Tags that files give as tokens of the user's: text, and no control tokens.
ADDED = ["<think>", "<table>", "\n\n"]


def byte_letters() -> list[str]:
    """GPT-2's letter for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + others.index(byte)) for byte in range(256)]


def write_vocabulary(name: str) -> Callable[[gguf.GGUFWriter], None]:
    kind, own, template = VOCABULARIES[name]

    def write(writer: gguf.GGUFWriter) -> None:
        special = [*COMMON, *(token for token in own if token not in COMMON)]
        letters = [f"<0x{byte:02X}>" for byte in range(256)] if kind == "llama" else byte_letters()
        tokens = [*special, *letters, *ADDED]
        # Pieces out of which a careless merge could make a control token again.
        tokens += ["\u2581", "</", "s>", "<s"] if kind == "llama" else ["</", "s>"]
        tokens += [f"word{number}" for number in range(VOCAB_SIZE - len(tokens))]
        kinds = {"<unk>": 2, **dict.fromkeys(special[1:], 3), **dict.fromkeys(ADDED, 4)}
        kinds |= dict.fromkeys(letters, 6) if kind == "llama" else {}
        writer.add_tokenizer_model(kind)
        writer.add_token_list(tokens)
        writer.add_token_types([kinds.get(token, 1) for token in tokens])
        if kind == "llama":
            writer.add_token_scores([0.0 if token in kinds else -1.0 for token in tokens])
            writer.add_add_space_prefix(not name.startswith("gemma"))
        else:
            writer.add_tokenizer_pre("qwen2")
            writer.add_token_merges(["< /", "s >"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        if template is not None:
            writer.add_chat_template(template)

    return write


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_architectures, "add_tokenizer", write_vocabulary(request.param))
        path = tiny(request.param, folder).gguf_path
    made = LlamaCppBackend(path, request.param, sequences=1, context_tokens=512, threads=1)
    made.kind, made.own = VOCABULARIES[request.param][:2]  # type: ignore[attr-defined]
    yield made
    made.close()


def parsed(backend: LlamaCppBackend, text: str) -> list[int]:
    return backend.model.tokenize(text, add_special=True, parse_special=True).tolist()  # type: ignore[no-any-return]


def said(backend: LlamaCppBackend, tokens: Sequence[int]) -> str:
    """The text of all tokens, control tokens included."""
    control = backend.model.tokens_of_kind(1 | 8)
    return b"".join(
        control[token].encode() if token in control else backend.model.piece(token) for token in tokens
    ).decode()


def test_no_message_spells_a_control_token(model: LlamaCppBackend) -> None:
    control = model.model.tokens_of_kind(1 | 8)
    own = {*COMMON, *model.own}  # type: ignore[attr-defined]
    assert own <= set(control.values())
    for text in sorted(own):
        harmless, attack = (
            tuple(Message("user", f"Say {word} and {word}{word}") for word in words) for words in (["x"], [text])
        )
        wanted = [token for token in model.tokens(model.render(harmless)) if token in control]
        prompt = model.render(attack)
        tokens = model.tokens(prompt).tolist()
        assert [token for token in tokens if token in control] == wanted, text
        # The text stays as it is, a space aside where the vocabulary begins each piece with one.
        assert prompt == model.render(harmless).replace("x", text)
        rendered = said(model, tokens).removeprefix("<s>" * (not prompt.startswith("<s>")))
        if model.kind == "gpt2":  # type: ignore[attr-defined]
            assert rendered == prompt
        else:
            assert rendered.replace(" ", "") == prompt.replace(" ", "")
    everything = "".join(sorted(own)) * 2
    tokens = model.tokens(model.render((Message("user", everything),))).tolist()
    assert [token for token in tokens if token in control] == wanted


def test_ordinary_prompts_have_the_tokens_they_had(model: LlamaCppBackend) -> None:
    chats = [
        (Message("user", "What is 17 + 25?"),),
        (Message("user", "a < b | c > d [INST ] <table>\n\n<think>7</think> é日🙂"), Message("assistant", "7")),
        (Message("user", ""),),
    ]
    for chat in chats:
        prompt = model.render(chat)
        assert not prompt.breaks
        assert model.tokens(prompt).tolist() == parsed(model, prompt)


def test_every_architecture_that_is_converted_has_its_vocabulary_here() -> None:
    assert set(VOCABULARIES) == set(ARCHITECTURES)


def test_the_vocabulary_of_a_file_is_llama_cpps(model: LlamaCppBackend) -> None:
    kinds = read_token_kinds(model.model.path, frozenset({2, 3, 4}))
    control = model.model.tokens_of_kind(1 | 8)
    assert {**kinds[2], **kinds[3]}.items() <= control.items()
    assert set(kinds[4].values()) == set(ADDED)
    assert set(control.values()) - {*kinds[2].values(), *kinds[3].values()} <= set(ADDED)
