"""The parser: both formats of mlx-lm, logs that grow, start anew or lie."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.checkpoints.training_log import LossRecord, TrainingLogParser, parse_line

SAMPLES = Path(__file__).parents[2] / "data" / "sample" / "checkpoints"
OLD_TRAIN = (
    "Iter 10: Train loss 2.345, Learning Rate 1.000e-05, It/sec 0.420, Tokens/sec 210.3, "
    "Trained Tokens 4200, Peak mem 5.100 GB"
)
OLD_TRAIN_RECORD = LossRecord(10, "train", 2.345, None, 1e-5, 0.42, 210.3, 4200, 5.1)
BAR = "Calculating loss...:  40%|████      | 10/25 [00:01<00:02,  6.53it/s]"


def records(text: str | bytes) -> list[LossRecord]:
    return TrainingLogParser().feed(text.encode() if isinstance(text, str) else text)


def figures(text: str) -> list[tuple[int, str, float | None, int]]:
    return [(r.iteration, r.kind, r.loss, r.attempt) for r in records(text)]


def sample(run: str) -> bytes:
    return (SAMPLES / f"adapters-smollm2-135m-{run}" / "training.log").read_bytes()


def test_the_sample_that_degenerates_reads_as_a_person_reads_it() -> None:
    found = records(sample("hot"))
    assert {r.iteration: r.loss for r in found if r.kind == "val"} == {
        1: 2.570,
        15: 2.440,
        30: 2.056,
        45: 5.578,
        60: 6.352,
    }
    assert [(r.iteration, r.loss, r.tokens_per_s, r.trained_tokens) for r in found if r.kind == "train"] == [
        (5, 3.867, 7, 400),
        (10, 2.569, 7, 700),
        (15, 2.950, 7, 1100),
        (20, 1.748, 6, 1300),
        (25, 3.255, 10, 1700),
        (30, 2.281, 9, 2000),
        (35, 3.102, 11, 2400),
        (40, 3.983, 9, 2600),
        (45, 3.916, 5, 2900),
        (50, 5.116, 5, 3200),
        (55, 3.441, 6, 3500),
        (60, 4.730, 7, 3900),
    ]
    assert {(r.learning_rate, r.iterations_per_s, r.peak_memory_gb, r.attempt, r.reason) for r in found} == {
        (None, None, None, 1, None)
    }


def test_the_sample_that_learns_reads_as_a_person_reads_it() -> None:
    found = records(sample("reasoning"))
    train = {r.iteration: (r.loss, r.tokens_per_s, r.trained_tokens) for r in found if r.kind == "train"}
    assert list(train) == list(range(10, 401, 10))
    assert train[10] == (1.910, 15, 700)
    assert train[100] == (0.675, 7, 6500)
    assert train[310] == (0.178, 22, 20000)
    assert train[400] == (0.184, 22, 26000)
    assert [(r.iteration, r.loss) for r in found if r.kind == "val"] == [
        (1, 2.570),
        (80, 0.773),
        (160, 0.345),
        (240, 0.360),
        (320, 0.369),
        (400, 0.341),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (OLD_TRAIN, OLD_TRAIN_RECORD),
        (f"\x1b[32m{OLD_TRAIN}\x1b[0m", OLD_TRAIN_RECORD),
        (f"{BAR}{OLD_TRAIN}", OLD_TRAIN_RECORD),
        ("Iter 200: Val loss 2.123, Val took 3.210s", LossRecord(200, "val", 2.123)),
        ("Iter 10: Train loss 2.345, It/sec 0.420, Tokens/sec 210.300",
         LossRecord(10, "train", 2.345, iterations_per_s=0.42, tokens_per_s=210.3)),
        ("Iter 10: Train loss nan, Learning Rate 1.000e-05", LossRecord(10, "train", None, "diverged", 1e-5)),
        ("Iter 10: Val loss -inf, Val took 1.000s", LossRecord(10, "val", None, "diverged")),
        ("Iter 7: Train loss 1e999", LossRecord(7, "train", None, "diverged")),
        ("Iter 7: Train loss -0.250", LossRecord(7, "train", -0.25)),
        ("     5    3.867 ▼        7      0.4k",
         LossRecord(5, "train", 3.867, tokens_per_s=7, trained_tokens=400)),
        ("  12000    0.125 ▲    12,345    98765.4k",
         LossRecord(12000, "train", 0.125, tokens_per_s=12345, trained_tokens=98_765_400)),
        ("    10      nan ▲      nan      0.0k", LossRecord(10, "train", None, "diverged", trained_tokens=0)),
        ("    15    val 2.440    29.47s", LossRecord(15, "val", 2.44)),
        ("    15    val   nan    29.47s", LossRecord(15, "val", None, "diverged")),
        ("\x1b[?25l\x1b[2K  \x1b[38;5;244m  15\x1b[0m    \x1b[1;35mval\x1b[0m \x1b[1m2.440\x1b[0m    29.47s",
         LossRecord(15, "val", 2.44)),
        ("\x1b]0;training\x07Iter 15: Val loss 2.440", LossRecord(15, "val", 2.44)),
        # What launchers put before a line: ranks, times, levels.
        ("[rank0]: Iter 20: Train loss 1.750, It/sec 0.500", LossRecord(20, "train", 1.75, iterations_per_s=0.5)),
        ("[1,0]<stdout>:Iter 20: Val loss 1.750, Val took 2.000s", LossRecord(20, "val", 1.75)),
        ("2026-03-01T10:11:12.345Z Iter 20: Train loss 1.750", LossRecord(20, "train", 1.75)),
        ("[rank0]:    15    2.440 ▼        7      0.4k",
         LossRecord(15, "train", 2.44, tokens_per_s=7, trained_tokens=400)),
        ("2026-03-01 10:11:12,345 INFO trainer:   15    2.440 ▲   7      0.4k",
         LossRecord(15, "train", 2.44, tokens_per_s=7, trained_tokens=400)),
        ("10:11:12 [0]    15    val 2.440    29.47s", LossRecord(15, "val", 2.44)),
        # A comma between thousands, as counts and iterations have it.
        ("Iter 2,500: Train loss 1.750, Tokens/sec 1,210.300, Trained Tokens 1,234,567",
         LossRecord(2500, "train", 1.75, tokens_per_s=1210.3, trained_tokens=1_234_567)),
        ("Iter 10: Train loss 1.750, Trained Tokens 4,200", LossRecord(10, "train", 1.75, trained_tokens=4200)),
        ("  2,500    1.750 ▼    1,210    98765.4k",
         LossRecord(2500, "train", 1.75, tokens_per_s=1210, trained_tokens=98_765_400)),
        ("Iter 10: Train loss 1,234.500", LossRecord(10, "train", 1234.5)),
        # A decimal comma, where the line leaves no other reading.
        ("Iter 10: Train loss 2,345, Learning Rate 1,000e-05, It/sec 0,420",
         LossRecord(10, "train", 2.345, learning_rate=1e-5, iterations_per_s=0.42)),
        ("Iter 10: Train loss 2,34", LossRecord(10, "train", 2.34)),
        ("Iter 10: Val loss 0,345, Val took 3,210s", LossRecord(10, "val", 0.345)),
        # Where there are two readings there is no loss.
        ("Iter 10: Train loss 2,345", LossRecord(10, "train", None, "unread")),
        ("Iter 10: Train loss 2,345, It/sec 1,420", LossRecord(10, "train", None, "unread")),
        ("Iter 10: Train loss 2,345, It/sec 0,420, Tokens/sec 1,210.5",
         LossRecord(10, "train", None, "unread", iterations_per_s=0.42, tokens_per_s=1210.5)),
        ("    15    val 2,440    29.47s", LossRecord(15, "val", None, "unread")),
    ],
)  # fmt: skip
def test_every_form_of_line(line: str, expected: LossRecord) -> None:
    assert records(f"{line}\n") == [expected]


@pytest.mark.parametrize(
    "line",
    [
        "",
        BAR,
        "  iter   train_loss     tok/s     tokens",
        "train ██████████ 100% ·    60/60",
        "  save  0000015_adapters.safetensors",
        "Iter 10: Saved adapter weights to adapters/0000010_adapters.safetensors.",
        "Starting training..., iters: 100",
        "Test loss 2.345, Test ppl 10.433.",
        "Trainable parameters: 0.096% (0.129M/134.515M)",
        "Iter 10: Train loss 2.3" + "Calculating loss...",
        "Iter 10: Train loss 2.3.4, It/sec 1",
        "Iter 10: Train loss 2,345.6.7",
        "Iter 1,00: Train loss 2.3",
        "word15    2.440 ▼        7      0.4k",
        "Iter 10: Train loss 0x1F",
        "Iter -1: Train loss 2.3",
        "Iter \u0661\u0660: Train loss 2.3",
        f"Iter {10**10}: Train loss 2.3",
        f"Iter {10**30}: Train loss 2.3",
        "fooIter 10: Train loss 2.3",
        "    15    2.440    29.47s",
        "    15    val 2.440    29.47s and more",
        "    15    2.440 ▼    7    0.4M",
        "Iter 10: Train loss " + "9" * 5000,
        "x" * 5000 + " Iter 10: Train loss 2.3",
    ],
)
def test_what_is_not_exactly_a_loss_is_passed_over(line: str) -> None:
    assert records(f"{line}\n") == []


@pytest.mark.parametrize(
    "figures_text",
    ["Learning Rate nan", "It/sec -1", "Tokens/sec 1e300", "Trained Tokens 1e40", "Peak mem inf GB", "It/sec 1.2.3"],
)
def test_a_figure_out_of_all_bounds_is_left_empty_and_the_loss_kept(figures_text: str) -> None:
    assert records(f"Iter 10: Train loss 2.5, {figures_text}\n") == [LossRecord(10, "train", 2.5)]


def test_two_losses_in_one_line_are_both_read() -> None:
    assert figures("Iter 1: Val loss 2.5, Val took 1.0s " + OLD_TRAIN + "\n") == [
        (1, "val", 2.5, 1),
        (10, "train", 2.345, 1),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_counts_once_its_end_is_there(end: str) -> None:
    parser = TrainingLogParser()
    assert parser.feed(b"Iter 10: Train loss 2.3") == []
    assert parser.feed(b"45") == []
    assert [r.loss for r in parser.feed(end.encode())] == [2.345]
    assert parser.read_bytes == len("Iter 10: Train loss 2.345") + len(end)


def test_progress_bars_that_return_the_carriage_hide_nothing() -> None:
    text = f"\r{BAR}\r{BAR}\rIter 1: Val loss 2.500, Val took 3.0s\n\r{BAR}\rIter 10: Train loss 2.400\r\n"
    assert figures(text) == [(1, "val", 2.5, 1), (10, "train", 2.4, 1)]


def test_a_training_started_anew_is_a_new_attempt() -> None:
    text = "".join(
        f"Iter {iteration}: {kind} loss {loss}\n"
        for iteration, kind, loss in [
            (1, "Val", 2.5),
            (10, "Train", 2.4),
            (20, "Val", 2.3),
            (20, "Train", 2.2),
            (1, "Val", 2.1),  # resumed: it counts from 1 again
            (10, "Train", 2.0),
            (10, "Train", 1.9),  # and again, before anything else was printed
            (20, "Train", 1.8),
        ]
    )
    assert [(iteration, attempt) for iteration, _, _, attempt in figures(text)] == [
        (1, 1),
        (10, 1),
        (20, 1),
        (20, 1),
        (1, 2),
        (10, 2),
        (10, 3),
        (20, 3),
    ]


@pytest.mark.parametrize("run", ["hot", "reasoning"])
def test_growth_byte_by_byte_gives_the_same_as_the_whole(run: str) -> None:
    log = sample(run) * 2
    whole, grown = TrainingLogParser(), TrainingLogParser()
    at_once = whole.feed(log)
    assert [record for i in range(len(log)) for record in grown.feed(log[i : i + 1])] == at_once
    assert (grown.state, grown.read_bytes) == (whole.state, whole.read_bytes)
    assert (whole.state.attempt, whole.read_bytes) == (2, len(log))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", ["\ufeff", ""], ids=["with mark", "without"])
def test_utf_16_is_read_like_utf_8(encoding: str, mark: str) -> None:
    # The box characters hold the byte of a line feed, and of a carriage return.
    text = sample("hot").decode() + "\u250a\u0d0a 😀\r\nIter 70: Train loss 1.250\r\n"
    plain, wide = TrainingLogParser(), TrainingLogParser()
    expected = plain.feed(text.encode())
    log = (mark + text + "Iter 80: Train lo").encode(encoding)
    found = [record for at in range(0, len(log), 7) for record in wide.feed(log[at : at + 7])]
    assert found == expected
    assert found[-1] == LossRecord(70, "train", 1.25)
    assert wide.read_bytes == len((mark + text).encode(encoding))
    resumed = TrainingLogParser(wide.state)
    assert resumed.feed("Iter 80: Train loss 1.125\n".encode(encoding)) == [LossRecord(80, "train", 1.125)]


PIECES = st.sampled_from(
    [
        b"Iter 10: Train loss 2.5, It/sec 0.5\n",
        b"Iter 5: Val loss nan\r",
        "    15    2.440 ▼        7      0.4k\r\n".encode(),
        b"x" * 5000,
        b"\n",
        b"\r",
        b"\xff\x00\x1b[",
        b"\xff\xfe",
        b"\xfe\xff",
        "Iter 30: Train loss 2.25\n".encode("utf-16-le"),
        b"Iter 10: Train lo",
    ]
)


@given(
    st.lists(st.one_of(PIECES, st.binary(max_size=50)), max_size=12).map(b"".join),
    st.lists(st.integers(1, 6000), min_size=1, max_size=8),
)
def test_any_bytes_in_any_portions_give_the_same(log: bytes, sizes: list[int]) -> None:
    whole, portions = TrainingLogParser(), TrainingLogParser()
    at_once = whole.feed(log)
    found, start = [], 0
    while start < len(log):
        size = sizes[start % len(sizes)]
        found += portions.feed(log[start : start + size])
        start += size
    assert found == at_once
    assert (portions.state, portions.read_bytes) == (whole.state, whole.read_bytes)
    resumed = TrainingLogParser(whole.state)
    again = resumed.feed(log[whole.read_bytes :] + b"\nIter 10: Train loss 1.0\n")
    straight = TrainingLogParser()
    assert at_once + again == straight.feed(log + b"\nIter 10: Train loss 1.0\n")


def test_a_line_without_end_takes_no_memory() -> None:
    parser = TrainingLogParser()
    for _ in range(50):
        assert parser.feed(b"x" * 2**20) == []
    assert sys.getsizeof(parser._unfinished) < 10_000
    assert parser.read_bytes == 0
    assert figures_of(parser.feed(b"\nIter 1: Val loss 2.5\n")) == [(1, 2.5)]


def figures_of(found: list[LossRecord]) -> list[tuple[int, float | None]]:
    return [(record.iteration, record.loss) for record in found]


def test_the_log_is_named_by_its_beginning_only() -> None:
    first, longer, other = TrainingLogParser(), TrainingLogParser(), TrainingLogParser()
    first.feed(b"header\nIter 1: Val loss 2.5, Val took 3.1s\n")
    longer.feed(b"header\nIter 1: Val loss 2.5, Val took 3.1s\nIter 10: Train loss 2.4\n")
    other.feed(b"header\nIter 1: Val loss 2.5, Val took 3.2s\n")
    assert first.state.log_id == longer.state.log_id != other.state.log_id != ""
    assert TrainingLogParser().state.log_id == ""


def test_a_line_by_itself() -> None:
    assert parse_line(OLD_TRAIN.encode()) == [OLD_TRAIN_RECORD]
