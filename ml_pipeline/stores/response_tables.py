"""The tables of files of responses: what was read, and its figures response by response.

A response is named by its line in its file. The texts stay in the file, whose hash every version of it is known by.
"""

from __future__ import annotations

import pyarrow as pa

from ml_pipeline.scoring.heuristic import FIGURES
from ml_pipeline.stores.table import Column, Table

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

_VERSION: tuple[Column, ...] = (
    Column("partition_key", _TEXT, "The file's partition: its name without .jsonl, unusual characters as =XX."),
    Column("evaluation_id", _TEXT, "Hash of the file's content and of all that scored it."),
    Column("scored_at", pa.timestamp("us", tz="UTC"), "When this row was made (UTC)."),
)
_RESPONSE: tuple[Column, ...] = (
    *_VERSION,
    Column("line", _INT, "Line of the file, from 1."),
    Column("prompt_id", _TEXT, "The prompt's id in the file: what two files are paired by."),
    Column("model", _TEXT, "Model that answered, as the file has it; 'unknown' where it has none."),
    Column("prompt_sha256", _TEXT, "Hash of the prompt, where the file has one.", nullable=True),
)
_REASON = Column("unscored_reason", _TEXT, "Why a figure that there should be is missing.", nullable=True)
_SCORE = Column("score", _FLOAT, "The judge's figure in the rubric's range; empty when unscored.", nullable=True)
_EXPLANATION = Column("explanation", _TEXT, "The judge's own words.", nullable=True)
_TRANSCRIPT = Column("transcript", _TEXT, "The judge's whole answer; of several votes, none.")

RESPONSE_FILES = Table(
    "response_files",
    "Every file of responses that was scored, and what of it could not be read.",
    (
        *_VERSION,
        Column("file", _TEXT, "The file's name."),
        Column("file_sha256", _TEXT, "Hash of its content."),
        Column("size_bytes", _INT, "Its size."),
        Column("mtime_ns", _INT, "When it was modified last, ns since 1970."),
        Column("responses", _INT, "Responses read."),
        Column("bad_lines", _INT, "Lines that are no response; they count neither way."),
        Column("problems", _TEXT, "What is wrong with the first of those, by line."),
    ),
    key=("partition_key",),
)

RESPONSE_SCORES = Table(
    "response_scores",
    "Figures of every response of a file that need no model: heuristic ones, and right or wrong where it can be told.",
    (
        *_RESPONSE,
        Column("suite", _TEXT, "Suite whose probe it answers, or whose fields it has.", nullable=True),
        Column("domain", _TEXT, "Domain, as the file has it.", nullable=True),
        Column("elapsed_s", _FLOAT, "How long the answer took, as the file has it, in s.", nullable=True),
        *(Column(name, _FLOAT, f"Heuristic figure {name}.", nullable=True) for name in FIGURES),
        Column("passed", _BOOL, "Whether the answer is right; empty where nothing says what is.", nullable=True),
        Column("expected", _TEXT, "What the answer should be.", nullable=True),
        Column("extracted", _TEXT, "What was read out of it.", nullable=True),
        Column("strict_passed", _BOOL, "Whether what the strict filters read is right.", nullable=True),
        Column("flexible_passed", _BOOL, "Whether what the flexible filters read is right.", nullable=True),
        _REASON,
    ),
    key=("partition_key", "line"),
    streamed=True,
)

RESPONSE_JUDGEMENTS = Table(
    "response_judgements",
    "A judge's figure for every response of a file that has a rubric, and dimension; the median of several votes.",
    (
        *_RESPONSE,
        Column("suite", _TEXT, "Suite whose rubric it is."),
        Column("rubric", _TEXT, "Name and version of the rubric."),
        Column("rubric_sha256", _TEXT, "Hash of the rubric and of the frame around it."),
        Column("dimension", _TEXT, "What was judged; 'avg' is the mean of the others."),
        _SCORE,
        _REASON,
        Column("judge_model", _TEXT, "Model that judged; of a panel all, with ' + ' between them."),
        _EXPLANATION,
        _TRANSCRIPT,
        Column("votes", _INT, "Votes with a figure, whose median this is."),
        Column("votes_asked", _INT, "Votes asked for: judges times repeats."),
    ),
    key=("partition_key", "line", "dimension"),
    streamed=True,
)

RESPONSE_TABLES: tuple[Table, ...] = (RESPONSE_FILES, RESPONSE_SCORES, RESPONSE_JUDGEMENTS)
"""Tables whose partition is a file of responses."""
