"""Several answers to one probe: what of them pass on their own, at least once, and by majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb


def pass_at_k(passed: int, samples: int, k: int) -> float:
    """Chance that at least one of `k` answers passes, estimated without bias from `passed` of `samples` answers.

    Raises ValueError unless 0 <= passed <= samples and 1 <= k <= samples.
    Source: M. Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374 (2021), section 2.1.
    """
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs 0..samples passed and 1..samples as k, not {passed} of {samples}.")
    return 1 - comb(samples - passed, k) / comb(samples, k)


def majority_passes(extracted: Sequence[str | None], passed: Sequence[bool]) -> bool:
    """Whether the answer that most samples give is right; of equally many, that which came first.

    Samples out of which nothing could be read have no vote; where none has one, nothing is right.
    Source: X. Wang et al., Self-Consistency, arXiv 2203.11171 (2022).
    """
    votes = Counter(answer for answer in extracted if answer is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return any(right for answer, right in zip(extracted, passed, strict=True) if answer == winner)
