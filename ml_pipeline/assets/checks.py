"""The verdicts of a checkpoint's asset checks: rows in, evaluations out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import dagster as dg

from ml_pipeline.assets.check_specs import (
    ADAPTER_IS_APPLIED,
    ANSWERS_ARE_SOUND,
    ANSWERS_ARE_WHOLE,
    NOT_WORSE_THAN_BASE,
)
from ml_pipeline.assets.metadata import fact_value
from ml_pipeline.markdown import markdown_words
from ml_pipeline.monitoring_settings import (
    AdapterCheck,
    AnswersCheck,
    ChecksSettings,
    RegressionCheck,
    Severity,
    UnscoredCheck,
)
from ml_pipeline.printable import printable_line
from ml_pipeline.reports.comparison import NO_PROBES, Comparison, compare
from ml_pipeline.reports.conclusions import LIMIT_DECIDES, Share, base_fall_level, more_broken
from ml_pipeline.reports.passes import cut_by_protocol, passes_by_protocol
from ml_pipeline.reports.wording import gain, limit_words, percent
from ml_pipeline.scoring.degeneration import SIGNALS

Row = Mapping[str, Any]
_CUT = "truncated"
_NONE = Share(0, 0, None, None)
_SHOWN_REASONS = 5
_REASON_CHARACTERS = 120


def adapter_check(key: str, evaluations: Sequence[Row], settings: AdapterCheck) -> dg.AssetCheckEvaluation:
    """Judge the proof in the rows of `evaluations` of one checkpoint. A bare base has no adapter, and passes; a server
    that tells no log-probabilities proves a change by its text alone, of unknown size, and passes."""
    effects = [row["adapter_effect"] for row in evaluations if row["adapter_effect"] is not None]
    if not effects:
        return evaluation(ADAPTER_IS_APPLIED, key, settings.severity, True, "a bare base model: there is no adapter")
    effect = min(effects)
    if effect <= sys.float_info.min:
        text = "the adapter changes what the model writes; the server does not tell by how much"
        return evaluation(ADAPTER_IS_APPLIED, key, settings.severity, True, text)
    passed = effect > settings.logit_change
    text = f"the adapter moves a logit by up to {effect:.3g}"
    if not passed:
        text += f", which is next to nothing (no more than {settings.logit_change:g})"
    return evaluation(ADAPTER_IS_APPLIED, key, settings.severity, passed, text, largest_logit_change=effect)


def adapter_not_applied(key: str, settings: AdapterCheck) -> dg.AssetCheckEvaluation:
    """The failure of a checkpoint whose adapter was not applied at all, and which therefore has no answers. The run's
    error has the details, paths among them, which are not for a webhook."""
    text = "the model answers as without the adapter: its weights are zero, or its scale is, or it is of another base"
    return evaluation(ADAPTER_IS_APPLIED, key, settings.severity, False, text, largest_logit_change=0.0)


def degeneration_checks(
    key: str,
    rows: Sequence[Row],
    base_rows: Sequence[Row],
    settings: ChecksSettings,
    position: int = 1,
    samples: Mapping[str, int] | None = None,
) -> list[dg.AssetCheckEvaluation]:
    """Judge the rows of `degeneration` of one checkpoint beside those of its base (none where it was not scored; rows
    of another protocol do not count). It is the `position`-th of its run, from 1, for whose growth is allowed;
    `samples` says by suite how often each probe was asked, once where it says nothing."""
    asked = samples or {}
    others = SIGNALS.keys() - {_CUT}
    return [
        _signs(ANSWERS_ARE_WHOLE, key, rows, base_rows, settings.truncation, {_CUT}, position, asked),
        _signs(ANSWERS_ARE_SOUND, key, rows, base_rows, settings.degeneration, others, position, asked),
    ]


def unscored_check(
    spec: dg.AssetCheckSpec, key: str, rows: Sequence[Row], value: str, settings: UnscoredCheck
) -> dg.AssetCheckEvaluation:
    """Judge how many rows of each suite have nothing in the column `value`, whose reason is in `unscored_reason`."""
    counts, missing = Counter(row["suite"] for row in rows), [row for row in rows if row[value] is None]
    lost = Counter(row["suite"] for row in missing)
    shares = {suite: lost[suite] / total for suite, total in counts.items()}
    told = [
        f"{markdown_words(suite)}: {percent(share)} of {counts[suite]} have no score"
        for suite, share in shares.items()
        if share > settings.share
    ]
    reasons = Counter(_short(row["unscored_reason"]) for row in missing).most_common(_SHOWN_REASONS)
    if told and reasons:
        told.append(f"most often: {markdown_words(reasons[0][0])}")
    table = [{"suite": s, "unscored": lost[s], "of": total, "share": shares[s]} for s, total in counts.items()]
    return evaluation(
        spec,
        key,
        settings.severity,
        not told,
        "; ".join(told) or (f"{len(missing)} of {len(rows)} have no score" if rows else "there was nothing to score"),
        by_suite=table,
        reasons=[{"reason": reason, "count": count} for reason, count in reasons],
    )


def regression_check(
    key: str,
    results: Sequence[Row],
    base_results: Sequence[Row] | None,
    settings: RegressionCheck,
    position: int = 1,
) -> dg.AssetCheckEvaluation:
    """Judge the rows of `probe_results` of one checkpoint against those of its base (None: it is the base), suite by
    suite. It is the `position`-th of its run, from 1: a sound run fails with a chance of `settings.p_value` at most,
    however long it becomes and over all its suites. Where the token limit decides the difference nothing fails.
    Without a base that was scored under the same protocol there is nothing to fail, and the description says so."""
    if base_results is None:
        return evaluation(NOT_WORSE_THAN_BASE, key, settings.severity, True, "the bare base model itself")
    base, ours = passes_by_protocol(base_results), passes_by_protocol(results)
    cut, base_cut = cut_by_protocol(results), cut_by_protocol(base_results)
    level = base_fall_level(position, max(1, len(ours)), settings.p_value)
    table, told = [], []
    for name, passes in ours.items():
        suite = name[0]
        both_cut = base_cut.get(name, NO_PROBES), cut.get(name, NO_PROBES)
        found = compare(base.get(name, {}), passes, cut=both_cut)
        if found is None:
            continue
        fallen = found.delta <= -settings.drop and found.delta < 0
        worse = fallen and found.p_value / 2 <= level and found.verdict != LIMIT_DECIDES
        why = f" (a fall fails where p < {2 * level:.2g})" if fallen and not worse else ""
        if found.limit is not None:
            why += f" ({limit_words(found)})"
        told.append((worse, f"{markdown_words(suite)}: {gain(found)}{why}"))
        table.append({"suite": suite, **_figures(found)})
    failed = [text for worse, text in told if worse]
    return evaluation(
        NOT_WORSE_THAN_BASE,
        key,
        settings.severity,
        not failed,
        "; ".join(failed or [text for _, text in told]) or "no base scored in the same way to compare with",
        against_base=table,
        **{f"{row['suite']}_delta": row["delta"] for row in table},
    )


def evaluation(
    spec: dg.AssetCheckSpec, key: str | None, severity: Severity, passed: bool, description: str, **metadata: object
) -> dg.AssetCheckEvaluation:
    """An evaluation of a check for one partition, or None for an asset without.

    Dagster shows the description as Markdown: words in it that are not ours are `markdown_words`.
    """
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR if severity == "error" else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={name: fact_value(value) for name, value in metadata.items()},
        partition=key,
    )


def _signs(
    spec: dg.AssetCheckSpec,
    key: str,
    rows: Sequence[Row],
    base_rows: Sequence[Row],
    settings: AnswersCheck,
    signals: Collection[str],
    position: int,
    samples: Mapping[str, int],
) -> dg.AssetCheckEvaluation:
    base = {(row["protocol_id"], row["signal"]): row for row in base_rows}
    suites = max(1, len({(row["suite"], row["protocol_id"]) for row in rows}))
    table, notable = [], []
    for row in rows:
        if row["signal"] not in signals:
            continue
        before, asked = base.get((row["protocol_id"], row["signal"]), {}), samples.get(row["suite"], 1)
        if more_broken(_share(before, asked), _share(row, asked) or _NONE, position, suites, least=settings.share):
            notable.append(
                f"{markdown_words(row['suite'])}: {percent(row['share'])} {SIGNALS[row['signal']]}{_in_base(before)}"
            )
        shown = {name: row[name] for name in ("suite", "signal", "hits", "answers", "share", "share_low", "share_high")}
        table.append({**shown, "share_in_base": before.get("share")})
    description = "; ".join(notable) or "no more than in the base, or too few to tell"
    return evaluation(spec, key, settings.severity, not notable, description, signs=table)


def _share(row: Row, samples: int) -> Share | None:
    if not row or row["share"] is None:
        return None
    return Share.of_probes(row["share"], row["answers"], samples, row["share_low"], row["share_high"])


def _in_base(row: Row) -> str:
    return f" ({percent(row['share'])} in the base)" if row else ""


def _figures(found: Comparison) -> dict[str, object]:
    names = ("delta", "low", "high", "p_value", "paired", "better", "worse")
    return {name: getattr(found, name) for name in names}


def _short(reason: object) -> str:
    return printable_line(str(reason), _REASON_CHARACTERS)
