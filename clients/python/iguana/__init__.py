"""Iguana's client: classify pictures and forge them, over gRPC.

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
from iguana.image import ImageLike, ImagesLike, Picture
from iguana.listing import Attack, Calibration, Detector, Input, Limits, Model, Models, Parameter
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
    "IguanaError",
    "ImageLike",
    "ImagesLike",
    "Input",
    "InternalError",
    "InvalidArgument",
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
    "Progress",
    "Refusal",
    "Summary",
    "Transcript",
    "Transfer",
    "Unavailable",
    "UnknownParameter",
    "Verdict",
    "Watch",
]
