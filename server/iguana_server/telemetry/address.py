"""Why an address cannot be listened on, and which setting is to blame."""

from __future__ import annotations

import errno
import socket


def reason(host: str, port: int) -> OSError | None:
    """Return what the system says to a listener there, or None if it has nothing against it (any more)."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind(address)
    except OSError as error:
        return error
    return None


def refusal(key: str, host: str, port: int, reason: Exception) -> OSError:
    """Return the error to raise: of server.host, or of the port whose setting is `key`."""
    said = (isinstance(reason, OSError) and reason.strerror) or reason
    if isinstance(reason, socket.gaierror) or getattr(reason, "errno", None) == errno.EADDRNOTAVAIL:
        return OSError(f"server.host: want an address of this machine, got {host!r} ({said})")
    return OSError(f"{key}: want a free port, got {host}:{port} ({said})")
