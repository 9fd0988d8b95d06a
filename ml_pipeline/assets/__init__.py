"""Dagster assets: thin, they call the stages and return metadata."""
