"""The process keeps its memory, and says so when it is told too late."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from iguana_server import process

GLIBC = platform.libc_ver()[0] == "glibc"
LARGE_HEAP = GLIBC and process.malloc_settings(platform.libc_ver()[1]) == process.MALLOC
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


@pytest.mark.skipif(not LARGE_HEAP, reason="the settings are glibc's, from 2.35 on")
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


def test_older_glibc_is_asked_for_what_it_takes() -> None:
    mib = 2**20
    thresholds = {
        version: process.malloc_settings(version)[process.M_MMAP_THRESHOLD] // mib
        for version in ("2.17", "2.34", "2.35", "2.36", "2.100", "3.0")
    }
    assert thresholds == {"2.17": 32, "2.34": 32, "2.35": 1024, "2.36": 1024, "2.100": 1024, "3.0": 1024}
    assert process.malloc_settings("2.34").keys() == process.MALLOC.keys()


@pytest.mark.skipif(not GLIBC, reason="the settings are glibc's")
def test_every_glibc_takes_the_older_settings() -> None:
    code = (
        "import platform; platform.libc_ver = lambda: ('glibc', '2.31')\n"
        "from iguana_server import process; process.prepare(); print('taken')"
    )
    assert _run(code).strip() == "taken"


def test_too_late_is_refused() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys\n"
        "from iguana_server import process\n"
        "try: process.prepare()\n"
        "except RuntimeError as error: print(error)\n"
    )
    assert "before torch is imported" in _run(code)
