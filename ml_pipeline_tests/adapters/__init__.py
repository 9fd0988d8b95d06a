"""Tests of `ml_pipeline.adapters`."""
