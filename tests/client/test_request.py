from __future__ import annotations

from typing import Any, get_type_hints

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor

from iguana import AttackItem, AttackOptions, Evade, InvalidArgument, UnknownParameter
from iguana.choice import words
from iguana.parameter import METHODS, fields_of
from iguana.request import attack_request, check_time_limit, classify_request
from iguana.v1 import attack_pb2, classify_pb2, image_pb2, manifest_pb2

PICTURE = np.zeros((2, 2, 3), np.uint8)
EVERY_PARAMETER = [(method, name) for method in METHODS for name in fields_of(method)]


def sample_of(field: FieldDescriptor) -> tuple[Any, Any]:
    """A value as a caller gives it, and as it stands in the message."""
    if field.message_type is not None:
        return PICTURE, image_pb2.Image(
            tensor=image_pb2.Tensor(data=bytes(12), dtype=image_pb2.DTYPE_UINT8, shape=[2, 2, 3])
        )
    if field.enum_type is not None:
        word, number = list(words(field.enum_type).items())[-1]
        return word, number
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True, True
    return (7, 7) if field.type == FieldDescriptor.TYPE_UINT32 else (0.25, 0.25)


@pytest.mark.parametrize(("method", "name"), EVERY_PARAMETER)
def test_every_parameter_is_reachable_once_or_once_a_sample(method: str, name: str) -> None:
    field = fields_of(method)[name]
    given, wired = sample_of(field)
    columns: dict[str, Any] = {name: [given, given]}
    once = getattr(attack_request(PICTURE, method, **{name: given}), method)
    assert once.ListFields() == [(field, [wired] if field.is_repeated else wired)]
    if field.is_repeated:
        each = getattr(attack_request([PICTURE] * 2, method, **columns), method)
        assert list(getattr(each, name)) == [wired, wired]


@pytest.mark.parametrize(("method", "name"), EVERY_PARAMETER)
def test_options_declare_every_parameter(method: str, name: str) -> None:
    assert name in get_type_hints(AttackOptions), method
    assert name in get_type_hints(AttackItem)


def test_every_field_of_a_request_is_reachable() -> None:
    request = attack_request(
        [PICTURE],
        "pgd",
        model="net",
        target=3,
        seed=2**64 - 1,
        stop=2.5,
        keep="last",
        grid="float",
        loss="dlr",
        strict=False,
        time_limit_s=1.5,
        return_clean=True,
        diagnose=True,
        victim="another",
        evade=Evade(detectors=["lid"], false_positive_rate=0.25, balance="in_turn"),
        top_k=9,
        epsilon=8 / 255,
    )
    assert {field.name for field, _ in request.ListFields()} == {
        field.name for field in attack_pb2.AttackRequest.DESCRIPTOR.fields
    } - (METHODS.keys() - {"pgd"})
    assert request.stop_on == attack_pb2.STOP_ON_MARGIN
    assert request.stop_margin == 2.5
    assert request.keep == attack_pb2.KEEP_LAST
    assert request.output_grid == attack_pb2.OUTPUT_GRID_FLOAT
    assert request.encoding == image_pb2.ENCODING_TENSOR
    assert request.loss == attack_pb2.LOSS_DLR
    assert request.determinism == manifest_pb2.DETERMINISM_FAST
    assert list(request.pgd.epsilon) == [np.float32(8 / 255)]
    assert (list(request.evade.guard.detectors), request.evade.guard.false_positive_rate) == (["lid"], 0.25)
    assert request.evade.balance == attack_pb2.BALANCE_IN_TURN


def test_evade_is_a_word_or_names_or_all_there_is_to_say() -> None:
    assert not attack_request(PICTURE).HasField("evade")
    said = attack_request(PICTURE, evade=True).evade
    assert (list(said.guard.detectors), list(said.weight), said.balance) == ([], [], attack_pb2.BALANCE_JOINT)
    assert list(attack_request(PICTURE, evade=["lid"]).evade.guard.detectors) == ["lid"]
    assert list(attack_request(PICTURE, evade=Evade(weight=2)).evade.weight) == [2.0]
    assert list(attack_request([PICTURE] * 2, evade=Evade(weight=[1, 2])).evade.weight) == [1.0, 2.0]
    with pytest.raises(InvalidArgument, match=r"evade\.balance: want one of joint, in_turn, got 'both'"):
        attack_request(PICTURE, evade=Evade(balance="both"))
    with pytest.raises(InvalidArgument, match=r"evade\.detectors: want a list of names, got 'lid'"):
        attack_request(PICTURE, evade="lid")


def test_every_field_of_classify_is_reachable() -> None:
    request = classify_request(PICTURE, model="net", top_k=3, logits=True, strict=True, guard=True)
    fields = {field.name for field in classify_pb2.ClassifyRequest.DESCRIPTOR.fields}
    assert {field.name for field, _ in request.ListFields()} == fields


def test_what_is_not_given_is_the_servers_default() -> None:
    request = attack_request(PICTURE, "fgsm")
    assert request.WhichOneof("method") == "fgsm"
    assert request.fgsm == attack_pb2.Fgsm()
    assert request.loss == attack_pb2.LOSS_UNSPECIFIED
    assert not request.goals
    assert attack_request(PICTURE, "pgd", epsilon=None).pgd == attack_pb2.Pgd()


def test_numpy_numbers_are_numbers() -> None:
    request = attack_request(
        [PICTURE] * 2,
        epsilon=np.array([0.1, 0.2], np.float32),  # type: ignore[arg-type]
        steps=np.int64(3),  # type: ignore[arg-type]
        alpha=np.array(0.5),  # type: ignore[arg-type]
        random_start=np.array([True, False]),  # type: ignore[arg-type]
    ).pgd
    assert list(request.epsilon) == [np.float32(0.1), np.float32(0.2)]
    assert (list(request.steps), list(request.alpha)) == ([3], [0.5])
    assert list(request.random_start) == [True, False]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epsilom": 1}, "pgd.epsilom: no such parameter; did you mean epsilon"),
        ({"zzz": 1}, "pgd.zzz: no such parameter; there are alpha, epsilon, random_start, restarts, steps"),
        ({"decay": 1.0}, "pgd.decay: no such parameter"),
    ],
)
def test_an_unknown_parameter_is_named_with_near_names(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UnknownParameter, match=text) as caught:
        attack_request(PICTURE, "pgd", **options)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, InvalidArgument)


@pytest.mark.parametrize(
    ("method", "options", "text"),
    [
        ("pdg", {}, "method: no attack 'pdg'; did you mean"),
        ("pgd", {"epsilon": "8/255"}, "pgd.epsilon: want a number, got '8/255'"),
        ("pgd", {"epsilon": True}, "pgd.epsilon: want a number, got True"),
        ("pgd", {"epsilon": []}, "pgd.epsilon: want one value, or one a sample, got none"),
        ("pgd", {"steps": 2.0}, r"pgd.steps: want a whole number in \[0, 2\^32\), got 2.0"),
        ("pgd", {"steps": [1, -1]}, r"pgd.steps\[1\]: want a whole number .*, got -1"),
        ("pgd", {"random_start": 1}, "pgd.random_start: want True or False, got 1"),
        ("pgd", {"restarts": [2, 3]}, r"pgd.restarts: want a whole number .*, got \[2, 3\]"),
        ("pgd", {"seed": 2**64}, "seed: want a whole number"),
        ("pgd", {"stop": "later"}, 'stop: want "success", "never" or a lead in logits, got \'later\''),
        ("pgd", {"keep": "worst"}, "keep: want one of best, last, got 'worst'"),
        ("pgd", {"grid": "int4"}, "grid: want one of uint8, float"),
        ("pgd", {"loss": "ce"}, "loss: want one of cross_entropy, margin, dlr, logit, l2, l1, got 'ce'"),
        ("pgd", {"target": ["a", "b"]}, r"target: want one class, or one a sample \(1\), got 2 classes"),
        ("pgd", {"target": 1.5}, "target: want a whole number"),
        ("pgd", {"target": True}, "target: want a whole number"),
        ("pgd", {"target": 1, "label": 2}, "target: want a target to reach or a label to leave .*, got both"),
        ("forge", {"start": "middle"}, "forge.start: want one of image, noise, reference, got 'middle'"),
        ("forge", {"reference": []}, "forge.reference: want one picture, or one a sample, got none"),
        ("forge", {"reference": 3}, "forge.reference: want an array, a PIL image"),
    ],
)
def test_a_wrong_value_is_refused_by_name(method: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text) as caught:
        attack_request(PICTURE, method, **options)
    assert caught.value.violations


def test_goals_are_one_for_all_or_one_a_sample() -> None:
    pictures = [PICTURE] * 2
    (one,) = attack_request(pictures, target="fox").goals
    assert one.targeted.target.name == "fox"
    first, second = attack_request(pictures, target=[1, None]).goals
    assert first.targeted.target.index == 1
    assert second.HasField("untargeted")
    assert not second.untargeted.HasField("label")
    first, second = attack_request(pictures, target=[1, None], label=[None, "cat"]).goals
    assert first.targeted.target.index == 1
    assert second.untargeted.label.name == "cat"
    (one,) = attack_request(pictures, label=0).goals
    assert one.untargeted.label.HasField("index")


def test_a_time_limit_that_cannot_be_reached_is_refused() -> None:
    request = attack_request(PICTURE, time_limit_s=60)
    with pytest.raises(InvalidArgument, match="time_limit_s: want below the call's timeout_s, 60, got 60"):
        check_time_limit(request, 60.0)
    check_time_limit(request, 61.0)
