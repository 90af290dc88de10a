"""What the server tells about itself: metrics, traces, logs."""

from iguana_server.telemetry.telemetry import Telemetry

__all__ = ["Telemetry"]
