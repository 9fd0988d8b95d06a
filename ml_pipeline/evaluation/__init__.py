"""One checkpoint through all stages: prepared, asked, scored, judged. Pure Python, no Dagster.

Turns the records of the stages into rows of `stores.tables`; `assets` calls it and stores what it returns.
"""
