"""Log-probabilities of labels as continuations of a text, exact, out of a server that tells of single tokens only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ml_pipeline.backends.llama_server.messages import COMPLETION, Lora, likeliest, next_token_body
from ml_pipeline.backends.loopback_http import HttpClient, HttpError
from ml_pipeline.backends.token_prefixes import Tokens, split_labels

_TOP = 256

_Place = tuple[int, ...]


def label_scores(
    client: HttpClient, index: int, text: str, labels: Sequence[str], *, lora: Lora, context_tokens: int
) -> list[float]:
    """Log P(label | text) for each label: the sum over the label's tokens.

    Where two labels begin alike, or their tokens are among the likeliest, one request tells of several.

    Raises:
        HttpError: a request got no answer.
        BackendError: see `split_labels`.
    """
    prompt, tails = split_labels(index, text, labels, lambda part: _tokenize(client, part), context_tokens)
    wanted = [[(tuple(tail[:place].tolist()), int(tail[place])) for place in range(len(tail))] for tail in tails]
    missing = dict.fromkeys(step for steps in wanted for step in steps)
    found: dict[tuple[_Place, int], float] = {}
    while missing:
        before, token = next(iter(missing))
        body = next_token_body([*prompt.tolist(), *before], lora, _TOP, forced=token)
        told = likeliest(client.post(COMPLETION, body))
        if token not in told:
            raise HttpError(f"the server tells nothing of token {token}", again=False)
        for step in [step for step in missing if step[0] == before and step[1] in told]:
            found[step] = told[step[1]]
            del missing[step]
    return [sum(found[step] for step in steps) for steps in wanted]


def _tokenize(client: HttpClient, text: str) -> Tokens:
    answer = client.post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
    try:
        return np.array(answer["tokens"], dtype=np.int32)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise HttpError("the server answered without tokens", again=False) from error
