"""Asking a model to judge an answer by a rubric: the request that is sent."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import ml_pipeline.suites
from ml_pipeline.backends.interface import Completion, CompletionRequest, GenerationOptions, Message
from ml_pipeline.scoring.checks import expected_answer
from ml_pipeline.scoring.judgement import JudgeReading
from ml_pipeline.scoring.results import unfinished_reason
from ml_pipeline.suites.suite import Dimension, Probe, Rubric
from ml_pipeline.yaml_file import read_yaml

FENCE = "=====ANSWER====="
JUDGE_OPTIONS = GenerationOptions(temperature=0.0, max_tokens=200)
MAX_ANSWER_CHARS = 6000
MAX_EXPLANATION_CHARS = 120
_MAX_REPLY_CHARS = 600

# Signs that look like the fence's, with or without those between them that nobody sees.
_FENCE_LIKE = re.compile(
    "(?:[=\N{FULLWIDTH EQUALS SIGN}\N{SMALL EQUALS SIGN}\N{SUPERSCRIPT EQUALS SIGN}\N{SUBSCRIPT EQUALS SIGN}"
    "\N{BOX DRAWINGS DOUBLE HORIZONTAL}][\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*){5,}"
)
_CONTROL_TOKEN = re.compile(
    r"<(?=[|\N{FULLWIDTH VERTICAL LINE}]|/?(?:s|bos|eos|pad|unk|mask|start_of_\w+|end_of_\w+|tool_call|tool_response)>)"
    r"|<(?=</?SYS>>)|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])",
    re.IGNORECASE,
)
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
    once. The answer comes last, between fences that it cannot hold: runs of "=" in it are cut short and control tokens
    of chat templates broken. A long answer loses its middle. The schema asks for whole numbers where the rubric's
    range is whole, as an enumeration, since converters of schemas to grammars pass over minimum and maximum.
    """
    wording = _wording()
    parts = [
        wording["instructions"].format(
            rubric=rubric.instructions,
            dimensions="\n".join(
                f"- {d.name} ({d.minimum:g} to {d.maximum:g}): {d.description}" for d in rubric.dimensions
            ),
            fence=FENCE,
            form=_form(rubric, explain),
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
    parts.append(wording["answer"].format(fence=FENCE, answer=_fenced(answer, max_answer_chars)))
    message = Message("user", "\n".join(parts).rstrip())
    return CompletionRequest(request_id, (message,), options, judge_schema(rubric, explain=explain))


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
    problems = "\n".join(f"- {name}: {reason}" for name, reason in reading.reasons.items() if name != "avg")
    schema = request.json_schema or {}
    form = json.dumps({name: "..." if name == "explanation" else 0 for name in schema.get("properties", {})})
    return replace(
        request,
        id=f"{request.id}#{number}",
        messages=(
            *request.messages,
            Message("assistant", _clean(completion.text)[:_MAX_REPLY_CHARS] or "(nothing)"),
            Message("user", _wording()["reask"].format(problems=_clean(problems), form=form).rstrip()),
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
    return hashlib.sha256(f"{rubric_sha256}\n{frame}\n{FENCE}".encode()).hexdigest()


def _form(rubric: Rubric, explain: bool) -> str:
    parts = [f'"{d.name}": <{d.minimum:g} to {d.maximum:g}>' for d in rubric.dimensions]
    if explain:
        parts.append('"explanation": "<one short sentence>"')
    return f"{{{', '.join(parts)}}}"


def _range_schema(dimension: Dimension) -> dict[str, Any]:
    low, high = dimension.minimum, dimension.maximum
    if low == int(low) and high == int(high) and high - low <= 100:
        return {"type": "integer", "enum": list(range(int(low), int(high) + 1))}
    return {"type": "number", "minimum": low, "maximum": high}


def _fenced(answer: str, max_chars: int) -> str:
    answer = answer.strip()
    if len(answer) > max_chars:
        head, tail = max_chars * 2 // 3, max_chars // 3
        left_out = len(answer) - head - tail
        answer = f"{answer[:head]}\n[... {left_out} characters left out ...]\n{answer[len(answer) - tail :]}"
    return _clean(answer)


def _clean(text: str) -> str:
    text = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _FENCE_LIKE.sub("====", text)
    return _CONTROL_TOKEN.sub(lambda match: match[0] + " ", text).strip()


@lru_cache(maxsize=1)
def _wording() -> dict[str, str]:
    path = Path(ml_pipeline.suites.__file__).parent / "prompts" / "judge.yaml"
    content: dict[str, str] = read_yaml(path).content
    return content
