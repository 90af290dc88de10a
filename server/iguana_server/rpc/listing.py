"""Listings: what this server can do, from what models and attacks declare of themselves."""

from __future__ import annotations

from dataclasses import asdict

from google.protobuf.descriptor import FieldDescriptor

from iguana.v1 import model_pb2
from iguana_server.attacks.base import Method
from iguana_server.detectors.net import SafetyNet
from iguana_server.generators.base import Generator
from iguana_server.models.base import Model
from iguana_server.rpc.bounds import Limits
from iguana_server.rpc.method import RESTARTS, TARGETS, fields_of, highest, scalar
from iguana_server.translators.base import Translator


def from_model(model: Model, net: SafetyNet | None = None) -> model_pb2.Model:
    """Return what a model declares, and its detectors."""
    spec = model.spec
    channels, height, width = spec.shape
    return model_pb2.Model(
        name=spec.name,
        description=spec.description,
        input=model_pb2.Input(
            height=height, width=width, channels=channels, resize=spec.resize, mean=spec.mean, std=spec.std
        ),
        classes=spec.classes,
        sha256=model.sha256,
        licence=spec.licence,
        source=spec.source,
        device=str(model.device),
        bucket=spec.bucket,
        max_batch=spec.max_batch,
        detectors=() if net is None else (from_detector(name, net) for name in net.detectors),
        calibration=None if net is None else from_calibration(net),
    )


def from_generator(generator: Generator) -> model_pb2.Generator:
    """Return what a generator declares."""
    spec = generator.spec
    channels, height, width = spec.shape
    return model_pb2.Generator(
        name=spec.name,
        description=spec.description,
        latent=spec.latent,
        classes=spec.classes,
        height=height,
        width=width,
        channels=channels,
        scores=generator.critic is not None,
        sha256=generator.sha256,
        licence=spec.licence,
        source=spec.source,
        device=str(generator.device),
        bucket=spec.bucket,
        max_batch=spec.max_batch,
    )


def from_translator(translator: Translator) -> model_pb2.Translator:
    """Return what a translator declares."""
    spec = translator.spec
    return model_pb2.Translator(
        name=spec.name,
        description=spec.description,
        channels=spec.channels[0],
        output_channels=spec.channels[1],
        scale=spec.scale,
        multiple=spec.multiple,
        tile=spec.side if spec.overlap else 0,
        overlap=spec.overlap,
        styles=spec.styles,
        sha256=translator.sha256,
        licence=spec.licence,
        source=spec.source,
        device=str(translator.device),
        bucket=spec.bucket,
        max_batch=spec.max_batch,
        min_side=spec.least,
    )


def from_detector(name: str, net: SafetyNet) -> model_pb2.Detector:
    """Return what a detector declares."""
    detector, calibration = net.detectors[name], net.calibration
    return model_pb2.Detector(
        name=name,
        description=f"{_said(type(detector))} ({detector.paper})",
        threshold=calibration.threshold(name, calibration.rate),
        looks=detector.looks,
    )


def from_calibration(net: SafetyNet) -> model_pb2.Calibration:
    """Return what a model's detectors are held to."""
    calibration = net.calibration
    return model_pb2.Calibration(
        pictures=calibration.pictures,
        data=calibration.data,
        rate=calibration.rate,
        least_rate=calibration.least_rate,
        sha256=net.sha256,
    )


def from_limits(limits: Limits) -> model_pb2.Limits:
    """Return the limits that callers can plan with."""
    return model_pb2.Limits(**asdict(limits))


def from_attack(attack: type[Method], limits: Limits) -> model_pb2.Attack:
    """Return what an attack declares, its parameters in the order of the contract."""
    return model_pb2.Attack(
        name=attack.name,
        description=f"{_said(attack)} ({attack.paper})",
        parameters=(_parameter(field, attack, limits) for field in fields_of(attack)),
        loss=attack.default_loss,
        evades=attack.evades,
    )


def _said(thing: type) -> str:
    """The first line of a class's docstring."""
    return (thing.__doc__ or "").partition("\n")[0].removesuffix(".")


def _parameter(field: FieldDescriptor, attack: type[Method], limits: Limits) -> model_pb2.Parameter:
    once = field.name in (RESTARTS, TARGETS)
    p = scalar(field.name, limits) if once else attack.parameters()[field.name]
    return model_pb2.Parameter(
        name=p.name,
        kind=p.kind,
        low=p.low,
        high=highest(p, limits),
        default_value=p.default,
        description=p.doc,
        choices=p.choices,
        rule="" if p.rule is None else p.rule.text,
    )
