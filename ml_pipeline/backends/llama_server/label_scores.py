"""Log-probabilities of labels as continuations of a text, exact, out of a server that tells of single tokens only."""

from __future__ import annotations

from collections.abc import Sequence

from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.llama_server.server import LlamaServer
from ml_pipeline.backends.token_prefixes import split_labels

# More than the largest vocabulary has, which is what the server then takes.
_FEW, _ALL = 256, 1 << 24


def label_scores(
    server: LlamaServer, index: int, text: str, labels: Sequence[str], *, scale: float | None, context_tokens: int
) -> list[float]:
    """Log P(label | text) for each label: the sum over the label's tokens.

    That of one token is -103.3 at least, where the server's single precision ends. Where labels begin alike, or their
    tokens are among the likeliest, one request tells of several.

    Raises:
        HttpError: a request got no answer.
        BackendError: see `split_labels`.
    """
    prompt, tails = split_labels(index, text, labels, server.tokenize, context_tokens)
    wanted = [[(tuple(tail[:place].tolist()), int(tail[place])) for place in range(len(tail))] for tail in tails]
    missing = dict.fromkeys(step for steps in wanted for step in steps)
    found: dict[tuple[tuple[int, ...], int], float] = {}
    while missing:
        before, token = next(iter(missing))
        so_far = [*prompt.tolist(), *before]
        told = server.likeliest(so_far, scale, _FEW, forced=token)
        if token not in told:
            # It is a part of a character: the server tells of it only beside another that is taken.
            told = server.likeliest(so_far, scale, _ALL)
        if token not in told:
            raise HttpError(f"the server tells nothing of token {token}", again=False)
        for step in [step for step in missing if step[0] == before and step[1] in told]:
            found[step] = told[step[1]]
            del missing[step]
    return [sum(found[step] for step in steps) for steps in wanted]
