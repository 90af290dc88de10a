"""What a server offers, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Input:
    """The images a model takes: sizes in pixels, preparation per channel."""

    height: int
    width: int
    channels: int
    resize: int
    """The length that an encoded picture's short side is brought to before the centre is cut out."""
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Detector:
    """One way to tell forged pictures from clean ones: `threshold` at the calibration's rate, `looks` it takes."""

    name: str
    description: str
    threshold: float
    looks: int


@dataclass(frozen=True)
class Calibration:
    """The clean pictures that a model's detectors are held to, and the false-positive rates that they allow."""

    pictures: int
    data: str
    rate: float
    """Where a call names none."""
    least_rate: float
    sha256: str


@dataclass(frozen=True)
class Model:
    """A loaded classifier."""

    name: str
    description: str
    input: Input
    classes: tuple[str, ...] = field(repr=False)
    sha256: str
    licence: str
    source: str
    device: str
    bucket: int
    max_batch: int
    detectors: tuple[Detector, ...] = field(default=(), repr=False)
    calibration: Calibration | None = field(default=None, repr=False)
    """Of the detectors; None where there are none."""


@dataclass(frozen=True)
class Limits:
    """The largest requests that the server takes; fields as in the contract's `Limits`."""

    max_images: int
    max_image_bytes: int
    max_side: int
    max_steps: int
    max_restarts: int
    max_queries: int
    max_message_bytes: int
    max_waiting_cost: int
    max_stream_items: int
    max_pixels: int
    max_reply_bytes: int
    default_deadline_s: float
    max_deadline_s: float
    max_image_memory: int
    max_whole_pixels: int


@dataclass(frozen=True)
class Generator:
    """A loaded generator: pictures height x width of codes of `latent` numbers."""

    name: str
    description: str
    latent: int
    classes: tuple[str, ...] = field(repr=False)
    height: int
    width: int
    channels: int
    scores: bool
    """Whether it has a discriminator: `Client.score`."""
    sha256: str
    licence: str
    source: str
    device: str
    bucket: int
    max_batch: int


@dataclass(frozen=True)
class Translator:
    """A loaded translator: pictures of pictures, `scale` times as high and wide."""

    name: str
    description: str
    channels: int
    output_channels: int
    scale: int
    multiple: int
    tile: int
    """Side of the squares that larger pictures are cut into; 0 where pictures stay whole."""
    overlap: int
    styles: tuple[str, ...] = field(repr=False)
    sha256: str
    licence: str
    source: str
    device: str
    bucket: int
    max_batch: int
    min_side: int


class Models(list[Model]):
    """A list of the loaded classifiers, by name, with `generators`, `translators` and the server's `limits`."""

    def __init__(
        self,
        models: list[Model],
        limits: Limits,
        generators: list[Generator] | None = None,
        translators: list[Translator] | None = None,
    ) -> None:
        super().__init__(models)
        self.limits = limits
        self.generators, self.translators = generators or [], translators or []


@dataclass(frozen=True)
class Parameter:
    """One parameter of an attack: one value, or one a sample, in [low, high]."""

    name: str
    kind: str
    """ "float", "int", "bool", "choice" or "image"."""
    low: float
    high: float
    default: float
    """Used when it is not given; of a choice, its place in `choices`."""
    description: str
    choices: tuple[str, ...]
    rule: str
    """How the default follows from other parameters; empty if it is always `default`."""


@dataclass(frozen=True)
class Attack:
    """One algorithm; `loss` is what it climbs unless told otherwise, `evades` whether it can pass detectors, too."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    loss: str
    evades: bool = False
