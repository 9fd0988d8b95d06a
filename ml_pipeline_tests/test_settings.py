"""Settings: every mistake at once, each with its place; the environment overrides; the shipped file is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_pipeline.backend_settings import LlamaCppSettings, MlxServerSettings
from ml_pipeline.base_models import backend_settings, described, gguf_path
from ml_pipeline.errors import SettingsError
from ml_pipeline.evaluation.ask import suite_options, suite_samples
from ml_pipeline.resources import suites_of
from ml_pipeline.settings_file import load_settings
from ml_pipeline.source_settings import FsspecSource, LocalSource, SshSource
from ml_pipeline.suites import Suite, load_suites

SHIPPED = Path(__file__).parents[1] / "pipeline.yaml"
GOOD = """
sources: {mac: {type: local, path: runs}}
base_models: {tiny: {gguf: tiny.gguf}}
families: [{prefix: t, model: tiny, short: T}]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, GOOD), environ={})
    source = settings.sources["mac"]
    assert isinstance(source, LocalSource)
    assert settings.path(source.path) == tmp_path / "runs"
    assert settings.duckdb_path == tmp_path / "data" / "scores.duckdb"


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    environ = {"ML_PIPELINE__BACKEND__SEQUENCES": "3", "ML_PIPELINE__DATA_DIR": "/elsewhere"}
    settings = load_settings(write(tmp_path, GOOD), environ=environ)
    assert isinstance(settings.backend, LlamaCppSettings)
    assert settings.backend.sequences == 3
    assert settings.parquet_path == Path("/elsewhere/parquet")


def test_every_mistake_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    text = """
sources: {mac: {type: local, pth: runs}, base: {type: local, path: x}}
base_models: {tiny: {gguf: tiny.gguf}}
families: [{prefix: t, model: tny, short: T}]
backend: {sequences: many}
jugde: {backend: none}
stores: {influx: {url: "ftp://x"}}
"""
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text), environ={})
    message = str(caught.value)
    assert str(tmp_path / "pipeline.yaml") in message
    for part in (
        "sources.mac.path: Field required",
        "sources.mac.pth: unknown setting; did you mean 'path'?",
        "backend.sequences: ",
        "jugde: unknown setting; did you mean 'judge'?",
        "stores.influx.url: ",
    ):
        assert part in message


def test_a_key_that_occurs_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    text = GOOD + "backend: {threads: 2}\nsuites:\n  enabled: [capability]\nbackend:\n  threads: 4\n  threads: 5\n"
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text), environ={})
    assert "line 8: the key 'backend' occurs twice; the first is on line 5" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [("no", "no"), ("off", "off"), ("10:45", "10:45"), ("2026-03-01", "2026-03-01"), ("0x1f", "0x1f"), ("'7'", "7")],
)
def test_texts_are_texts_in_the_file_and_in_the_environment(tmp_path: Path, written: str, value: str) -> None:
    """YAML 1.1 would make a truth, a number of seconds, a date and 31 of them."""
    text = GOOD.replace("short: T", f"short: {written}")
    assert load_settings(write(tmp_path, text), environ={}).families[0].short == value
    environ = {"ML_PIPELINE__STORES__INFLUX__ORG": written}
    assert load_settings(write(tmp_path, GOOD), environ=environ).stores.influx.org == value


@pytest.mark.parametrize(("written", "value"), [("yes", True), ("off", False), ("true", True), ("False", False)])
def test_a_switch_may_still_be_any_word_for_on_and_off(tmp_path: Path, written: str, value: bool) -> None:
    text = GOOD + f"stores: {{duckdb_snapshot: {written}}}\n"
    assert load_settings(write(tmp_path, text), environ={}).stores.duckdb_snapshot is value
    environ = {"ML_PIPELINE__STORES__DUCKDB_SNAPSHOT": written}
    assert load_settings(write(tmp_path, GOOD), environ=environ).stores.duckdb_snapshot is value


def test_numbers_with_underscores_and_exponents_are_numbers(tmp_path: Path) -> None:
    text = GOOD + "limits: {cache_bytes: 20_000_000}\nalerts: {timeout_s: 1e1}\n"
    settings = load_settings(write(tmp_path, text), environ={"ML_PIPELINE__LIMITS__ADAPTER_BYTES": "1_000"})
    assert (settings.limits.cache_bytes, settings.limits.adapter_bytes, settings.alerts.timeout_s) == (
        20_000_000,
        1000,
        10,
    )


def test_a_mistake_is_told_with_its_line_or_its_variable(tmp_path: Path) -> None:
    text = GOOD.replace("model: tiny", "model: tny") + "backend:\n  sequences: many\n"
    environ = {"ML_PIPELINE__BACKEND__THREADS": "few", "ml_pipeline__discovery__setle_s": "3"}
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text), environ=environ)
    assert "  - line 6: backend.sequences: " in str(caught.value)
    assert "  - environment variable ML_PIPELINE__BACKEND__THREADS: backend.threads: " in str(caught.value)
    assert "  - environment variable ml_pipeline__discovery__setle_s: discovery.setle_s: unknown" in str(caught.value)
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text.replace("many", "2")), environ={})
    assert "  - line 4: families[0].model: no base model called 'tny'" in str(caught.value)


def test_two_variables_for_one_setting_are_refused(tmp_path: Path) -> None:
    environ = {"ML_PIPELINE__BACKEND__THREADS": "2", "ml_pipeline__backend__threads": "3"}
    with pytest.raises(SettingsError, match="THREADS and ml_pipeline__backend__threads are the same setting"):
        load_settings(write(tmp_path, GOOD), environ=environ)


def test_the_environment_reaches_names_with_large_letters(tmp_path: Path) -> None:
    text = GOOD.replace("mac:", "MacStudio:")
    environ = {"ML_PIPELINE__SOURCES__MACSTUDIO__FILTER": "1b-*"}
    assert load_settings(write(tmp_path, text), environ=environ).sources["MacStudio"].filter == "1b-*"


def test_a_value_of_the_environment_that_is_no_yaml_is_named_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="environment variable ML_PIPELINE__ALERTS__WEBHOOK") as caught:
        load_settings(write(tmp_path, GOOD), environ={"ML_PIPELINE__ALERTS__WEBHOOK": "[https://secret"})
    assert "secret" not in str(caught.value)


def test_a_base_model_may_have_a_backend_of_its_own(tmp_path: Path) -> None:
    text = """
sources: {mac: {type: local, path: runs}}
base_models: {tiny: {gguf: tiny.gguf}, big: {mlx: /models/big, backend: there}}
backends: {there: {type: mlx_server, source: mac}}
"""
    settings = load_settings(write(tmp_path, text), environ={})
    assert isinstance(backend_settings(settings, "tiny"), LlamaCppSettings)
    assert isinstance(backend_settings(settings, "big"), MlxServerSettings)
    assert described(settings, "big") == "/models/big, by mlx_lm.server where the checkpoints are"


def test_a_backend_that_does_not_exist_is_named(tmp_path: Path) -> None:
    text = """
sources: {mac: {type: local, path: runs}}
base_models: {tiny: {gguf: tiny.gguf, backend: ther}}
backend: {type: lama_cpp}
backends: {there: {type: mlx_server, pyton: python3}}
"""
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text), environ={})
    assert "backend.type: no such kind 'lama_cpp'; did you mean 'llama_cpp'?" in str(caught.value)
    assert "backends.there.pyton: unknown setting; did you mean 'python'?" in str(caught.value)
    text = text.replace("lama_cpp", "llama_cpp").replace("pyton: python3", "source: mack")
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text), environ={})
    assert "base_models.tiny.backend: no backend called 'ther' in backends; did you mean 'there'?" in str(caught.value)
    assert "backends.there.source: no source called 'mack'; did you mean 'mac'?" in str(caught.value)


def test_references_between_sections_are_checked(tmp_path: Path) -> None:
    text = GOOD.replace("model: tiny", "model: tinny") + "suites: {generation: {capabilty: {max_tokens: 5}}}\n"
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text), environ={})
    assert "families[0].model: no base model called 'tinny'; did you mean 'tiny'?" in str(caught.value)
    assert "suites.generation.capabilty: not in suites.enabled; did you mean 'capability'?" in str(caught.value)


def test_a_base_model_may_have_token_limits_of_its_own(tmp_path: Path) -> None:
    text = """
sources: {mac: {type: local, path: runs}}
base_models:
  small: {gguf: small.gguf, generation: {capability: {max_tokens: 96}, content: {temperature: 0}}}
  other: {gguf: other.gguf}
suites: {generation: {capability: {samples: 3, max_tokens: 200}}}
"""
    settings = load_settings(write(tmp_path, text), environ={})
    capability, content = load_suites(["capability", "content"])

    def options(model: str, suite: Suite) -> tuple[float, int, int]:
        own = settings.suites_for(model)
        made = suite_options(suite, own)
        return made.temperature, made.max_tokens, suite_samples(suite, own)

    assert options("small", capability) == (0.1, 96, 3)
    assert options("small", content) == (0, 1000, 1)
    assert options("other", capability) == (0.1, 200, 3)
    assert options("other", content) == (content.temperature, 1000, 1)
    assert options("elsewhere", content) == options("other", content)


def test_only_the_sample_model_has_the_samples_token_limits() -> None:
    settings = load_settings(SHIPPED, environ={})
    capability, content = suites_of(settings)
    for name in settings.base_models:
        own = settings.suites_for(name)
        limits = [suite_options(suite, own).max_tokens for suite in (capability, content)]
        assert limits == ([96, 128] if name == "smollm2-135m" else [500, 1000]), name


def test_a_suite_that_a_base_model_names_must_exist_but_not_be_enabled(tmp_path: Path) -> None:
    text = GOOD.replace("tiny: {gguf: tiny.gguf}", "tiny: {gguf: tiny.gguf, generation: {content: {max_tokens: 5}}}")
    text += "suites: {enabled: [capability]}\n"
    assert [suite.name for suite in suites_of(load_settings(write(tmp_path, text), environ={}))] == ["capability"]
    settings = load_settings(write(tmp_path, text.replace("{content: ", "{contend: ")), environ={})
    with pytest.raises(SettingsError) as caught:
        suites_of(settings)
    assert "base_models.tiny.generation.contend: no suite called 'contend'; did you mean 'content'?" in str(
        caught.value
    )


def test_a_source_on_another_machine_needs_little(tmp_path: Path) -> None:
    text = GOOD.replace("{type: local, path: runs}", "{type: ssh, host: mac.example, path: ~/runs}")
    source = load_settings(write(tmp_path, text), environ={}).sources["mac"]
    assert isinstance(source, SshSource)
    assert (source.host, str(source.path), source.accept_new_host_key) == ("mac.example", "runs", False)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{type: ssh, path: runs}", "sources.ssh.host: Field required"),
        ("{type: ssh, host: h, path: runs, prot: 1}", "sources.ssh.prot: unknown setting; did you mean 'port'?"),
        ("{type: ssh, host: h, path: runs, port: 70000}", "sources.ssh.port: "),
        ("{type: ssh, host: -oProxyCommand=x, path: runs}", "sources.ssh.host: "),
        ("{type: ssh, host: h, path: ~other/runs}", "sources.ssh.path: must be an absolute path"),
        ("{type: ssh, host: h, path: runs, password: secret}", "sources.ssh.password: unknown setting"),
        ("{type: shh, host: h, path: runs}", "sources.ssh.type: no such kind 'shh'; did you mean 'ssh'?"),
        ("{path: runs}", "sources.ssh: "),
    ],
)
def test_a_mistake_in_a_source_is_named_with_its_place(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, GOOD.replace("mac: {type: local, path: runs}", f"ssh: {source}")), environ={})
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "just words"])
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"pipeline\.yaml"):
        load_settings(write(tmp_path, text), environ={})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("tiny", r"base_models\.tiny\.gguf: there is no file .*tiny\.gguf"),
        ("tin", "no such base model; did you mean 'tiny'"),
    ],
)
def test_a_missing_base_model_says_how_to_mend_it(tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        gguf_path(load_settings(write(tmp_path, GOOD), environ={}), model)


def test_a_base_model_of_a_package_that_is_not_installed_names_the_command(tmp_path: Path) -> None:
    text = GOOD.replace("gguf: tiny.gguf", "gguf: {package: no_such_package, file: x.gguf}")
    with pytest.raises(SettingsError, match="pip install no-such-package"):
        gguf_path(load_settings(write(tmp_path, text), environ={}), "tiny")


def test_the_token_comes_from_the_environment_or_a_file_and_is_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("from-file\n")
    settings = load_settings(
        write(tmp_path, GOOD), environ={"ML_PIPELINE__STORES__INFLUX__TOKEN_FILE": str(tmp_path / "token")}
    )
    monkeypatch.delenv("INFLUX_TOKEN", raising=False)
    assert settings.stores.influx.token() == "from-file"
    monkeypatch.setenv("INFLUX_TOKEN", "from-environment")
    assert settings.stores.influx.token() == "from-environment"
    assert "from-" not in repr(settings)


def test_the_shipped_settings_are_valid_and_their_sample_folder_is_named() -> None:
    settings = load_settings(SHIPPED, environ={})
    source = settings.sources["samples"]
    assert isinstance(source, LocalSource)
    assert settings.path(source.path) == SHIPPED.parent / "data" / "sample" / "checkpoints"


def test_a_source_is_of_the_kind_that_its_type_says(tmp_path: Path) -> None:
    text = GOOD.replace("}\nbase", ", cloud: {type: fsspec, url: 's3://bucket/runs', options: {anon: true}}}\nbase", 1)
    source = load_settings(write(tmp_path, text), environ={}).sources["cloud"]
    assert isinstance(source, FsspecSource)
    assert (source.url, source.options, source.filter) == ("s3://bucket/runs", {"anon": True}, "*")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{type: fsspec, url: bucket/runs}", "sources.mac.url: "),
        ("{type: fsspec, url: 's3://b', path: x}", "sources.mac.path: unknown setting"),
        ("{type: ftp, path: x}", "sources.mac.type: no such kind 'ftp'"),
        ("{path: x}", "sources.mac: .*type"),
    ],
)
def test_a_source_that_cannot_be_is_told_with_its_place(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(write(tmp_path, GOOD.replace("{type: local, path: runs}", source)), environ={})


@pytest.mark.parametrize("webhook", ["ftp://hooks.example/T0SECRET", "[T0SECRET]", "{T0SECRET: 1}"])
def test_a_webhook_that_cannot_be_used_is_named_and_never_shown(tmp_path: Path, webhook: str) -> None:
    with pytest.raises(SettingsError, match=r"alerts\.webhook: ") as caught:
        load_settings(write(tmp_path, GOOD), environ={"ML_PIPELINE__ALERTS__WEBHOOK": webhook})
    assert "SECRET" not in str(caught.value)


def test_a_webhook_is_read_from_the_environment_and_shown_nowhere(tmp_path: Path) -> None:
    address = "https://hooks.example/T0SECRET"
    settings = load_settings(write(tmp_path, GOOD), environ={"ML_PIPELINE__ALERTS__WEBHOOK": address})
    assert settings.alerts.address == address
    assert "SECRET" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()
    assert load_settings(write(tmp_path, GOOD), environ={}).alerts.address == ""
