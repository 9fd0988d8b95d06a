"""What the columns of the tables for people mean: the tidy score table and the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ml_pipeline.stores.tables import EVALUATIONS, IDENTITY

_OF_EVALUATIONS = {column.name: column.description for column in (*IDENTITY, *EVALUATIONS.columns)}

SCORE_TABLE_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        **_OF_EVALUATIONS,
        "metric": "What was measured: accuracy, unscored_share, lek, judge:<dimension> ...",
        "category": "'overall' or a category.",
        "value": "The figure: a share 0..1 or a mean; empty where there is none.",
        "low": "Lower end of its 95% interval.",
        "high": "Upper end of its 95% interval.",
        "count": "Answers (for majority and pass@k: probes) that it is made of.",
        "unscored": "Answers or probes that have no figure; they count neither way.",
    }
)

_INTERVAL = {"low": "Lower end of its 95% interval.", "high": "Upper end of its 95% interval."}


def _compared(prefix: str, with_whom: str) -> dict[str, str]:
    return {
        f"{prefix}delta": f"Accuracy minus that of {with_whom} on the probes that both have, -1..1.",
        **{f"{prefix}{'' if prefix else 'delta_'}{end}": text for end, text in _INTERVAL.items()},
        f"{prefix}p_value": "McNemar's exact two-sided test; of several answers a probe the sign-flip test.",
        f"{prefix}p_adjusted": "The same with allowance for the run's other checkpoints (Holm).",
        f"{prefix}verdict": f"What that says at 5%: better or worse than {with_whom}, or no clear difference.",
    }


LEADERBOARD_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        **_OF_EVALUATIONS,
        "rank": "Place within the run by accuracy, 1 the best; equal ones share it. Empty without any scored probe.",
        "tied": "Whether another checkpoint of the run has the same accuracy.",
        "best": "Whether none of the run has a higher accuracy.",
        "near_best": "Whether these probes cannot tell it from the best.",
        "accuracy": "Share of scored answers passed, 0..1.",
        "accuracy_low": _INTERVAL["low"],
        "accuracy_high": _INTERVAL["high"],
        "total": "Answers scored (passed or failed).",
        "unscored": "Probes that could not be scored.",
        "base_partition_key": "The base that it is compared with.",
        "base_accuracy": "That base's accuracy, 0..1.",
        **_compared("", "the base"),
        "paired": "Probes that are scored for both it and the base.",
        "better": "Probes on which it did better than the base.",
        "worse": "Probes on which it did worse than the base.",
        "detectable": "The smallest difference that so many probes find 4 times in 5, 0..1.",
        "templates": "Templates that the probes are made of, where they are.",
        "beyond_low": "Lower end of the 95% interval of the difference on other templates.",
        "beyond_high": "Upper end of the 95% interval of the difference on other templates.",
        "beyond_p_value": "The sign-flip test over whole templates.",
        "trend": "The run's course from the base to its last checkpoint, in words.",
        "previous_partition_key": "The run's checkpoint before this one.",
        **_compared("previous_", "the checkpoint before"),
        **{
            f"{name}_{part}": meaning
            for name, what in (("lek", "Mean LEK"), ("judge", "Mean of the judge's figures"))
            for part, meaning in {"delta": f"{what} minus the base's.", **_INTERVAL}.items()
        },
    }
)
