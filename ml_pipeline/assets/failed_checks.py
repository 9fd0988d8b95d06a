"""Keeps failed checks for the alert sensor, which tells people of them; never at the cost of what is being done."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg

from ml_pipeline.alerts.outbox import MOST_WAITING, FailedCheck, Outbox
from ml_pipeline.errors import StoreError
from ml_pipeline.markdown import plain_words
from ml_pipeline.settings import Settings


def keep_to_be_told(settings: Settings, evaluation: dg.AssetCheckEvaluation, warn: Callable[[str], None]) -> None:
    """Keep a failure that `alerts` wants told; what goes wrong is a warning and nothing else."""
    if evaluation.passed or not settings.alerts.address:
        return
    if settings.alerts.severity == "error" and evaluation.severity != dg.AssetCheckSeverity.ERROR:
        return
    failed = FailedCheck(
        id=secrets.token_hex(8),
        check=evaluation.check_name,
        asset=evaluation.asset_key.to_user_string(),
        partition=evaluation.partition,
        severity=evaluation.severity.value.lower(),
        description=plain_words(evaluation.description or ""),
        failed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        if not Outbox(settings.alerts_path).add(failed):
            warn(f"Nobody is told of {failed.check} of {failed.partition}: {MOST_WAITING} alerts wait already.")
    except StoreError as error:
        warn(f"Nobody is told of {failed.check} of {failed.partition}: {error}")
