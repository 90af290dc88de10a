"""A setting has one name, four sources and one meaning."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic.fields import FieldInfo

from iguana_server.config import Config, fields
from iguana_server.errors import InvalidArgument

FIELDS = [(f"{group}.{name}", field) for group, name, field in fields()]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("IGUANA_"):
            monkeypatch.delenv(name)


def _file(folder: Path, text: str) -> Path:
    path = folder / "iguana.toml"
    path.write_text(text)
    return path


def _refusal(file: Path | None = None, flags: dict[str, object] | None = None) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        Config.load(file, flags)
    return dict(caught.value.violations)


def test_defaults_work_as_they_are() -> None:
    config = Config.load()
    assert config == Config()
    assert (config.server.host, config.server.port, config.server.metrics_port) == ("127.0.0.1", 7777, 9777)
    assert config.limits.max_image_bytes < config.server.max_message_bytes == 8 * 2**20


def test_flags_win_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _file(tmp_path, "[server]\nport = 1\nmetrics_port = 1\ndrain_s = 1")
    monkeypatch.setenv("IGUANA_SERVER__PORT", "2")
    monkeypatch.setenv("IGUANA_SERVER__METRICS_PORT", "2")
    server = Config.load(file, {"server.port": 3}).server
    assert (server.port, server.metrics_port, server.drain_s, server.host) == (3, 2, 1, "127.0.0.1")


def test_lists_come_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config.load(_file(tmp_path, '[models]\nload = ["a"]')).models.load == ["a"]
    monkeypatch.setenv("IGUANA_MODELS__LOAD", '["b", "c"]')
    assert Config.load().models.load == ["b", "c"]
    assert Config.load(flags={"models.load": ["d"]}).models.load == ["d"]


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("[server]\nprot = 1", "server.prot", "server.port"),
        ("[sever]\nport = 1", "sever", "server"),
        ("port = 1", "port", "unknown"),
    ],
)
def test_unknown_key_is_refused_with_near_names(tmp_path: Path, text: str, key: str, near: str) -> None:
    refusal = _refusal(_file(tmp_path, text))
    assert list(refusal) == [key]
    assert near in refusal[key]


@pytest.mark.parametrize("name", ["IGUANA_SERVER__PROT", "IGUANA_PORT", "IGUANA_SERVER_PORT"])
def test_unknown_variable_is_refused_with_near_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    refusal = _refusal()
    assert list(refusal) == [name]
    assert "IGUANA_SERVER__PORT" in refusal[name]


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IGUANA_CACHE", "IGUANA_CUDA", "IGUANA_CUDA_ARCHS", "IGUANA_SERVER"):
        monkeypatch.setenv(name, "localhost:7777")
    assert Config.load() == Config()


def test_every_fault_is_said_by_its_key_with_what_was_wanted_and_got() -> None:
    refusal = _refusal(flags={"server.port": 70000, "limits.max_images": 0, "telemetry.log_format": "xml"})
    assert refusal["server.port"] == "want less than or equal to 65535, got 70000"
    assert refusal["limits.max_images"] == "want greater than or equal to 1, got 0"
    assert _refusal(flags={"models.device": "tpu"})["models.device"].startswith(
        "want text of the form '^(cpu|cuda"
    )
    assert refusal["telemetry.log_format"] == "want 'json' or 'text', got 'xml'"


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ({"limits.max_image_bytes": 9 * 2**20}, "limits.max_image_bytes"),
        ({"limits.default_deadline_s": 20, "limits.max_deadline_s": 10}, "limits.default_deadline_s"),
        ({"server.drain_s": 1, "server.drain_notice_s": 2}, "server.drain_notice_s"),
        ({"models.load": []}, "models.load"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags: dict[str, object], key: str) -> None:
    assert list(_refusal(flags=flags)) == [key]


def test_bad_files_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(_refusal(tmp_path / "none.toml")) == ["config"]
    broken = _file(tmp_path, "[server\n")
    assert list(_refusal(broken)) == [str(broken)]
    monkeypatch.setenv("IGUANA_MODELS__LOAD", "a,b")
    assert "JSON" in _refusal()["environment"]


def test_settings_cannot_be_changed() -> None:
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 1


@pytest.mark.parametrize(("key", "field"), FIELDS)
def test_every_setting_is_described_and_bounded(key: str, field: FieldInfo) -> None:
    assert field.description, key
    if field.annotation in {int, float}:
        assert field.metadata, key


LIMITS = [(key, field) for key, field in FIELDS if key.startswith("limits.") and field.annotation is int]


@pytest.mark.parametrize(("key", "field"), LIMITS)
def test_every_limit_has_a_ceiling(key: str, field: FieldInfo) -> None:
    highest = min(bound.le for bound in field.metadata if hasattr(bound, "le"))
    assert "less than or equal" in _refusal(flags={key: highest + 1})[key]


def test_pictures_larger_than_the_decoder_takes_are_no_limit() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    highest = min(bound.le for bound in dict(FIELDS)["limits.max_pixels"].metadata if hasattr(bound, "le"))
    assert highest < 2 * Image.MAX_IMAGE_PIXELS  # from where on Pillow refuses


@settings(max_examples=50, deadline=None)
@given(
    host=st.text(min_size=1),
    models=st.lists(st.text(), min_size=1),
    manifests=st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))),
    drain_s=st.floats(1, 3600),
    reflection=st.booleans(),
    endpoint=st.none() | st.just("http://localhost:4317"),
)
def test_printed_settings_are_a_file_that_means_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    host: str,
    models: list[str],
    manifests: list[str],
    drain_s: float,
    reflection: bool,
    endpoint: str | None,
) -> None:
    flags: dict[str, object] = {
        "server.host": host,
        "server.drain_s": drain_s,
        "server.reflection": reflection,
        "models.load": models,
        "models.manifests": manifests,
        "telemetry.otlp_endpoint": endpoint,
    }
    config = Config.load(flags=flags)
    text = config.to_toml()
    assert Config.load(_file(tmp_path_factory.mktemp("c"), text)) == config
    printed = {f"{group}.{name}" for group, table in tomllib.loads(text).items() for name in table}
    assert printed | {"telemetry.otlp_endpoint"} == {key for key, _ in FIELDS}
