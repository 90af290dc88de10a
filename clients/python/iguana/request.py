"""Requests: the arguments of both clients as messages. Pure functions; nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Required, TypeAlias, TypedDict, Unpack

from iguana import choice, parameter
from iguana.errors import invalid
from iguana.evade import Evade
from iguana.image import ImagesLike, to_images
from iguana.v1 import attack_pb2, classify_pb2, detect_pb2, image_pb2, manifest_pb2, verdict_pb2

DEFAULT_MODEL = "efficientnet-lite0"

ClassLike: TypeAlias = int | str
"""A class by its index or its name."""


class ClassifyItem(TypedDict, total=False):
    """The arguments of `Client.classify`, as one item of `Client.stream_classify`."""

    images: Required[ImagesLike]
    model: str
    top_k: int
    logits: bool
    strict: bool
    guard: bool | Sequence[str]
    false_positive_rate: float


class DetectItem(TypedDict, total=False):
    """The arguments of `Client.detect`, as one item of `Client.stream_detect`."""

    images: Required[ImagesLike]
    model: str
    detectors: Sequence[str]
    false_positive_rate: float
    top_k: int
    strict: bool


class AttackOptions(TypedDict, total=False):
    """The keyword arguments of an attack. Those of the method itself come last; see `Client.attacks()`.

    | option       | default              | meaning                                                          |
    |--------------|----------------------|------------------------------------------------------------------|
    | model        | "efficientnet-lite0" | a name from `Client.models()`                                    |
    | target       | None                 | the class to reach, by name or index; one for all or one a sample|
    | label        | None                 | the true class to leave; None is the clean prediction            |
    | seed         | 0                    | fixes all randomness                                             |
    | stop         | None                 | "success", "never", a lead in logits; None is the method's       |
    | keep         | "best"               | which iterate is delivered: "best" or "last"                     |
    | grid         | "uint8"              | pixels judged and delivered: "uint8" or "float"                  |
    | loss         | None                 | "cross_entropy", "margin", "dlr", "logit", "l2", "l1"           |
    | encoding     | None                 | delivered as "png" or "tensor"; None is PNG on the 8-bit grid    |
    | strict       | True                 | the same bytes in any company                                    |
    | time_limit_s | 0.0                  | deliver the best so far after so many seconds; 0 is no limit     |
    | diagnose     | False                | let noise and queries try what holds: are gradients masked?      |
    | victim       | None                 | another model that looks at what was made: does it transfer?     |
    | evade        | False                | detectors to pass as well: True is all, or names, or an `Evade`  |
    | return_clean | False                | deliver the clean picture as the model saw it, too               |
    | top_k        | 5                    | how many classes to list before and after                        |
    | the rest     | None                 | the method's; None is the server's default                       |

    Targets may hold None for a sample that is only to leave its label.
    """

    model: str
    target: ClassLike | Sequence[ClassLike | None] | None
    label: ClassLike | Sequence[ClassLike | None] | None
    seed: int
    stop: str | float | None
    keep: str
    grid: str
    loss: str | None
    encoding: str | None
    strict: bool
    time_limit_s: float
    return_clean: bool
    diagnose: bool
    victim: str | None
    evade: Evade | bool | Sequence[str]
    top_k: int

    epsilon: float | Sequence[float] | None
    alpha: float | Sequence[float] | None
    steps: int | Sequence[int] | None
    random_start: bool | Sequence[bool] | None
    restarts: int | None
    decay: float | Sequence[float] | None
    rho: float | Sequence[float] | None
    start: str | Sequence[str] | None
    reference: ImagesLike | None
    penalty: float | Sequence[float] | None
    rate: float | Sequence[float] | None
    optimizer: str | Sequence[str] | None
    initial_epsilon: float | Sequence[float] | None
    gamma: float | Sequence[float] | None
    binary_steps: int | Sequence[int] | None
    initial_const: float | Sequence[float] | None
    confidence: float | Sequence[float] | None
    abort_early: bool | Sequence[bool] | None
    metric: str | Sequence[str] | None
    rivals: int | Sequence[int] | None
    overshoot: float | Sequence[float] | None
    alpha_max: float | Sequence[float] | None
    eta: float | Sequence[float] | None
    beta: float | Sequence[float] | None
    targets: int | None
    probability: float | Sequence[float] | None
    scale: float | Sequence[float] | None
    reach: int | Sequence[int] | None
    copies: int | Sequence[int] | None
    neighbours: int | Sequence[int] | None
    rotation: float | Sequence[float] | None
    shift: float | Sequence[float] | None
    perspective: float | Sequence[float] | None
    brightness: float | Sequence[float] | None
    contrast: float | Sequence[float] | None
    blur: float | Sequence[float] | None
    noise: float | Sequence[float] | None
    jpeg: float | Sequence[float] | None
    shape: str | Sequence[str] | None
    mask: ImagesLike | None
    size: float | Sequence[float] | None
    top: float | Sequence[float] | None
    left: float | Sequence[float] | None
    queries: int | Sequence[int] | None
    p: float | Sequence[float] | None
    sigma: float | Sequence[float] | None
    pairs: int | Sequence[int] | None
    delta: float | Sequence[float] | None
    h: float | Sequence[float] | None
    tolerance: float | Sequence[float] | None
    distance: str | Sequence[str] | None
    probes: int | Sequence[int] | None
    theta: float | Sequence[float] | None
    spherical_step: float | Sequence[float] | None
    source_step: float | Sequence[float] | None
    version: str | Sequence[str] | None


class AttackItem(AttackOptions, total=False):
    """The arguments of `Client.attack`, as one item of `Client.stream_attack`."""

    images: Required[ImagesLike]
    method: str


def classify_request(
    images: ImagesLike,
    *,
    model: str = DEFAULT_MODEL,
    top_k: int = 5,
    logits: bool = False,
    strict: bool = True,
    guard: bool | Sequence[str] = False,
    false_positive_rate: float = 0.0,
) -> classify_pb2.ClassifyRequest:
    """The request of `Client.classify`."""
    if not guard and false_positive_rate:
        raise invalid("false_positive_rate", "0 without guard", f"{false_positive_rate:g}")
    names = () if isinstance(guard, bool) else guard
    return classify_pb2.ClassifyRequest(
        model=model,
        images=to_images("images", images),
        top_k=parameter.uint("top_k", top_k),
        logits=logits,
        determinism=determinism(strict),
        guard=_guard("guard", names, false_positive_rate) if guard else None,
    )


def detect_request(
    images: ImagesLike,
    *,
    model: str = DEFAULT_MODEL,
    detectors: Sequence[str] = (),
    false_positive_rate: float = 0.0,
    top_k: int = 5,
    strict: bool = True,
) -> detect_pb2.DetectRequest:
    """The request of `Client.detect`."""
    return detect_pb2.DetectRequest(
        model=model,
        images=to_images("images", images),
        guard=_guard("detectors", detectors, false_positive_rate),
        top_k=parameter.uint("top_k", top_k),
        determinism=determinism(strict),
    )


def _guard(field: str, names: Sequence[str], rate: float) -> verdict_pb2.Guard:
    if isinstance(names, str):
        raise invalid(field, "a list of names", repr(names))
    return verdict_pb2.Guard(detectors=names, false_positive_rate=parameter.real("false_positive_rate", rate))


def attack_request(
    images: ImagesLike, method: str = "pgd", **options: Unpack[AttackOptions]
) -> attack_pb2.AttackRequest:
    """The request of `Client.attack`."""
    return _attack_request(images, method, **options)


def _attack_request(
    images: ImagesLike,
    method: str,
    *,
    model: str = DEFAULT_MODEL,
    target: Any = None,
    label: Any = None,
    seed: int = 0,
    stop: str | float | None = None,
    keep: str = "best",
    grid: str = "uint8",
    loss: str | None = None,
    encoding: str | None = None,
    strict: bool = True,
    time_limit_s: float = 0.0,
    return_clean: bool = False,
    diagnose: bool = False,
    victim: str | None = None,
    evade: Evade | bool | Sequence[str] = False,
    top_k: int = 5,
    **parameters: Any,
) -> attack_pb2.AttackRequest:
    wire_images = to_images("images", images)
    stop_on, stop_margin = _stop(stop)
    output_grid = choice.number("grid", grid, attack_pb2.OutputGrid.DESCRIPTOR)
    if encoding is None:
        encoding = "png" if output_grid == attack_pb2.OUTPUT_GRID_UINT8 else "tensor"
    request = attack_pb2.AttackRequest(
        model=model,
        images=wire_images,
        goals=_goals(target, label, len(wire_images)),
        seed=parameter.uint("seed", seed, 64),
        stop_on=stop_on,
        stop_margin=stop_margin,
        keep=attack_pb2.Keep.ValueType(choice.number("keep", keep, attack_pb2.Keep.DESCRIPTOR)),
        output_grid=attack_pb2.OutputGrid.ValueType(output_grid),
        determinism=determinism(strict),
        time_limit_s=parameter.real("time_limit_s", time_limit_s),
        encoding=image_pb2.Encoding.ValueType(
            choice.number("encoding", encoding, image_pb2.Encoding.DESCRIPTOR)
        ),
        return_clean=return_clean,
        diagnose=diagnose,
        victim=victim or "",
        evade=_evade(evade),
        top_k=parameter.uint("top_k", top_k),
    )
    if loss is not None:
        request.loss = attack_pb2.Loss.ValueType(choice.number("loss", loss, attack_pb2.Loss.DESCRIPTOR))
    parameter.set_parameters(request, method, parameters)
    return request


def _evade(evade: Evade | bool | Sequence[str]) -> attack_pb2.Evade | None:
    if evade is False:
        return None
    if not isinstance(evade, Evade):
        evade = Evade(detectors=() if isinstance(evade, bool) else evade)
    weights = evade.weight if isinstance(evade.weight, Sequence) else [evade.weight]
    balance = choice.number("evade.balance", evade.balance, attack_pb2.Balance.DESCRIPTOR)
    return attack_pb2.Evade(
        guard=_guard("evade.detectors", evade.detectors, evade.false_positive_rate),
        balance=attack_pb2.Balance.ValueType(balance),
        weight=[parameter.real("evade.weight", weight) for weight in weights if weight is not None],
    )


def determinism(strict: bool) -> manifest_pb2.Determinism.ValueType:
    """The word for it."""
    return manifest_pb2.DETERMINISM_STRICT if strict else manifest_pb2.DETERMINISM_FAST


def _stop(stop: str | float | None) -> tuple[attack_pb2.StopOn.ValueType, float]:
    if stop is None:
        return attack_pb2.STOP_ON_UNSPECIFIED, 0.0
    if stop == "success":
        return attack_pb2.STOP_ON_FIRST_SUCCESS, 0.0
    if stop == "never":
        return attack_pb2.STOP_ON_NEVER, 0.0
    if isinstance(stop, str):
        raise invalid("stop", '"success", "never" or a lead in logits', repr(stop))
    return attack_pb2.STOP_ON_MARGIN, parameter.real("stop", stop)


def _goals(target: Any, label: Any, n: int) -> list[attack_pb2.Goal]:
    targets, labels = _classes("target", target, n), _classes("label", label, n)
    if targets is None and labels is None:
        return []
    many = max(len(targets or []), len(labels or []))
    return [
        _goal(i, one_target, one_label)
        for i, (one_target, one_label) in enumerate(
            zip(_spread(targets, many), _spread(labels, many), strict=True),
        )
    ]


def _classes(field: str, classes: Any, n: int) -> list[attack_pb2.ClassRef | None] | None:
    if classes is None:
        return None
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        return [_class_ref(field, classes)]
    if len(classes) != n:
        raise invalid(field, f"one class, or one a sample ({n})", f"{len(classes)} classes")
    return [None if one is None else _class_ref(f"{field}[{i}]", one) for i, one in enumerate(classes)]


def _spread(refs: list[attack_pb2.ClassRef | None] | None, n: int) -> list[attack_pb2.ClassRef | None]:
    refs = refs or [None]
    return refs * n if len(refs) == 1 else refs


def class_refs(field: str, classes: ClassLike | Sequence[ClassLike] | None) -> list[attack_pb2.ClassRef]:
    """Classes given not at all, once, or once a sample."""
    if classes is None:
        return []
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        return [_class_ref(field, classes)]
    return [_class_ref(f"{field}[{i}]", one) for i, one in enumerate(classes)]


def _class_ref(field: str, value: object) -> attack_pb2.ClassRef:
    if isinstance(value, str):
        return attack_pb2.ClassRef(name=value)
    return attack_pb2.ClassRef(index=parameter.uint(field, value))


def _goal(i: int, target: attack_pb2.ClassRef | None, label: attack_pb2.ClassRef | None) -> attack_pb2.Goal:
    if target is not None and label is not None:
        raise invalid("target", f"a target to reach or a label to leave for sample {i}", "both")
    if target is not None:
        return attack_pb2.Goal(targeted=attack_pb2.Targeted(target=target))
    return attack_pb2.Goal(untargeted=attack_pb2.Untargeted(label=label))


def check_time_limit(request: attack_pb2.AttackRequest, timeout_s: float) -> None:
    """Refuse a time limit that can never be reached, since the call's time-out is shorter."""
    if request.time_limit_s >= timeout_s:
        raise invalid(
            "time_limit_s", f"below the call's timeout_s, {timeout_s:g}", f"{request.time_limit_s:g}"
        )
