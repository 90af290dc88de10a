"""Responses: messages as the values of `result` and `listing`. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iguana import choice
from iguana.errors import InternalError
from iguana.evade import Evade
from iguana.image import from_image, from_tensor
from iguana.listing import (
    Attack,
    Calibration,
    Detector,
    Generator,
    Input,
    Limits,
    Model,
    Models,
    Parameter,
    Translator,
)
from iguana.result import (
    AttackAnswer,
    AttackManifest,
    AttackResult,
    Classification,
    Classifications,
    ClassScore,
    Detection,
    Detections,
    Diagnosis,
    Ended,
    Evasion,
    Manifest,
    Mark,
    Norms,
    Outcome,
    Progress,
    Refusal,
    Summary,
    Transfer,
    Verdict,
)
from iguana.v1 import attack_pb2, classify_pb2, detect_pb2, manifest_pb2, model_pb2, verdict_pb2


def classifications(message: classify_pb2.ClassifyResponse) -> Classifications:
    """The answer of `Client.classify`."""
    return Classifications(
        [_classification(c) for c in message.classifications], manifest_of(message.manifest)
    )


def detections(message: detect_pb2.DetectResponse) -> Detections:
    """The answer of `Client.detect`."""
    found = [Detection(_verdict(d.verdict), _classification(d.classification)) for d in message.detections]
    return Detections(found, manifest_of(message.manifest))


def attack_answer(message: attack_pb2.AttackResponse) -> AttackAnswer:
    """The answer of `Client.attack`."""
    return AttackAnswer(tuple(_attack_result(r) for r in message.results), _attack_manifest(message.manifest))


def watched_answer(results: Mapping[int, AttackResult], summary: Summary | None) -> AttackAnswer:
    """The answer of a watched attack, of its results by sample."""
    if summary is None:
        raise InternalError("watch: the stream ended without its summary")
    return AttackAnswer(tuple(results[sample] for sample in sorted(results)), summary.manifest)


def remote_answer(
    results: Sequence[attack_pb2.AttackResult], summary: attack_pb2.AttackSummary
) -> AttackAnswer:
    """The answer of `Client.attack_remote`."""
    ordered = sorted(results, key=lambda result: result.sample)
    return AttackAnswer(tuple(_attack_result(r) for r in ordered), _attack_manifest(summary.manifest))


def event(message: attack_pb2.WatchAttackResponse) -> Progress | AttackResult | Summary:
    """One event of a watched attack."""
    match message.WhichOneof("kind"):
        case "progress":
            p = message.progress
            return Progress(p.sample, p.restart, p.step, p.steps, p.loss, p.margin, p.fooled)
        case "result":
            return _attack_result(message.result)
        case "summary":
            s = message.summary
            return Summary(s.fooled, s.held, s.already, s.failed, _attack_manifest(s.manifest))
    raise InternalError("watch: want progress, result or summary, got neither; is the client too old?")


def models(message: model_pb2.ListModelsResponse) -> Models:
    """The answer of `Client.models`."""
    limits = message.limits
    return Models(
        [_model(m) for m in message.models],
        Limits(
            max_images=limits.max_images,
            max_image_bytes=limits.max_image_bytes,
            max_side=limits.max_side,
            max_steps=limits.max_steps,
            max_restarts=limits.max_restarts,
            max_queries=limits.max_queries,
            max_message_bytes=limits.max_message_bytes,
            max_waiting_cost=limits.max_waiting_cost,
            max_stream_items=limits.max_stream_items,
            max_pixels=limits.max_pixels,
            max_reply_bytes=limits.max_reply_bytes,
            default_deadline_s=limits.default_deadline_s,
            max_deadline_s=limits.max_deadline_s,
            max_image_memory=limits.max_image_memory,
            max_whole_pixels=limits.max_whole_pixels,
        ),
        [_generator(g) for g in message.generators],
        [_translator(t) for t in message.translators],
    )


def attacks(message: model_pb2.ListAttacksResponse) -> list[Attack]:
    """The answer of `Client.attacks`."""
    return [
        Attack(
            name=a.name,
            description=a.description,
            parameters=tuple(
                Parameter(
                    p.name, p.kind, p.low, p.high, p.default_value, p.description, tuple(p.choices), p.rule
                )
                for p in a.parameters
            ),
            loss=a.loss,
            evades=a.evades,
        )
        for a in message.attacks
    ]


def _generator(g: model_pb2.Generator) -> Generator:
    return Generator(
        name=g.name,
        description=g.description,
        latent=g.latent,
        classes=tuple(g.classes),
        height=g.height,
        width=g.width,
        channels=g.channels,
        scores=g.scores,
        sha256=g.sha256,
        licence=g.licence,
        source=g.source,
        device=g.device,
        bucket=g.bucket,
        max_batch=g.max_batch,
    )


def _translator(t: model_pb2.Translator) -> Translator:
    return Translator(
        name=t.name,
        description=t.description,
        channels=t.channels,
        output_channels=t.output_channels,
        scale=t.scale,
        multiple=t.multiple,
        tile=t.tile,
        overlap=t.overlap,
        styles=tuple(t.styles),
        sha256=t.sha256,
        licence=t.licence,
        source=t.source,
        device=t.device,
        bucket=t.bucket,
        max_batch=t.max_batch,
        min_side=t.min_side,
    )


def _classification(message: classify_pb2.Classification) -> Classification:
    return Classification(
        top=tuple(ClassScore(c.index, c.name, c.probability) for c in message.top),
        logits=from_tensor(message.logits).astype("f4", copy=False) if message.HasField("logits") else None,
        refusal=Refusal(message.refusal.reason, _verdict(message.refusal.verdict))
        if message.HasField("refusal")
        else None,
    )


def _verdict(message: verdict_pb2.Verdict) -> Verdict:
    marks = (Mark(m.detector, m.score, m.threshold, m.flagged, m.p_value) for m in message.marks)
    return Verdict(message.flagged, message.p_value, message.false_positive_rate, tuple(marks))


def manifest_of(message: manifest_pb2.Manifest) -> Manifest:
    """What made an answer."""
    return Manifest(
        model=message.model,
        model_sha256=message.model_sha256,
        strict=message.determinism != manifest_pb2.DETERMINISM_FAST,
        bucket=message.bucket,
        device=message.device,
        versions=dict(message.versions),
        calibration_sha256=message.calibration_sha256,
    )


def _attack_manifest(message: attack_pb2.AttackManifest) -> AttackManifest:
    return AttackManifest(
        run=manifest_of(message.run),
        method=message.method,
        parameters={p.name: tuple(p.values) for p in message.parameters},
        seed=message.seed,
        loss=choice.word_of(message.loss, attack_pb2.Loss.DESCRIPTOR) if message.loss else "",
        stop=choice.word_of(message.stop_on, attack_pb2.StopOn.DESCRIPTOR).removeprefix("first_"),
        keep=choice.word_of(message.keep, attack_pb2.Keep.DESCRIPTOR),
        grid=choice.word_of(message.output_grid, attack_pb2.OutputGrid.DESCRIPTOR),
        stop_margin=message.stop_margin,
        labels=tuple(message.labels),
        targeted=tuple(message.targeted),
        evade=_evade(message.evade) if message.HasField("evade") else None,
    )


def _evade(message: attack_pb2.Evade) -> Evade:
    return Evade(
        detectors=tuple(message.guard.detectors),
        false_positive_rate=message.guard.false_positive_rate,
        balance=choice.word_of(message.balance, attack_pb2.Balance.DESCRIPTOR),
        weight=tuple(message.weight) or None,
    )


def _transfer(message: attack_pb2.Transfer) -> Transfer:
    return Transfer(_classification(message.before), _classification(message.after), message.fooled)


def _evasion(message: attack_pb2.Evasion) -> Evasion:
    return Evasion(_verdict(message.before), _verdict(message.after))


def _attack_result(message: attack_pb2.AttackResult) -> AttackResult:
    return AttackResult(
        sample=message.sample,
        outcome=Outcome(choice.word_of(message.outcome, attack_pb2.Outcome.DESCRIPTOR)),
        ended=Ended(choice.word_of(message.ended, attack_pb2.Ended.DESCRIPTOR)),
        picture=from_image(message.image) if message.HasField("image") else None,
        clean=from_image(message.clean) if message.HasField("clean") else None,
        before=_classification(message.before),
        after=_classification(message.after),
        norms=Norms(message.norms.linf, message.norms.l2, message.norms.l1, message.norms.l0),
        margin=message.margin,
        loss=message.loss,
        step=message.step,
        restart=message.restart,
        forward=message.forward,
        backward=message.backward,
        zero_gradients=message.zero_gradients,
        attack=message.attack,
        diagnosis=Diagnosis(
            zero_gradients=message.diagnosis.zero_gradients,
            rising=message.diagnosis.rising,
            loss_gain=message.diagnosis.loss_gain,
            suspicions=tuple(
                choice.word_of(one, attack_pb2.Suspicion.DESCRIPTOR) for one in message.diagnosis.suspicions
            ),
        ),
        transfer=_transfer(message.transfer) if message.HasField("transfer") else None,
        evasion=_evasion(message.evasion) if message.HasField("evasion") else None,
        reason=message.reason,
    )


def _model(message: model_pb2.Model) -> Model:
    taken = message.input
    return Model(
        name=message.name,
        description=message.description,
        input=Input(
            height=taken.height,
            width=taken.width,
            channels=taken.channels,
            resize=taken.resize,
            mean=tuple(taken.mean),
            std=tuple(taken.std),
        ),
        classes=tuple(message.classes),
        sha256=message.sha256,
        licence=message.licence,
        source=message.source,
        device=message.device,
        bucket=message.bucket,
        max_batch=message.max_batch,
        detectors=tuple(Detector(d.name, d.description, d.threshold, d.looks) for d in message.detectors),
        calibration=_calibration(message.calibration) if message.HasField("calibration") else None,
    )


def _calibration(message: model_pb2.Calibration) -> Calibration:
    return Calibration(message.pictures, message.data, message.rate, message.least_rate, message.sha256)
