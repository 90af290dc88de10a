"""What a request may ask for at most."""

from __future__ import annotations

from dataclasses import dataclass

# The contract's own bounds: the same on every server.
DEFAULT_TOP_K, MAX_TOP_K = 5, 1000  # classes listed
MAX_STOP_MARGIN = 1000.0  # logits
MAX_WEIGHT = 1000.0  # of a nat of suspicion in a loss
MAX_TIME_LIMIT_S = 3600.0
MAX_EVERY_STEPS = 10_000  # moves between two reports
MAX_CLASSES = 65_536  # of a model that only the caller sees
MAX_ID = 64  # characters
MAX_CALLER = 64  # characters
MAX_CODES = 256  # named codes of a request
MIN_TRUNCATION, MAX_TRUNCATION = 0.1, 10.0
MAX_STYLE_WEIGHT = 1000.0
DEFAULT_INVERT_RESTARTS = 4
MOST_FILES = 4  # times max_pixels in all files of a request


@dataclass(frozen=True, kw_only=True)
class Limits:
    """This server's bounds; ListModels tells them."""

    max_images: int  # of one request
    max_image_bytes: int  # of one encoded image
    max_side: int  # pixels of an encoded image
    max_pixels: int  # of an encoded image
    max_steps: int  # of an attack
    max_queries: int  # of an attack that asks for answers only
    max_restarts: int  # of an attack
    max_message_bytes: int  # of one request
    max_reply_bytes: int  # of one answer
    max_waiting_cost: int  # pixels x steps in the queue
    max_image_memory: int  # bytes of images in hand
    max_whole_pixels: int  # of a picture for a translator without tiles
    max_stream_items: int  # in flight on one bidirectional stream
    default_deadline_s: float  # of a call that sets none
    max_deadline_s: float  # of any call
