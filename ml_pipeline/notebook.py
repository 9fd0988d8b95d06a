"""What is stored, as pandas frames: for notebooks and scripts.

    import ml_pipeline

    scores = ml_pipeline.load_scores()
    answers = ml_pipeline.load_responses("tuned@800", suite="capability")
    ml_pipeline.compare("base.gemma-3-1b@0", "tuned@800")

Each call reads the database once, shortly and read-only, so that scoring goes on meanwhile. The project is that of the
working folder, as on the command line, unless `config` names its pipeline.yaml. Every error is an `MlPipelineError`,
whose message says how to mend it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import pandas as pd

from ml_pipeline.reports import pairs
from ml_pipeline.reports.checkpoint_names import ScoredCheckpoint, find_checkpoint, scored_checkpoints
from ml_pipeline.reports.response_table import response_table
from ml_pipeline.reports.score_table import score_table
from ml_pipeline.reports.scores import Scores, check_suite
from ml_pipeline.reports.scores import load_scores as scores_of
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.duckdb import DuckDBStore

Names = str | Sequence[str]
Config = str | PathLike[str]


def load_scores(
    checkpoints: Names | None = None, *, suite: str | None = None, config: Config | None = None
) -> pd.DataFrame:
    """Every figure of every checkpoint, one row each, with its 95% interval.

    Args:
        checkpoints: names of checkpoints (a key, run@iteration, or a part that only one has), or shell patterns on
            their keys such as "mac.*@800"; default all.
        suite: this suite alone.
        config: pipeline.yaml; default that of $ML_PIPELINE_CONFIG, of this folder or one above.

    Returns:
        A frame with the columns of the asset `score_table`: what the row is about (partition_key, source, run, run_id,
        label, model, base_model, iteration, suite, evaluation_id, protocol_id, scored_at), what produced it
        (base_sha256, backend, quantisation), and the figure (metric, category, value, low, high, count, unscored); for
        LEK and judges' figures also `unsound`, the share of the answers that are empty, looping, cut or word salad.
        Shares are 0..1; a figure that could not be made is NaN, never 0.

    Raises:
        SettingsError: pipeline.yaml is missing or wrong.
        UnknownCheckpointError: a name fits no scored checkpoint, or several.
        SuiteError: nothing was scored on this suite.
        StoreError: the database cannot be read; StoreLockedError: another process holds it.
    """
    return score_table(_scores(_database(config), checkpoints, suite))


def load_responses(
    checkpoints: Names | None = None, *, suite: str | None = None, config: Config | None = None
) -> pd.DataFrame:
    """Every answer in full, one row each, with whether it is right, and why it has no score where it has none.

    Args and errors are those of `load_scores`.

    Returns:
        A frame with the identity columns of `load_scores`, the probe (probe_id, category, sample, template), the
        question (prompt, rendered_prompt), the answer (response, finish_reason, prompt_tokens, completion_tokens,
        seconds, error, choice_log_probabilities), the mark (passed, unscored_reason, expected, extracted,
        strict_passed, flexible_passed, passed_normalised), and the figures lek and judge (the mean of its dimensions).
        `passed` is empty where a probe has no check or is unscored.
    """
    return response_table(_scores(_database(config), checkpoints, suite))


def compare(a: str, b: str, *, suite: str | None = None, config: Config | None = None) -> pd.DataFrame:
    """Compare checkpoint b with checkpoint a on the same probes.

    Args:
        a, b: names of checkpoints, as in `load_scores`.
        suite, config: as in `load_scores`.

    Returns:
        One row a suite, metric and category. For the metric "accuracy" (category "overall" first): a and b, shares of
        the answers of each, with their Wilson 95% intervals (a_low, a_high, b_low, b_high), delta = b - a on the
        `paired` probes (of several answers to a probe, the shares that passed) with its interval (delta_low,
        delta_high), which is the test turned round, how many probes are better and worse, p_value (McNemar's exact
        test, or the sign-flip test where probes have several answers), p_adjusted (Holm's, for the categories of a
        suite) and the verdict. For "lek" and "judge:<dimension>" the means and their difference with the paired
        bootstrap's interval, empty where all differences are equal. Suites whose probes are not the same for both
        are left out.

    Raises:
        What `load_scores` raises; UnknownCheckpointError also where the two have no suite in common.
    """
    store = _database(config)
    known = scored_checkpoints(store)
    keys = [find_checkpoint(name, known).key for name in (a, b)]
    return pairs.pair_table(pairs.comparable(_chosen(scores_of(store, keys), suite), keys[0], keys[1]).suites)


def _database(config: Config | None) -> DuckDBStore:
    settings = load_settings(None if config is None else Path(config))
    return DuckDBStore(settings.duckdb_path, settings.stores.duckdb_lock_timeout_s)


def _scores(store: DuckDBStore, checkpoints: Names | None, suite: str | None) -> Scores:
    keys = None
    if checkpoints is not None:
        names, known = [checkpoints] if isinstance(checkpoints, str) else checkpoints, scored_checkpoints(store)
        keys = list(dict.fromkeys(key for name in names for key in _keys(name, known)))
    return _chosen(scores_of(store, keys), suite)


def _keys(name: str, known: list[ScoredCheckpoint]) -> list[str]:
    fitting = [checkpoint.key for checkpoint in known if fnmatch.fnmatchcase(checkpoint.key, name)]
    return fitting or [find_checkpoint(name, known).key]


def _chosen(scores: Scores, suite: str | None) -> Scores:
    if suite is None:
        return scores
    check_suite(scores, suite)
    return scores.only(suite=suite)
