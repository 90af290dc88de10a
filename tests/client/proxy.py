"""A TCP proxy whose network can be cut: connections stay open and nothing comes through, or end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    """Forwards to `target` until it is cut."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._upstream = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._cut = threading.Event()
        self._sockets: list[socket.socket] = []
        self.connections = 0
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut.set()

    def drop(self) -> None:
        """End the connections there are; new ones are taken."""
        sockets, self._sockets = self._sockets, []
        self._end(sockets)

    def close(self) -> None:
        self._end([self._listener, *self._sockets])

    @staticmethod
    def _end(sockets: list[socket.socket]) -> None:
        for one in sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)  # wakes whoever reads it
            except OSError:
                continue  # not connected any more
            finally:
                one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            far = socket.create_connection(self._upstream)
            self._sockets += [near, far]
            self.connections += 1
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                if not self._cut.is_set():
                    sink.sendall(data)
        except OSError:
            return  # closed


@contextmanager
def proxy_to(target: str) -> Iterator[Proxy]:
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
