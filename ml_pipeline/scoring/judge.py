"""Asking a model to judge an answer by a rubric: the request that is sent."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import ml_pipeline.suites
from ml_pipeline.backends.interface import Completion, CompletionRequest, GenerationOptions, Message
from ml_pipeline.scoring.checks import expected_answer
from ml_pipeline.scoring.judgement import AVERAGE, FORM_EXPLANATION, JudgeReading
from ml_pipeline.scoring.results import unfinished_reason
from ml_pipeline.scoring.thinking import remove_thinking
from ml_pipeline.suites.suite import Dimension, Probe, Rubric
from ml_pipeline.yaml_file import read_yaml

JUDGE_OPTIONS = GenerationOptions(temperature=0.0, max_tokens=200)
MAX_ANSWER_CHARS = 6000
MAX_EXPLANATION_CHARS = 120
_MAX_REPLY_CHARS = 600

# 64 bits: to find an answer that holds its own code takes as many tries.
_CODE_LENGTH = 16
_NO_HEX_DIGIT = re.compile(r"[^0-9a-f]")
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def judge_request(
    rubric: Rubric,
    probe: Probe,
    answer: str,
    *,
    request_id: str,
    options: GenerationOptions = JUDGE_OPTIONS,
    max_answer_chars: int = MAX_ANSWER_CHARS,
    explain: bool = True,
) -> CompletionRequest:
    """Build the request that has `answer` judged, as one message of the user's, for not every chat template knows a
    system's.

    All that depends on the rubric alone comes first and is the same in every request, so that a backend reads it
    once. The answer comes last, between two lines with a code that it cannot hold: see `answer_fence`. It stands there
    as it is; backends see to it that no message's text becomes a control token. A long answer loses its middle. The
    schema asks for whole numbers where the rubric's range is whole, as an enumeration, since converters of schemas to
    grammars pass over minimum and maximum.
    """
    wording, schema = _wording(), judge_schema(rubric, explain=explain)
    parts = [
        wording["instructions"].format(
            rubric=rubric.instructions,
            dimensions="\n".join(
                f"- {d.name} ({d.minimum:g} to {d.maximum:g}): {d.description}" for d in rubric.dimensions
            ),
            form=_form(schema),
        ),
        wording["material"].format(question=_clean(probe.prompt)),
    ]
    if probe.check is not None:
        parts.append(wording["expected"].format(expected=expected_answer(probe.check)))
    if probe.ground_truth:
        parts.append(wording["facts"].format(facts=_clean(probe.ground_truth)))
    if probe.propaganda_markers:
        parts.append(wording["propaganda"].format(markers="; ".join(probe.propaganda_markers)))
    if probe.truth_markers:
        parts.append(wording["truth"].format(markers="; ".join(probe.truth_markers)))
    fence = answer_fence(rubric, probe, answer)
    parts.append(wording["answer"].format(fence=fence, answer=_shortened(answer, max_answer_chars)))
    message = Message("user", "\n".join(parts).rstrip())
    return CompletionRequest(request_id, (message,), options, schema)


def answer_fence(rubric: Rubric, probe: Probe, answer: str) -> str:
    """The line before and after an answer in the judge's prompt.

    Its code is a hash of the answer itself and of all that it is judged by: the same request has the same code
    everywhere, so that the completion cache knows it, and yet whoever writes the answer cannot write the code into it,
    for each change of the answer changes the code. That it is not there, in whatever spelling, is checked.
    """
    told = [rubric.sha256, probe.prompt, probe.ground_truth, answer]
    written = unicodedata.normalize("NFKC", f"{probe.prompt}\n{probe.ground_truth}\n{answer}").lower()
    spelled = _NO_HEX_DIGIT.sub("", written)
    for number in itertools.count():
        code = hashlib.sha256(json.dumps([number, *told]).encode()).hexdigest()[:_CODE_LENGTH]
        if code not in spelled:
            break
    return f"===== ANSWER {code} ====="


def judge_schema(rubric: Rubric, *, explain: bool = True) -> dict[str, Any]:
    """JSON schema of a judgement: every dimension first, then, with `explain`, one short explanation."""
    properties: dict[str, Any] = {dimension.name: _range_schema(dimension) for dimension in rubric.dimensions}
    if explain:
        properties["explanation"] = {"type": "string", "maxLength": MAX_EXPLANATION_CHARS}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def reask_request(
    request: CompletionRequest, completion: Completion, reading: JudgeReading, number: int = 2
) -> CompletionRequest | None:
    """Another try for a judgement that could not be read in full, showing the judge its reply and what was wrong.

    None when there is nothing to mend or when the judge itself failed. `number` counts the tries, the first being 1,
    and makes the new request's id: the old one with "#2". However often it is asked again, a judge sees only its last
    reply, so that the prompt does not grow.
    """
    if reading.complete or unfinished_reason(completion) is not None:
        return None
    problems = "\n".join(f"- {name}: {reason}" for name, reason in reading.reasons.items() if name != AVERAGE)
    return replace(
        request,
        id=f"{request.id}#{number}",
        messages=(
            *request.messages,
            Message("assistant", _clean(remove_thinking(completion.text))[:_MAX_REPLY_CHARS] or "(nothing)"),
            Message(
                "user",
                _wording()["reask"].format(problems=_clean(problems), form=_form(request.json_schema or {})).rstrip(),
            ),
        ),
    )


def unjudgeable_reason(completion: Completion) -> str | None:
    """Why an answer is not worth a judge's time, or None: it ended with an error, or it is empty."""
    return unfinished_reason(completion) or (None if completion.text.strip() else "the answer is empty")


def judge_sha256(rubric: Rubric) -> str:
    """Hash of everything that a judge is told besides probe and answer: the rubric and the frame around it."""
    return _in_frame(rubric.sha256)


@lru_cache(maxsize=64)
def _in_frame(rubric_sha256: str) -> str:
    frame = json.dumps(_wording(), sort_keys=True)
    return hashlib.sha256(f"{rubric_sha256}\n{frame}".encode()).hexdigest()


def _form(schema: Mapping[str, Any]) -> str:
    """The form of a judgement of this schema. It is no JSON: a judge that gives it back has judged nothing."""
    return f"{{{', '.join(f'{json.dumps(name)}: {_blank(kind)}' for name, kind in schema['properties'].items())}}}"


def _blank(kind: Mapping[str, Any]) -> str:
    if kind["type"] == "string":
        return f'"{FORM_EXPLANATION}"'
    low, high = (kind["enum"][0], kind["enum"][-1]) if "enum" in kind else (kind["minimum"], kind["maximum"])
    return f"<{low:g} to {high:g}>"


def _range_schema(dimension: Dimension) -> dict[str, Any]:
    low, high = dimension.minimum, dimension.maximum
    if low == int(low) and high == int(high) and high - low <= 100:
        return {"type": "integer", "enum": list(range(int(low), int(high) + 1))}
    return {"type": "number", "minimum": low, "maximum": high}


def _shortened(answer: str, max_chars: int) -> str:
    answer = answer.strip()
    if len(answer) > max_chars:
        head, tail = max_chars * 2 // 3, max_chars // 3
        left_out = len(answer) - head - tail
        answer = f"{answer[:head]}\n[... {left_out} characters left out ...]\n{answer[len(answer) - tail :]}"
    return _clean(answer)


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


@lru_cache(maxsize=1)
def _wording() -> dict[str, str]:
    path = Path(ml_pipeline.suites.__file__).parent / "prompts" / "judge.yaml"
    content: dict[str, str] = read_yaml(path).content
    return content
