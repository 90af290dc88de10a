"""The contract and the attacks say the same: names, defaults, ranges, choices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from iguana.v1 import attack_pb2, image_pb2, manifest_pb2
from iguana_server.attacks.catalog import CATALOG
from iguana_server.attacks.losses import LOSSES
from iguana_server.engine.answer import Ended
from iguana_server.rpc.listing import from_attack
from iguana_server.rpc.method import METHODS, RESTARTS, TARGETS, fields_of
from iguana_server.rpc.words import (
    DTYPE,
    ENDED,
    KEEP_LAST,
    LOSS,
    ON_GRID,
    OUTCOME,
    PNG,
    STOP_ON,
    STRICT,
    Words,
)
from tests.rpc.service import LIMITS

SCALARS = {RESTARTS, TARGETS}
PROTO = (Path(__file__).parents[2] / "proto/iguana/v1/attack.proto").read_text()


def comment(message: str, field: str) -> str:
    """What the contract says of a field, on one line."""
    body = re.search(rf"^message {message} {{\n(.*?)^}}", PROTO, re.M | re.S)
    assert body, message
    found = re.search(rf"((?:  //[^\n]*\n)+)  (?:repeated )?\w+ {field} = \d+;", body[1])
    assert found, field
    return " ".join(line.strip().removeprefix("//").strip() for line in found[1].splitlines())


def parameters() -> Iterator[tuple[str, FieldDescriptor]]:
    for name in METHODS:
        for field in fields_of(CATALOG[name]):
            yield name, field


PARAMETERS = list(parameters())
IDS = [f"{name}.{field.name}" for name, field in PARAMETERS]


def test_every_method_is_an_attack_and_every_attack_a_method() -> None:
    assert set(METHODS) == set(CATALOG)


@pytest.mark.parametrize("name", METHODS)
def test_fields_and_parameters_are_the_same(name: str) -> None:
    fields = {field.name for field in fields_of(CATALOG[name])}
    assert fields - SCALARS == set(CATALOG[name].parameters())


@pytest.mark.parametrize("name", METHODS)
def test_attacks_that_start_at_random_can_be_restarted(name: str) -> None:
    fields = {field.name for field in fields_of(CATALOG[name])}
    if "random_start" in fields:
        assert RESTARTS in fields


@pytest.mark.parametrize("name", METHODS)
def test_attacks_that_aim_at_several_classes_have_a_column_for_their_number(name: str) -> None:
    fields = {field.name for field in fields_of(CATALOG[name])}
    assert (TARGETS in fields) == (TARGETS in CATALOG[name].columns())


@pytest.mark.parametrize(("name", "field"), PARAMETERS, ids=IDS)
def test_default_and_range_are_those_of_the_contract(name: str, field: FieldDescriptor) -> None:
    assert field.containing_type is not None
    said = comment(field.containing_type.name, field.name)
    if field.name == RESTARTS:
        assert "1 to limits.max_restarts" in said
        assert "0 means 1" in said
        return
    if field.name == TARGETS:
        assert "1 to 9" in said
        assert "0 means 9" in said
        return
    parameter = CATALOG[name].parameters()[field.name]
    if parameter.kind == "image":
        assert "none means the sample's own image" in said
        return
    if parameter.rule is not None:
        assert said.endswith(f"Default {parameter.rule.text}."), said
        said = said.replace(f"Default {parameter.rule.text}.", f"Default {parameter.default}.")
    default = re.search(r"Default ([\w./]+?)\.?$", said)
    assert default, said
    if parameter.kind == "choice":
        assert field.enum_type is not None
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        names = [value.name.removeprefix(prefix).lower() for value in field.enum_type.values]
        numbers = [value.number for value in field.enum_type.values]
        assert numbers == list(range(len(numbers)))
        assert tuple(names[1:]) == parameter.choices
        assert default[1] == prefix + parameter.choices[int(parameter.default)].upper()
        assert (parameter.low, parameter.high) == (0, len(parameter.choices) - 1)
    elif parameter.kind == "bool":
        assert default[1] == str(bool(parameter.default)).lower()
    else:
        assert float(Fraction(default[1])) == parameter.default
        if parameter.kind == "int":
            limits = {"steps": "limits.max_steps", "queries": "limits.max_queries"}
            high = limits.get(parameter.name, str(int(parameter.high)))
            assert f"{int(parameter.low)} to {high}" in said, said
        else:
            ends = re.search(r"in \[([\d.e]+), ([\d.e]+)\]", said)
            assert ends, said
            assert (float(ends[1]), float(ends[2])) == (parameter.low, parameter.high)
    kinds = {
        FieldDescriptor.TYPE_FLOAT: "float",
        FieldDescriptor.TYPE_UINT32: "int",
        FieldDescriptor.TYPE_BOOL: "bool",
        FieldDescriptor.TYPE_ENUM: "choice",
    }
    assert parameter.kind == kinds[field.type]


@pytest.mark.parametrize(
    "words", [STOP_ON, KEEP_LAST, ON_GRID, PNG, STRICT, LOSS, DTYPE], ids=lambda w: w.enum.name
)
def test_every_word_of_an_enum_means_something(words: Words[int, object]) -> None:
    assert set(words.meanings) == set(words.enum.values_by_number) - {0}
    assert len({repr(meaning) for meaning in words.meanings.values()}) == len(words.meanings)


def test_losses_are_those_of_the_contract() -> None:
    assert set(LOSS.meanings.values()) == set(LOSSES)
    for number, name in LOSS.meanings.items():
        assert LOSS.name(number) == f"LOSS_{name.upper()}"


def test_outcomes_and_ends_are_those_of_the_contract() -> None:
    assert set(OUTCOME.values()) == set(attack_pb2.Outcome.values()) - {0}
    assert {attack_pb2.Outcome.Name(number) for number in OUTCOME.values()} == {
        f"OUTCOME_{name.upper()}" for name in OUTCOME
    }
    assert set(ENDED) == set(Ended)
    for ended, number in ENDED.items():
        assert attack_pb2.Ended.Name(number) == f"ENDED_{ended.value.upper()}"


def test_defaults_of_enums_are_those_of_the_contract() -> None:
    for enum, words in (("StopOn", STOP_ON), ("Keep", KEEP_LAST), ("OutputGrid", ON_GRID)):
        said = re.search(rf"^enum {enum} {{\n  // \w+ means (\w+)\.", PROTO, re.M)
        assert said
        assert said[1] == words.enum.values_by_number[words.default].name
    assert PNG.default == image_pb2.ENCODING_PNG
    assert STRICT.default == manifest_pb2.DETERMINISM_STRICT


@pytest.mark.parametrize("name", METHODS)
def test_listing_tells_what_is_checked(name: str) -> None:
    listed = from_attack(CATALOG[name], LIMITS)
    assert [p.name for p in listed.parameters] == [field.name for field in fields_of(CATALOG[name])]
    assert listed.loss in LOSSES
    for p in listed.parameters:
        if p.name == "steps":
            assert (p.low, p.high) == (1, LIMITS.max_steps)
        elif p.name == "queries":
            assert p.high == min(LIMITS.max_queries, CATALOG[name].parameters()[p.name].high)
        elif p.name == TARGETS:
            assert (p.kind, p.low, p.high, p.default_value) == ("int", 1, 9, 9)
        elif p.name == RESTARTS:
            assert (p.kind, p.low, p.high, p.default_value) == ("int", 1, LIMITS.max_restarts, 1)
        else:
            own = CATALOG[name].parameters()[p.name]
            assert (p.kind, p.low, p.high, p.default_value) == (own.kind, own.low, own.high, own.default)
            assert p.rule == (own.rule.text if own.rule else "")
            assert tuple(p.choices) == own.choices
        assert p.description
