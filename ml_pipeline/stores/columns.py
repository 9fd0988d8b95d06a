"""Types of columns, and the columns that tables of checkpoints and of files of responses have in common."""

from __future__ import annotations

import pyarrow as pa

from ml_pipeline.stores.table import Column

TEXT, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TIME = pa.timestamp("us", tz="UTC")

SCORED_AT = Column("scored_at", TIME, "When this row was made (UTC).")
RUBRIC = Column("rubric", TEXT, "Name and version of the rubric.")
DIMENSION = Column("dimension", TEXT, "What was judged; 'avg' is the mean of the others.")
FIGURE = Column("score", FLOAT, "The judge's figure in the rubric's range; empty when unscored.", nullable=True)
JUDGE_MODEL = Column("judge_model", TEXT, "Model that judged; of a panel all, with ' + ' between them.")
EXPLANATION = Column("explanation", TEXT, "The judge's own words.", nullable=True)
