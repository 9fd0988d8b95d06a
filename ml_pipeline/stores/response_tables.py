"""The tables of files of responses: what was read, and its figures response by response.

A response is named by its line in its file. The texts stay in the file, whose hash every version of it is known by.
"""

from __future__ import annotations

from ml_pipeline.scoring.heuristic import FIGURES
from ml_pipeline.stores.columns import (
    BOOL,
    DIMENSION,
    EXPLANATION,
    FIGURE,
    FLOAT,
    INT,
    JUDGE_MODEL,
    RUBRIC,
    SCORED_AT,
    TEXT,
)
from ml_pipeline.stores.table import Column, Table

_VERSION: tuple[Column, ...] = (
    Column("partition_key", TEXT, "The file's partition: its name without .jsonl, unusual characters as =XX."),
    Column("evaluation_id", TEXT, "Hash of the file's content and of all that scored it."),
    SCORED_AT,
)
_RESPONSE: tuple[Column, ...] = (
    *_VERSION,
    Column("line", INT, "Line of the file, from 1."),
    Column("prompt_id", TEXT, "The prompt's id in the file: what two files are paired by."),
    Column("model", TEXT, "Model that answered, as the file has it; 'unknown' where it has none."),
    Column("prompt_sha256", TEXT, "Hash of the prompt, where the file has one.", nullable=True),
)
_REASON = Column("unscored_reason", TEXT, "Why a figure that there should be is missing.", nullable=True)

RESPONSE_FILES = Table(
    "response_files",
    "Every file of responses that was scored, and what of it could not be read.",
    (
        *_VERSION,
        Column("file", TEXT, "The file's name."),
        Column("file_sha256", TEXT, "Hash of its content."),
        Column("size_bytes", INT, "Its size."),
        Column("mtime_ns", INT, "When it was modified last, ns since 1970."),
        Column("responses", INT, "Responses read."),
        Column("bad_lines", INT, "Lines that are no response; they count neither way."),
        Column("problems", TEXT, "What is wrong with the first of those, by line."),
    ),
    key=("partition_key",),
)

RESPONSE_SCORES = Table(
    "response_scores",
    "Figures of every response of a file that need no model: heuristic ones, and right or wrong where it can be told.",
    (
        *_RESPONSE,
        Column("suite", TEXT, "Suite whose probe it answers, or whose fields it has.", nullable=True),
        Column("domain", TEXT, "Domain, as the file has it.", nullable=True),
        Column("elapsed_s", FLOAT, "How long the answer took, as the file has it, in s.", nullable=True),
        *(Column(name, FLOAT, f"Heuristic figure {name}.", nullable=True) for name in FIGURES),
        Column("passed", BOOL, "Whether the answer is right; empty where nothing says what is.", nullable=True),
        Column("expected", TEXT, "What the answer should be.", nullable=True),
        Column("extracted", TEXT, "What was read out of it.", nullable=True),
        Column("strict_passed", BOOL, "Whether what the strict filters read is right.", nullable=True),
        Column("flexible_passed", BOOL, "Whether what the flexible filters read is right.", nullable=True),
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
        Column("suite", TEXT, "Suite whose rubric it is."),
        RUBRIC,
        Column("rubric_sha256", TEXT, "Hash of the rubric and of the frame around it."),
        DIMENSION,
        FIGURE,
        _REASON,
        JUDGE_MODEL,
        EXPLANATION,
        Column("transcript", TEXT, "The judge's whole answer; of several votes, none."),
        Column("votes", INT, "Votes with a figure, whose median this is."),
        Column("votes_asked", INT, "Votes asked for: judges times repeats."),
    ),
    key=("partition_key", "line", "dimension"),
    streamed=True,
)

RESPONSE_TABLES: tuple[Table, ...] = (RESPONSE_FILES, RESPONSE_SCORES, RESPONSE_JUDGEMENTS)
"""Tables whose partition is a file of responses."""
