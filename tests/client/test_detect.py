"""Detections and guards, as both clients and the command line tell them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from iguana import (
    AsyncClient,
    Calibration,
    Client,
    Detections,
    Detector,
    InvalidArgument,
    Mark,
    Refusal,
    Verdict,
)
from iguana.cli.app import app
from iguana.request import classify_request, detect_request
from iguana.v1 import classify_pb2, detect_pb2
from tests.client.scripted import Scripted


def iguana(target: str, *arguments: str | Path) -> Result:
    words = [*map(str, arguments), "--server", target]
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, words, catch_exceptions=False)


def test_detect_answers_in_order_with_its_manifest(client: Client, scripted: Scripted, cat: bytes) -> None:
    answer = client.detect([cat, cat], model="net", detectors=["lid"], false_positive_rate=0.25, top_k=1)
    mark = Mark("lid", 0.25, 0.5, False, 0.125)
    assert answer[0].verdict == Verdict(False, 0.5, 0.25, (mark,))
    assert [d.verdict.flagged for d in answer] == [False, True]
    assert answer[0].classification.top[0].name == "tabby, tabby cat"
    assert answer.manifest.model == "net"
    assert answer.manifest.calibration_sha256 == "cd" * 32
    request = scripted.requests[-1]
    assert isinstance(request, detect_pb2.DetectRequest)
    assert (list(request.guard.detectors), request.guard.false_positive_rate, request.top_k) == (
        ["lid"],
        0.25,
        1,
    )


async def test_detect_of_the_async_client_is_the_same(target: str, client: Client, cat: bytes) -> None:
    async with AsyncClient(target) as other:
        assert await other.detect([cat, cat]) == client.detect([cat, cat])
        found = {
            i: answer
            async for i, answer in other.stream_detect([("a", {"images": cat}), ("bad", {"images": cat})])
        }
    assert isinstance(found["a"], Detections)
    assert isinstance(found["bad"], InvalidArgument)


def test_pipeline_of_detections(client: Client, cat: bytes) -> None:
    found = dict(
        client.stream_detect([("a", {"images": cat, "detectors": ["lid"]}), ("bad", {"images": cat})])
    )
    assert isinstance(found["a"], Detections)
    assert found["a"][0].verdict.marks[0].detector == "lid"
    assert isinstance(found["bad"], InvalidArgument)


def test_guard_is_sent_and_its_refusal_told(client: Client, scripted: Scripted, cat: bytes) -> None:
    (refused,) = client.classify(cat, guard=["squeeze"], false_positive_rate=0.125)
    assert refused.top == ()
    assert isinstance(refused.refusal, Refusal)
    assert refused.refusal.reason.startswith("squeeze: want")
    assert refused.refusal.verdict.flagged
    request = scripted.requests[-1]
    assert isinstance(request, classify_pb2.ClassifyRequest)
    assert list(request.guard.detectors) == ["squeeze"]
    assert request.guard.false_positive_rate == 0.125
    assert client.classify(cat)[0].refusal is None
    assert not classify_request(cat).HasField("guard")
    assert classify_request(cat, guard=True).HasField("guard")


def test_wrong_arguments_are_refused_here(cat: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"false_positive_rate: want 0 without guard, got 0\.1"):
        classify_request(cat, false_positive_rate=0.1)
    with pytest.raises(InvalidArgument, match="detectors: want a list of names, got 'lid'"):
        detect_request(cat, detectors="lid")


def test_models_tell_their_detectors(client: Client) -> None:
    (model,) = client.models()
    assert model.detectors == (Detector("squeeze", "fewer bits", 0.5, 2),)
    assert model.calibration == Calibration(99, "waves", 0.05, 0.01, "cd")


def test_command_tells_and_exits_by_the_verdict(target: str, cat_file: Path) -> None:
    clean = iguana(target, "detect", cat_file)
    assert clean.exit_code == 0
    assert "passed" in clean.stdout
    assert "squeeze" in clean.stdout
    forged = iguana(target, "detect", cat_file, cat_file, "--detector", "lid", "--fpr", "0.2")
    assert forged.exit_code == 1
    assert "flagged (p 0.01 at 0.2)" in forged.stdout
    assert "squeeze" not in forged.stdout


def test_command_prints_only_json(target: str, cat_file: Path) -> None:
    document = json.loads(iguana(target, "detect", cat_file, "--json").stdout)
    (row,) = document["detections"]
    assert row["image"] == str(cat_file)
    assert row["verdict"]["marks"][0]["detector"] == "squeeze"
    assert document["manifest"]["calibration_sha256"] == "cd" * 32


def test_guarded_classification_is_told_as_refused(target: str, cat_file: Path) -> None:
    result = iguana(target, "classify", cat_file, "--guard")
    assert result.exit_code == 0
    assert "refused: squeeze: want a score of at most 0.5, got 1.5" in result.stdout
