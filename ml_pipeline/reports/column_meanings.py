"""What the columns of the tables for people mean, for the Dagster UI and as comments in the database."""

from __future__ import annotations

from collections.abc import Mapping

from ml_pipeline.stores.tables import EVALUATIONS, IDENTITY

SCORE_TABLE_MEANINGS: Mapping[str, str] = {
    **{column.name: column.description for column in (*IDENTITY, *EVALUATIONS.columns)},
    "training_loss": "Training loss at its iteration, the last printed up to there; empty where none is known.",
    "validation_loss": "Validation loss at its iteration, the last printed up to there; empty where none is known.",
    "metric": "What was measured: accuracy, unscored_share, lek, judge:<dimension> ...",
    "category": "'overall' or a category.",
    "value": "The figure: a share 0..1 or a mean; empty where there is none.",
    "low": "Lower end of its 95% interval.",
    "high": "Upper end of its 95% interval.",
    "count": "Answers (for majority and pass@k: probes) that it is made of.",
    "unscored": "Answers or probes that have no figure; they count neither way.",
    "unsound": "Of LEK and judges' figures: share of the answers, 0..1, that are empty, looping, cut or word salad.",
}

_SUBJECTS = {"lek": "mean LEK of the answers", "judge": "mean of the judge's figures"}

LEADERBOARD_MEANINGS: Mapping[str, str] = {
    **{column.name: column.description for column in IDENTITY},
    "rank": "Place within the run, suite and protocol, 1 the highest accuracy; empty for a base or without a score.",
    "tied": "Whether another checkpoint of the run has the same accuracy.",
    "best": "Whether its accuracy is the highest of those that are neither worse than the base nor broken.",
    "near_best": "Whether it may be the truly best one as well: in 95% of runs that is one of these and the best.",
    "best_luck": "By how much the best accuracy probably lies above its truth, being the highest of several.",
    "best_low": "Lower end of the best accuracy's 95% interval, which allows for the choice.",
    "best_high": "Upper end of that.",
    "accuracy": "Share of scored answers passed, 0..1.",
    "accuracy_low": "Lower end of its 95% Wilson interval, 0..1.",
    "accuracy_high": "Upper end of its 95% Wilson interval, 0..1.",
    "total": "Answers scored (passed or failed).",
    "unscored": "Answers that could not be scored; they count neither way.",
    "base_partition_key": "Partition of the bare base model of the same protocol.",
    "base_accuracy": "Accuracy of that base, 0..1.",
    "delta": "Accuracy less the base's, on the probes that both have a score for (with `cut`: that both finished).",
    "delta_low": "Lower end of its interval: with 95% those of all checkpoints and suites of the run hold the truth.",
    "delta_high": "Upper end of that.",
    "paired": "Probes that both have a score for.",
    "better": "Of those, probes on which the checkpoint did better.",
    "worse": "Of those, probes on which it did worse.",
    "p_value": "McNemar's exact two-sided test, or the sign-flip test where probes have several answers.",
    "p_adjusted": "The same, allowing for the number of checkpoints of the run and of its suites (Holm).",
    "detectable": "The smallest difference that so many probes find 4 times in 5, allowing for all of these.",
    "base_cut": "Share of the base's answers that the token limit cut, where it cut very different shares.",
    "cut": "Share of the checkpoint's answers that it cut, in that case.",
    "templates": "Templates of the suite, which the columns beyond_* take as the sample.",
    "beyond_low": "Lower end of the 95% interval of the difference on other templates.",
    "beyond_high": "Upper end of that.",
    "beyond_p_value": "Sign-flip test over whole templates.",
    "verdict": "better, worse or no clear difference from the base, or that the token limit decides; base; or why that "
    "cannot be said.",
    "trend": "Where the run's accuracy goes.",
    "previous_partition_key": "Partition of the checkpoint before it in the run.",
    "previous_delta": "Accuracy less that of the checkpoint before, on the probes that both have a score for.",
    "previous_low": "Lower end of its interval, which allows for all checkpoints and suites.",
    "previous_high": "Upper end of that.",
    "previous_p_value": "The same test against the checkpoint before.",
    "previous_p_adjusted": "The same, allowing for the number of checkpoints of the run and of its suites (Holm).",
    "previous_verdict": "better, worse or no clear difference from the checkpoint before.",
    **{
        f"{name}_{part}": meaning
        for name, subject in _SUBJECTS.items()
        for part, meaning in (
            ("delta", f"{subject[0].upper()}{subject[1:]}, less the base's."),
            ("low", "Lower end of its 95% interval (paired bootstrap)."),
            ("high", "Upper end of that."),
        )
    },
}
