"""Suites: probes and judge rubrics as versioned YAML, with the loader that validates and hashes them."""

from ml_pipeline.suites.loader import available_suites, load_rubric, load_rubrics, load_suites
from ml_pipeline.suites.suite import Dimension, Probe, Rubric, Suite, SuiteKind

__all__ = [
    "Dimension",
    "Probe",
    "Rubric",
    "Suite",
    "SuiteKind",
    "available_suites",
    "load_rubric",
    "load_rubrics",
    "load_suites",
]
