import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.errors import SuiteError
from ml_pipeline.yaml_file import MAX_FILE_BYTES, read_yaml, read_yaml_text


def read(folder: Path, content: str | bytes) -> object:
    path = folder / "file.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_yaml(path).content


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("10:45", "10:45"),
        ("2025-02-15", "2025-02-15"),
        ("0o17", "0o17"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("12.15.1", "12.15.1"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("", None),
        ("~", None),
        ("-7", -7),
        ("2.5", 2.5),
        ("1e3", 1000.0),
        ("'5'", "5"),
        ('"a\\nb"', "a\nb"),
        ("🙂", "🙂"),
    ],
)
def test_scalars_follow_the_core_schema(tmp_path: Path, written: str, read_as: object) -> None:
    content = read(tmp_path, f"key: {written}\n")
    assert content == {"key": read_as}
    assert isinstance(content, dict)
    assert type(content["key"]) is type(read_as)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: [1, 2\nb: 3\n", r"file.yaml:2:\d+: not YAML"),
        ("a: 1\n\tb: 2\n", r"file.yaml:2:1: not YAML: found"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' occurs twice; the first is on line 1"),
        ("a: &x [1]\nb: *x\n", r"file.yaml:2: YAML aliases \(\*x\) are not taken"),
        (
            "a: !!python/object:os.system x\n",
            "line 1: YAML tag 'tag:yaml.org,2002:python/object:os.system' is not taken",
        ),
        ("? [1, 2]\n: 3\n", "line 1: a key must be plain text"),
        ("a: 1\n---\nb: 2\n", "file.yaml:2:1: not YAML: but found another document"),
        (b"a: 1\nb: \xff\n", "file.yaml:2: not UTF-8"),
        (b"a: \x00\n", "not YAML"),
        ("[" * 100_000, "nested deeper than 50 levels"),
        (b"a" * (MAX_FILE_BYTES + 1), "larger than 2,000,000 bytes"),
    ],
    ids=[
        "empty",
        "comment",
        "unclosed",
        "tab",
        "twice",
        "alias",
        "tag",
        "key",
        "documents",
        "utf8",
        "nul",
        "deep",
        "large",
    ],
)
def test_what_is_refused_and_where(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("text", "value"), [("no", "no"), ("10:45", "10:45"), ("4", 4), ("[a, 2]", ["a", 2]), (" ", None)]
)
def test_a_single_value_is_read_as_a_file_is(text: str, value: object) -> None:
    assert read_yaml_text("environment variable X", text, SuiteError) == value


def test_what_a_single_value_may_not_be() -> None:
    with pytest.raises(SuiteError, match=r"environment variable X:[0-9:]+ not YAML"):
        read_yaml_text("environment variable X", "[1, 2", SuiteError)
    with pytest.raises(SuiteError, match="environment variable X: 1 problem\n  - line 1: the key 'a' occurs twice"):
        read_yaml_text("environment variable X", "{a: 1, a: 2}", SuiteError)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n") == {"a": 1}


def test_lines_of_nested_values_and_of_their_parents(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: 1\nb:\n  - c: 2\n    d:\n      e: 3\n")
    file = read_yaml(path)
    assert file.line(("b", 0, "d", "e")) == 5
    assert file.line(("b", 0, "missing")) == 3
    assert file.line(()) == 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}'\"&*!|>#% \n\t", max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(SuiteError):
        assert read_yaml(path).line(()) >= 1
