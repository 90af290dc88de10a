"""Origins: whom a request comes from, and until when the answer is worth something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iguana_server.errors import InvalidArgument
from iguana_server.rpc.bounds import MAX_CALLER
from iguana_server.rpc.call import Call
from iguana_server.rpc.context import Context
from iguana_server.rpc.faults import text

CALLER = "iguana-caller"  # the metadata by which a caller names itself


@dataclass(frozen=True, slots=True)
class Origin:
    """What a job must know of the call that it is for."""

    method: str
    caller: str  # its share of the device is its own
    deadline: float  # time.monotonic()
    span: object | None

    @classmethod
    def of(cls, context: Context) -> Origin:
        """Return the origin of the running call: the caller is who it says it is, or its host.

        Raises InvalidArgument where "iguana-caller" is not one text of 1 to 64 printable ASCII characters.
        """
        call = Call.current()
        return cls(call.method, _caller(context), call.deadline, call.span)

    def of_job(self, model: str, *, strict: bool) -> dict[str, Any]:
        """Return what a job for a model is told of where it comes from; see Job."""
        return {
            "method": self.method,
            "model": model,
            "caller": self.caller,
            "strict": strict,
            "deadline": self.deadline,
            "span": self.span,
        }


def _caller(context: Context) -> str:
    metadata: Any = context.invocation_metadata() or ()
    names = [value for key, value in metadata if key == CALLER]
    if not names:
        return _address(str(context.peer()))
    name = names[0]
    if len(names) > 1 or not (1 <= len(name) <= MAX_CALLER and name.isascii() and name.isprintable()):
        got = text(name) if len(names) == 1 else f"{len(names)} values"
        raise InvalidArgument(CALLER, f"want 1 to {MAX_CALLER} printable ASCII characters, got {got}")
    return str(name)


def _address(peer: str) -> str:
    """Return "ipv4:10.0.0.1:5000" without the port, so that the connections of a host are one caller."""
    return peer.rpartition(":")[0] if peer.startswith("ip") else peer
