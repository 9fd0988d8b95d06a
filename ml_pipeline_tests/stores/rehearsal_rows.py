"""What the processes of a rehearsal have in memory when they are forked: imports, suites, rows of two versions."""

from ml_pipeline_tests.stores.rehearsal import Work, results_of

for _version in (1, 2):
    results_of(Work("made", 1, _version))
