"""Finding, validating and hashing suites: the built-in ones and those that a user drops into a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ml_pipeline.errors import SuiteError
from ml_pipeline.suites.data_files import DataError
from ml_pipeline.suites.data_probes import DataProbes, data_probes
from ml_pipeline.suites.filters import FILTERED_CHECKS
from ml_pipeline.suites.problems import describe
from ml_pipeline.suites.schema import ProbeFile, RubricFile, SuiteFile
from ml_pipeline.suites.suite import Dimension, Probe, Rubric, Suite
from ml_pipeline.suites.template_schema import TemplateFile
from ml_pipeline.suites.templates import GENERATOR_VERSION, TemplateError, make_probes
from ml_pipeline.suites.work import bounded_work
from ml_pipeline.yaml_file import YamlFile, read_yaml

_BUILT_IN = Path(__file__).parent
_RUBRICS = "rubrics"
_Model = TypeVar("_Model", bound=BaseModel)


def available_suites(folders: Sequence[Path] = ()) -> tuple[str, ...]:
    """Names of all suites that `load_suites` finds, sorted; a suite's name is its file's name without `.yaml`.

    Raises SuiteError when two files bear one name.
    """
    return tuple(sorted(_find([_BUILT_IN, *folders], "suite")))


def load_suites(names: Sequence[str], folders: Sequence[Path] = ()) -> tuple[Suite, ...]:
    """Load suites by name, in the order asked for, with their rubrics.

    `folders` are the user's own and may be missing. A suite is a file `<name>.yaml` in one of them or among the
    built-in ones, a rubric `<name>.yaml` in the subfolder `rubrics`. Files of suites not asked for are not read.

    Raises SuiteError naming every problem of every file asked for, with line, field and remedy.
    """
    places = [_BUILT_IN, *folders]
    suite_files, rubric_files = _find(places, "suite"), _find([place / _RUBRICS for place in places], "rubric")
    suites: list[Suite] = []
    problems: list[str] = []
    for name in dict.fromkeys(names):
        try:
            if name not in suite_files:
                raise SuiteError(_unknown("suite", name, suite_files, places))
            suites.append(_load_suite(suite_files[name], rubric_files))
        except SuiteError as error:
            problems.append(str(error))
    if problems:
        raise SuiteError("\n".join(problems))
    return tuple(suites)


def load_rubrics(names: Sequence[str], folders: Sequence[Path] = ()) -> tuple[Rubric, ...]:
    """Load rubrics by name, in the order asked for, from the subfolder `rubrics` of the built-in suites or of a
    folder of the user's; raises SuiteError naming every problem."""
    places = [place / _RUBRICS for place in (_BUILT_IN, *folders)]
    files = _find(places, "rubric")
    rubrics: list[Rubric] = []
    problems: list[str] = []
    for name in dict.fromkeys(names):
        try:
            if name not in files:
                raise SuiteError(_unknown("rubric", name, files, places))
            rubrics.append(load_rubric(files[name]))
        except SuiteError as error:
            problems.append(str(error))
    if problems:
        raise SuiteError("\n".join(problems))
    return tuple(rubrics)


def load_rubric(path: Path) -> Rubric:
    """Load and hash one rubric file; raises SuiteError naming every problem."""
    file = read_yaml(path)
    content = _validated(RubricFile, file)
    _demand_name_of_file(content.name, file)
    return Rubric(
        name=content.name,
        version=content.version,
        instructions=content.instructions.strip(),
        dimensions=tuple(Dimension(**dimension.model_dump()) for dimension in content.dimensions),
        sha256=_hash(content),
        average=content.average,
    )


def _load_suite(path: Path, rubric_files: dict[str, Path]) -> Suite:
    with bounded_work():
        return _loaded(path, rubric_files)


def _loaded(path: Path, rubric_files: dict[str, Path]) -> Suite:
    file = read_yaml(path)
    content = _validated(SuiteFile, file)
    _demand_name_of_file(content.name, file)
    problems = _probe_problems(content, file)
    made, template_problems = _made_probes(content, file)
    taken, data_problems = _data_probes(content, file)
    probes = (*(_probe(probe) for probe in content.probes), *made, *taken.probes)
    problems += [*template_problems, *data_problems, *_check_problems(content, file, (*made, *taken.probes), probes)]
    if content.rubric is not None and content.rubric not in rubric_files:
        line = file.line(("rubric",))
        problems.append(f"line {line}: {_unknown('rubric', content.rubric, rubric_files, ())}")
    if problems:
        raise SuiteError.from_problems(str(path), problems)
    return Suite(
        name=content.name,
        version=content.version,
        kind=content.kind,
        description=content.description.strip(),
        temperature=content.temperature,
        max_tokens=content.max_tokens,
        rubric=load_rubric(rubric_files[content.rubric]) if content.rubric is not None else None,
        probes=probes,
        sha256=_hash(content, taken.probes),
        filters=content.filters,
        samples=content.samples,
        left_out=taken.left_out,
    )


def _data_probes(content: SuiteFile, file: YamlFile) -> tuple[DataProbes, list[str]]:
    """The probes of the data set, and why there are none."""
    none = DataProbes((), ())
    if content.data is None:
        return none, []
    try:
        return data_probes(content.data, file.path.parent, content.kind), []
    except DataError as error:
        return none, [f"line {file.line(('data',))}: data: {error}."]


def _check_problems(
    content: SuiteFile, file: YamlFile, made: Sequence[Probe], probes: Sequence[Probe]
) -> Iterator[str]:
    """Checks that do not go with the rest of the suite; those of probes written out have been held to its filters."""
    types = {str(probe.check["type"]) for probe in made if probe.check is not None}
    if content.filters is not None and (unread := sorted(types - {*FILTERED_CHECKS})):
        yield f"line {file.line(('filters',))}: 'filters' cannot read for checks of type {', '.join(unread)}; drop it."
    if content.rubric is not None and any(probe.scores_choices for probe in probes):
        yield (
            f"line {file.line(('rubric',))}: checks of type 'log_likelihood' leave no answer to judge; drop 'rubric', "
            "or put those probes into a suite of their own."
        )


def _made_probes(content: SuiteFile, file: YamlFile) -> tuple[list[Probe], list[str]]:
    """The probes of the templates, and why some cannot be made."""
    probes: list[Probe] = []
    problems: list[str] = []
    for index, template in enumerate(content.templates):
        where = f"line {file.line(('templates', index, 'id'))}: template {template.id!r}"
        if content.kind != "capability":
            problems.append(f"{where}: templates belong to suites of kind 'capability'; write the probes out.")
            continue
        try:
            probes += make_probes(template, content.seed)
        except TemplateError as error:
            problems.append(f"{where}: {error}.")
    return probes, problems


def _probe(content: ProbeFile) -> Probe:
    return Probe(
        id=content.id,
        category=content.category,
        prompt=content.prompt.strip(),
        system=content.system.strip(),
        check=content.check.model_dump() if content.check is not None else None,
        ground_truth=content.ground_truth.strip(),
        propaganda_markers=tuple(content.propaganda_markers),
        truth_markers=tuple(content.truth_markers),
    )


def _probe_problems(content: SuiteFile, file: YamlFile) -> list[str]:
    """The rules that hold across probes, or between a probe and its suite's kind."""
    problems: list[str] = []
    first_line: dict[str, int] = {}
    every: list[tuple[str, int, ProbeFile | TemplateFile]] = [
        *(("probes", index, probe) for index, probe in enumerate(content.probes)),
        *(("templates", index, template) for index, template in enumerate(content.templates)),
    ]
    for part, index, probe in every:
        line = file.line((part, index, "id"))
        what = part.removesuffix("s")
        where = f"line {line}: {what} {probe.id!r}"
        if probe.id in first_line:
            problems.append(f"{where}: this id is taken by the one on line {first_line[probe.id]}; ids are unique.")
        first_line.setdefault(probe.id, line)
        if probe.category == "overall":
            problems.append(f"{where}: the category 'overall' is kept for the sum of all; choose another name.")
        if isinstance(probe, TemplateFile):
            continue
        if content.kind == "capability":
            if probe.check is None:
                problems.append(f"{where}: a capability probe needs the field 'check'.")
            for name in ("ground_truth", "propaganda_markers", "truth_markers"):
                if getattr(probe, name):
                    problems.append(f"{where}: the field {name!r} belongs to suites of kind 'content'; drop it.")
            if probe.check is not None and content.filters and probe.check.type not in FILTERED_CHECKS:
                problems.append(
                    f"{where}: 'filters' cannot read for a check of type {probe.check.type!r}; "
                    f"use one of: {', '.join(FILTERED_CHECKS)}, or drop 'filters'."
                )
        elif probe.check is not None:
            problems.append(f"{where}: the field 'check' belongs to suites of kind 'capability'; drop it.")
        elif not probe.ground_truth:
            problems.append(f"{where}: a content probe needs the field 'ground_truth' for its judge.")
    if content.filters is not None and content.kind == "content":
        problems.append(f"line {file.line(('filters',))}: 'filters' belongs to suites of kind 'capability'; drop it.")
    if content.kind == "content" and content.rubric is None:
        problems.append("line 1: a suite of kind 'content' needs a 'rubric', for only a judge can score it.")
    return problems


def _find(places: Sequence[Path], what: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    problems: list[str] = []
    for place in dict.fromkeys(places):
        if not place.is_dir():
            continue
        for path in sorted(place.iterdir()):
            if path.suffix not in (".yaml", ".yml") or not path.is_file():
                continue
            if path.stem in found:
                other = found[path.stem]
                owner = "built-in" if other.parent in (_BUILT_IN, _BUILT_IN / _RUBRICS) else f"in {other}"
                problems.append(
                    f"{path}: a {what} named {path.stem!r} is already {owner}; rename the file and its 'name'."
                )
            else:
                found[path.stem] = path
    if problems:
        raise SuiteError("\n".join(problems))
    return found


def _unknown(what: str, name: str, known: dict[str, Path], places: Sequence[Path]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    looked = "; ".join(f"{place}{'' if place.is_dir() else ' (missing)'}" for place in places)
    return f"there is no {what} {name!r}.{hint} Known: {', '.join(sorted(known)) or 'none'}." + (
        f" Looked in: {looked}." if looked else ""
    )


def _validated(model: type[_Model], file: YamlFile) -> _Model:
    if not isinstance(file.content, dict):
        raise SuiteError(f"{file.path}:1: must be a mapping of fields such as 'name: ...', not a list or a text.")
    try:
        return model.model_validate(file.content)
    except ValidationError as error:
        raise SuiteError.from_problems(str(file.path), describe(error, model, file)) from error


def _demand_name_of_file(name: str, file: YamlFile) -> None:
    if name != file.path.stem:
        raise SuiteError(
            f"{file.path}:{file.line(('name',))}: name is {name!r} but the file is {file.path.name!r}; make them agree."
        )


def _hash(content: BaseModel, taken: Sequence[Probe] = ()) -> str:
    """SHA-256 of the content as canonical JSON.

    The description is left out, and so are defaults: neither rewording it nor a field that a later version of this
    program adds may part old scores from new ones. A suite's rubric has a hash of its own: it changes what a judge
    says, never what a check says. Of a data set the probes taken count, wherever it lies.
    """
    data = content.model_dump(mode="json", exclude_defaults=True)
    if isinstance(content, SuiteFile):
        data.pop("description")
        data.pop("rubric", None)
        if content.templates:
            data["generator"] = GENERATOR_VERSION
        if content.data is not None:
            data["data"] = [[one.id, one.category, one.prompt, one.check, one.ground_truth] for one in taken]
    canonical = json.dumps(data, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
