"""Which assets carry the version of the marking, so that Dagster shows results of an earlier one as out of date."""

from ml_pipeline.assets.specs import CHECKPOINT_SPECS, RESPONSE_JUDGEMENTS_SPEC, RESPONSE_SCORES_SPEC
from ml_pipeline.scoring.checks import MARKING_VERSION


def test_what_is_read_out_of_answers_has_the_version_of_the_marking() -> None:
    specs = [*CHECKPOINT_SPECS, RESPONSE_SCORES_SPEC, RESPONSE_JUDGEMENTS_SPEC]
    versions = {spec.key.to_user_string(): spec.code_version for spec in specs}
    assert {name for name, version in versions.items() if version == MARKING_VERSION} == {
        "probe_results",
        "response_scores",
    }
