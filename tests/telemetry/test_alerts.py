"""The alert rules fire when they should, and the dashboard asks for metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from iguana_server.config import Telemetry as Settings
from iguana_server.telemetry import Telemetry
from tests.telemetry.promtool import FOLDER, promtool

ALERTS = re.findall(r"- alert: (\w+)", (FOLDER / "alerts.yaml").read_text())
PANELS = json.loads((FOLDER / "dashboard.json").read_text())["panels"]


def _asked(text: str) -> set[str]:
    return set(re.findall(r"\b(?:iguana|process)_[a-z0-9_]+", text))


def _known() -> set[str]:
    telemetry = Telemetry(Settings(), methods=["m"])
    return {
        name
        for family in telemetry.registry.collect()
        for end in ("", "_total", "_bucket", "_count", "_sum")
        for name in [family.name + end]
    }


def test_rules_and_scrape_are_sound() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yaml")
    promtool("check", "config", "prometheus.yaml")


def test_alerts_fire_and_are_silent_as_they_should() -> None:
    promtool("test", "rules", "alerts_test.yaml")


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_has_a_firing_and_a_silent_test(alert: str) -> None:
    tests = (FOLDER / "alerts_test.yaml").read_text()
    assert f"name: {alert} fires\n" in tests
    assert f"name: {alert} is silent\n" in tests


def test_rules_ask_for_metrics_that_exist() -> None:
    assert _asked((FOLDER / "alerts.yaml").read_text()) <= _known()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_asks_for_metrics_that_exist(panel: dict[str, list[dict[str, str]]]) -> None:
    for target in panel["targets"]:
        assert _asked(target["expr"])
        assert _asked(target["expr"]) <= _known()


def test_panels_are_sound_queries(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    rules = [
        {"record": f"panel:{n}", "expr": query.replace("$__rate_interval", "1m").replace("$job", "iguana")}
        for n, query in enumerate(queries)
    ]
    (tmp_path / "panels.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", "panels.yaml", cwd=tmp_path)
