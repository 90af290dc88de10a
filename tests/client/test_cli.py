from __future__ import annotations

import io
import json
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from iguana.cli.app import app
from iguana.v1 import attack_pb2
from tests.client.scripted import Scripted, attack_answer, refuse, serve


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables do not wrap."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(autouse=True)
def server_of_the_environment(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setenv("IGUANA_SERVER", target)


def iguana(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def attack_of(scripted: Scripted) -> attack_pb2.AttackRequest:
    request = scripted.requests[-1]
    assert isinstance(request, attack_pb2.WatchAttackRequest)
    return request.request


def test_classify_prints_a_table_a_picture(cat_file: Path, scripted: Scripted) -> None:
    result = iguana("classify", cat_file, cat_file, "--top-k", "2")
    assert result.exit_code == 0
    assert result.stdout.count("tabby, tabby cat") == 2
    assert "0.7000" in result.stdout
    assert "fox" not in result.stdout
    assert len(scripted.requests) == 1


def test_classify_prints_only_json(cat_file: Path) -> None:
    document = json.loads(iguana("classify", cat_file, "--json").stdout)
    (row,) = document["classifications"]
    assert row["image"] == str(cat_file)
    assert row["top"][0] == {"index": 0, "name": "tabby, tabby cat", "probability": pytest.approx(0.7)}
    assert document["manifest"]["bucket"] == 8


def test_attack_tells_before_and_after_and_writes_the_delivered_bytes(cat_file: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged.png"
    result = iguana(
        "attack", cat_file, "--target", "fox", "--epsilon", "2/255", "--steps", "20", "-o", forged
    )
    assert result.exit_code == 0, result.output
    for text in ("before", "after", "tabby, tabby cat", "common iguana", "Linf 0.00392 (1/255)", "L2 0.2500"):
        assert text in result.stdout
    assert "forward 3   backward 2" in result.stdout
    assert "fooled (ended: steps)" in result.stdout
    with Image.open(cat_file) as clean, Image.open(forged) as delivered:
        np.testing.assert_array_equal(np.asarray(delivered), np.asarray(clean) + np.uint8(1))


def test_the_written_file_is_the_delivered_file(
    cat_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered = cat_file.read_bytes() + b"trailing bytes that no encoder would write"
    monkeypatch.setattr("tests.client.scripted.png", lambda _: delivered)
    iguana("attack", cat_file, "-o", tmp_path / "forged.png")
    assert (tmp_path / "forged.png").read_bytes() == delivered


def test_every_option_reaches_the_request(cat_file: Path, scripted: Scripted) -> None:
    iguana(
        *("attack", cat_file, "--target", "7", "--epsilon", "2/255", "--alpha", "0.5/255", "--steps", "20"),
        *("--restarts", "2", "--random-start", "--seed", "5", "--loss", "dlr", "--stop", "1.5"),
        *("--keep", "last", "--time-limit", "9", "--model", "net"),
    )
    request = attack_of(scripted)
    assert request.goals[0].targeted.target.index == 7
    assert request.pgd == attack_pb2.Pgd(
        epsilon=[2 / 255], alpha=[0.5 / 255], steps=[20], restarts=2, random_start=[True]
    )
    assert (request.seed, request.stop_margin, request.time_limit_s, request.model) == (5, 1.5, 9, "net")
    assert request.loss == attack_pb2.LOSS_DLR
    assert request.keep == attack_pb2.KEEP_LAST
    assert request.stop_on == attack_pb2.STOP_ON_MARGIN
    iguana("attack", cat_file, "--label", "fox")
    request = attack_of(scripted)
    assert request.goals[0].untargeted.label.name == "fox"
    assert request.stop_on == attack_pb2.STOP_ON_NEVER
    assert request.pgd == attack_pb2.Pgd()


def test_any_parameter_can_be_given_once_or_once_a_picture(cat_file: Path, scripted: Scripted) -> None:
    iguana(
        *(
            "attack",
            cat_file,
            cat_file,
            "--method",
            "forge",
            "--param",
            "start=noise",
            "--param",
            "rate=1/50",
        ),
        *("--param", "steps=3", "--param", "steps=4", "--param", f"reference={cat_file}"),
    )
    request = attack_of(scripted).forge
    assert list(request.start) == [attack_pb2.FORGE_START_NOISE]
    assert list(request.rate) == [np.float32(0.02)]
    assert list(request.steps) == [3, 4]
    assert [image.encoded for image in request.reference] == [cat_file.read_bytes()]
    iguana("attack", cat_file, "--param", "random_start=false")
    assert list(attack_of(scripted).pgd.random_start) == [False]


def test_attack_tells_of_victim_detectors_and_masked_gradients(cat_file: Path, scripted: Scripted) -> None:
    result = iguana("attack", cat_file, "--target", "fox", "--victim", "other", "--evade", "--diagnose")
    request = attack_of(scripted)
    assert (request.victim, request.HasField("evade"), request.diagnose) == ("other", True, True)
    assert "victim fooled: sees common iguana, iguana 0.7000" in result.stdout
    assert "detectors: before passes (p 0.75), after passes (p 0.125)" in result.stdout
    assert "suspicions: noise_wins" in result.stdout
    assert "margin +1.500   loss" in result.stdout


def test_attack_prints_only_json(cat_file: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged.png"
    result = iguana("attack", cat_file, "--target", "fox", "--json", "-o", forged)
    assert result.stderr == ""
    document = json.loads(result.stdout)
    (row,) = document["results"]
    assert (row["image"], row["output"], row["outcome"]) == (str(cat_file), str(forged), "fooled")
    assert row["norms"]["linf"] == pytest.approx(1 / 255)
    assert row["after"]["top"][0]["index"] == 1
    assert document["manifest"]["method"] == "pgd"


def test_a_model_that_holds_is_exit_code_1(cat_file: Path) -> None:
    result = iguana("attack", cat_file)
    assert result.exit_code == 1
    assert "held" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--epsilon", "8/0"], "8/0"),
        (["--epsilon", "big"], "big"),
        (["--method", "pdg"], "no attack 'pdg'; did you mean"),
        (["--param", "decay=1"], "pgd has no parameter 'decay'"),
        (["--param", "epsilon"], "--param: want NAME=VALUE, got 'epsilon'"),
        (["--param", "steps=1.5"], "pgd.steps: want a whole number, got '1.5'"),
        (["--param", "random_start=yes"], "pgd.random_start: want true or false, got 'yes'"),
        (["--epsilon", "0.1", "--param", "epsilon=0.2"], "--param: want epsilon once, got --epsilon as well"),
        (["--stop", "soon"], "--stop: want never, success or a lead in logits, got 'soon'"),
        (["--target", "fox", "--label", "cat"], "got both"),
        (["--time-limit", "600"], "time_limit_s: want below the call's timeout_s, 600, got 600"),
        (["-o", "/no/such/folder/x.png"], "--output: want a file in an existing folder"),
        (["--sheet", "/no/such/folder/x.png"], "--sheet: want a file in an existing folder"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    cat_file: Path, scripted: Scripted, arguments: list[str], text: str
) -> None:
    result = iguana("attack", cat_file, *arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert not scripted.requests


def test_a_missing_file_is_exit_code_2() -> None:
    result = iguana("classify", "/no/such/cat.png")
    assert result.exit_code == 2
    assert "cat.png" in result.stderr


def test_the_servers_refusal_is_told_whole(cat_file: Path, scripted: Scripted) -> None:
    text = "goals[0].targeted.target: want a class of net, got 'iguna'; near: common iguana"
    refused = refuse(
        grpc.StatusCode.INVALID_ARGUMENT,
        "1 field is wrong",
        reason="ERROR_REASON_INVALID_FIELD",
        violations={"goals[0].targeted.target": text},
    )
    scripted.acts.append(refused)
    result = iguana("attack", cat_file, "--target", "iguna")
    assert result.exit_code == 2
    assert text in result.stderr
    scripted.acts.append(refused)
    document = json.loads(iguana("attack", cat_file, "--target", "iguna", "--json").stdout)
    assert document["error"]["code"] == "INVALID_ARGUMENT"
    assert document["error"]["reason"] == "invalid_field"
    assert document["error"]["violations"] == [{"field": "goals[0].targeted.target", "description": text}]


def test_an_unknown_model_is_exit_code_2(cat_file: Path, scripted: Scripted) -> None:
    scripted.acts.append(refuse(grpc.StatusCode.NOT_FOUND, "model: no 'nett' (close: net)"))
    result = iguana("classify", cat_file, "--model", "nett")
    assert result.exit_code == 2
    assert "close: net" in result.stderr


def test_an_unreachable_server_is_exit_code_3(cat_file: Path) -> None:
    server, target = serve(Scripted())
    server.stop(0).wait()
    result = iguana("classify", cat_file, "--server", target)
    assert result.exit_code == 3
    assert "Unavailable" in result.stderr


def test_a_defect_of_the_server_is_exit_code_3(cat_file: Path, scripted: Scripted) -> None:
    scripted.acts.append(refuse(grpc.StatusCode.INTERNAL, "defect 1a2b"))
    result = iguana("attack", cat_file)
    assert result.exit_code == 3
    assert "defect 1a2b" in result.stderr


def test_several_forgeries_go_into_a_folder(cat_file: Path, tmp_path: Path, scripted: Scripted) -> None:
    dog_file = tmp_path / "dog.png"
    dog_file.write_bytes(cat_file.read_bytes())
    folder = tmp_path / "out"
    assert "existing folder for 2 images" in iguana("attack", cat_file, dog_file, "-o", folder).stderr
    folder.mkdir()
    assert "images of different names" in iguana("attack", cat_file, cat_file, "-o", folder).stderr
    assert "a file for one image" in iguana("attack", cat_file, "-o", folder).stderr
    assert not scripted.requests
    iguana("attack", cat_file, dog_file, "-o", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["cat-forged.png", "dog-forged.png"]


def test_the_sheet_shows_each_picture_three_times(cat_file: Path, tmp_path: Path, scripted: Scripted) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    iguana("attack", cat_file, "--target", "fox", "--sheet", one)
    assert attack_of(scripted).return_clean
    iguana("attack", cat_file, cat_file, "--target", "fox", "--sheet", two)
    with Image.open(io.BytesIO(one.read_bytes())) as single, Image.open(two) as double:
        assert single.mode == "RGB"
        assert single.width > 3 * 384
        assert double.width == single.width
        assert double.height > 1.8 * single.height


@pytest.mark.parametrize("failing", ["one", "all"])
def test_a_failed_sample_is_exit_code_3_and_not_drawn(
    cat_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def failed(request: attack_pb2.AttackRequest) -> attack_pb2.AttackResponse:
        answer = attack_answer(request)
        for result in answer.results[: 1 if failing == "one" else 2]:
            result.CopyFrom(
                attack_pb2.AttackResult(
                    sample=result.sample,
                    outcome=attack_pb2.OUTCOME_FAILED,
                    ended=attack_pb2.ENDED_NON_FINITE,
                    reason="the logits are not finite",
                )
            )
        return answer

    monkeypatch.setattr("tests.client.scripted.attack_answer", failed)
    sheet = tmp_path / "sheet.png"
    result = iguana("attack", cat_file, cat_file, "--target", "fox", "--sheet", sheet)
    assert result.exit_code == 3
    assert "the logits are not finite" in result.stdout
    assert sheet.exists() == (f"wrote {sheet}" in result.stdout) == (failing == "one")


def test_models_and_attacks_are_listed_as_served() -> None:
    models = iguana("models")
    assert "4x4x3" in models.stdout
    attacks = iguana("attacks").stdout
    for text in ("Madry", "epsilon", "0 to 1", "8/255", "radius", "image, noise", "noise"):
        assert text in attacks
    assert json.loads(iguana("models", "--json").stdout)["limits"]["max_images"] == 64
    (attack,) = json.loads(iguana("attacks", "--json").stdout)["attacks"]
    assert attack["parameters"][1]["choices"] == ["image", "noise"]


def test_health_is_an_exit_code(scripted: Scripted) -> None:
    assert (iguana("health").exit_code, iguana("health").stdout) == (0, "serving\n")
    scripted.serving = False
    result = iguana("health", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"serving": False})
    assert iguana("health", "--service", "unknown").exit_code == 1


@pytest.mark.parametrize("command", ["", "classify", "attack", "models", "attacks", "health"])
def test_help_is_there(command: str) -> None:
    result = iguana(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout
