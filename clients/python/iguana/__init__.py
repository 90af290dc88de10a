"""Iguana's client: classify, forge, detect, generate and translate pictures, over gRPC.

    from iguana import Client

    with Client() as client:
        result = client.attack("cat.png", target="common iguana", epsilon=4 / 255)[0]

`iguana.v1` holds the generated messages and stubs, for whoever wants the wire itself.
"""

from iguana.aio import AsyncClient
from iguana.client import Client
from iguana.errors import (
    Cancelled,
    DeadlineExceeded,
    IguanaError,
    InternalError,
    InvalidArgument,
    NotFound,
    Overloaded,
    Unavailable,
    UnknownParameter,
)
from iguana.evade import Evade
from iguana.generate import (
    Generated,
    GenerateOptions,
    Generations,
    Inversion,
    Inversions,
    InvertItem,
    Realness,
    Scores,
)
from iguana.image import ImageLike, ImagesLike, Picture
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
from iguana.remote import Transcript
from iguana.request import AttackItem, AttackOptions, ClassifyItem, DetectItem
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
from iguana.translate import Piece, Translated, TranslateItem, Translations
from iguana.watch import AsyncWatch, Watch

__all__ = [
    "AsyncClient",
    "AsyncWatch",
    "Attack",
    "AttackAnswer",
    "AttackItem",
    "AttackManifest",
    "AttackOptions",
    "AttackResult",
    "Calibration",
    "Cancelled",
    "ClassScore",
    "Classification",
    "Classifications",
    "ClassifyItem",
    "Client",
    "DeadlineExceeded",
    "DetectItem",
    "Detection",
    "Detections",
    "Detector",
    "Diagnosis",
    "Ended",
    "Evade",
    "Evasion",
    "GenerateOptions",
    "Generated",
    "Generations",
    "Generator",
    "IguanaError",
    "ImageLike",
    "ImagesLike",
    "Input",
    "InternalError",
    "InvalidArgument",
    "Inversion",
    "Inversions",
    "InvertItem",
    "Limits",
    "Manifest",
    "Mark",
    "Model",
    "Models",
    "Norms",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Parameter",
    "Picture",
    "Piece",
    "Progress",
    "Realness",
    "Refusal",
    "Scores",
    "Summary",
    "Transcript",
    "Transfer",
    "TranslateItem",
    "Translated",
    "Translations",
    "Translator",
    "Unavailable",
    "UnknownParameter",
    "Verdict",
    "Watch",
]
