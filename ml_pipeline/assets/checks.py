"""The asset check of each checkpoint: do its answers degenerate?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from ml_pipeline.assets.metadata import fact_value
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS
from ml_pipeline.scoring.degeneration import SIGNALS, is_notable

Row = Mapping[str, Any]

with warnings.catch_warnings():
    # Checks by partition are a preview in Dagster; without them only the last checkpoint's verdict would be shown.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    DEGENERATION_CHECK = dg.AssetCheckSpec(
        "answers_are_sound",
        asset="degeneration",
        description="Warns where a quarter of a suite's answers or more are cut, repeat themselves, loop, refuse, are "
        "empty or in another language, and clearly more than the bare base model's.",
        partitions_def=CHECKPOINT_PARTITIONS,
    )


def degeneration_check(partition_key: str, rows: Sequence[Row], base_rows: Sequence[Row]) -> dg.AssetCheckEvaluation:
    """Judge the rows of `degeneration` of one checkpoint beside those of its base (none where it was not scored, or
    under another protocol, which does not count). Never an error: what to do about it is for people to say."""
    base = {(row["protocol_id"], row["signal"]): row["share_high"] for row in base_rows}
    notable = [
        row for row in rows if is_notable(row["share"], row["share_low"], base.get((row["protocol_id"], row["signal"])))
    ]
    known = {protocol_id for protocol_id, _ in base}
    shown = [{name: row[name] for name in ("suite", "signal", "hits", "answers", "share")} for row in notable]
    return dg.AssetCheckEvaluation(
        asset_key=DEGENERATION_CHECK.asset_key,
        check_name=DEGENERATION_CHECK.name,
        passed=not notable,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{row['suite']}: {row['share']:.0%} {SIGNALS[row['signal']]}" for row in notable)
        or "no sign of degeneration",
        metadata={"signs": fact_value(shown), "compared_with_base": any(row["protocol_id"] in known for row in rows)},
        partition=partition_key,
    )
