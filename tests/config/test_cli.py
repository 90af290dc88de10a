"""The command line takes every setting, and says what is wrong in a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iguana_server.cli import app
from iguana_server.config import Config, fields

RUNNER = CliRunner()
KEYS = [f"{group}.{name}" for group, name, _ in fields()]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_help_tells_every_setting_with_its_variable() -> None:
    said = RUNNER.invoke(app, ["serve", "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"}).output
    for key in KEYS:
        assert f"--{key}" in said
        assert "IGUANA_" + key.replace(".", "__").upper() in said
    assert "Default: all cores" in said
    assert "Undefined" not in said


def test_config_prints_what_the_flags_say() -> None:
    done = RUNNER.invoke(
        app,
        [
            "config",
            "--server.port",
            "1",
            "--no-server.reflection",
            "--models.load",
            "a",
            "--models.load",
            "b",
        ],
    )
    assert done.exit_code == 0
    want = Config.load(flags={"server.port": 1, "server.reflection": False, "models.load": ["a", "b"]})
    assert done.output == want.to_toml()


def test_none_empties_a_list() -> None:
    Path("iguana.toml").write_text('[models]\nmanifests = ["other.toml"]')
    flags = ["--models.load", "none", "--models.manifests", "my.toml"]
    said = RUNNER.invoke(app, ["config", *flags]).output
    assert "\nload = []\n" in said
    assert '\nmanifests = ["my.toml"]\n' in said
    assert "\nmanifests = []\n" in RUNNER.invoke(app, ["config", "--models.manifests", "none"]).output
    nothing = RUNNER.invoke(app, ["config", "--models.load", "none", "--models.manifests", "none"])
    assert (nothing.exit_code, nothing.stderr[:12]) == (2, "models.load:")


def test_file_in_the_folder_is_read_and_another_can_be_named() -> None:
    Path("iguana.toml").write_text("[server]\nport = 11")
    Path("other.toml").write_text("[server]\nport = 12")
    assert "\nport = 11\n" in RUNNER.invoke(app, ["config"]).output
    assert "\nport = 12\n" in RUNNER.invoke(app, ["config", "--config", "other.toml"]).output


def test_faults_are_lines_on_stderr_and_exit_2() -> None:
    done = RUNNER.invoke(app, ["serve", "--server.port", "70000", "--limits.max_images", "0"])
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "server.port: want less than or equal to 65535, got 70000",
        "limits.max_images: want greater than or equal to 1, got 0",
    ]


@pytest.mark.parametrize("arguments", [["--help"], ["config"]])
def test_module_runs_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['iguana-server', *{arguments!r}]\n"
        "try: runpy.run_module('iguana_server', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    env = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True)
