"""The process keeps its memory, and says so when it is told too late."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from iguana_server import process

GLIBC = platform.libc_ver()[0] == "glibc"
MAPPED = """
import ctypes, sys, threading

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo2
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
if sys.argv[1] == "prepared":
    from iguana_server import process
    process.prepare()

def own_mappings():
    before = libc.mallinfo2().hblks
    assert libc.malloc(200 << 20)
    print(libc.mallinfo2().hblks - before)

own_mappings()
thread = threading.Thread(target=own_mappings)  # the engine's
thread.start()
thread.join()
"""


def _run(code: str, *arguments: str, **variables: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_", "GOMP_"))}
    env |= {"PYTHONPATH": ":".join(sys.path), **variables}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.skipif(not GLIBC, reason="the settings are glibc's")
def test_large_blocks_come_from_the_heap_in_every_thread() -> None:
    assert _run(MAPPED, "bare").split() == ["1", "1"]
    assert _run(MAPPED, "prepared").split() == ["0", "0"]


@pytest.mark.skipif(not GLIBC, reason="the settings are glibc's")
def test_what_the_user_has_set_stands() -> None:
    assert _run(MAPPED, "prepared", MALLOC_MMAP_THRESHOLD_="1000000").split() == ["1", "1"]
    code = "from iguana_server import process; process.prepare(); import os; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert _run(code, OMP_WAIT_POLICY="ACTIVE").strip() == "None"
    assert _run(code, GOMP_SPINCOUNT="7").strip() == "7"
    assert _run(code).strip() == process.SPINS


def test_too_late_is_refused() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys\n"
        "from iguana_server import process\n"
        "try: process.prepare()\n"
        "except RuntimeError as error: print(error)\n"
    )
    assert "before torch is imported" in _run(code)
