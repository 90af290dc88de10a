"""The step engine: one thread owns the device; rows of all callers share its passes."""

from iguana_server.engine.answer import Ended, Forged, Looked, Progress
from iguana_server.engine.job import AttackJob, ClassifyJob, Plan
from iguana_server.engine.loop import Engine
from iguana_server.engine.script import in_turn

__all__ = ["AttackJob", "ClassifyJob", "Ended", "Engine", "Forged", "Looked", "Plan", "Progress", "in_turn"]
