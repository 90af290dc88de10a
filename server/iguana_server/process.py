"""What a process must be told before torch is imported: memory it keeps, threads that sleep.

A pass allocates and frees hundreds of MB, which glibc by default gives back to the kernel and faults in
again, page by page. Told to keep it, EfficientNet-Lite0 on one thread of two shared cores costs, in CPU ms:

    rows of a pass             forward 1    8    32    gradient 1    8
    glibc's defaults                  29  247  1310            67  543
    mallopt                           26  156   873            58  426
    mallopt, and one arena            24  163   624            59  416    50 to 250 MB less than two arenas
    variables and a re-exec           24  160                  54  373

mallopt in this process does what variables and a re-exec do (the difference is noise): so there is no re-exec.
One arena matters to large passes: the engine's thread is not the main one, and the heap of another arena ends
at 64 MB.

OpenMP keeps a team of threads for each thread that has computed in parallel, until that thread ends. With more
of them than cores libgomp hardly spins (GOMP_SPINCOUNT or not), and a team that sleeps between two loops runs
like one thread: EfficientNet-Lite0, one row, two cores, 15 ms beside no other team and 29 ms beside one that
does nothing. So one living thread has a team, the engine's; see app.py.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

MIB = 1024 * 1024
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # malloc.h
MALLOC = {
    M_MMAP_THRESHOLD: 1024 * MIB,  # no mapping of its own for a block below this; see malloc_settings
    M_TRIM_THRESHOLD: 2048 * MIB - 1,  # keep this much free at the top of the heap (an int)
    M_TOP_PAD: 256 * MIB,  # grow in steps of this
    M_ARENA_MAX: 1,  # the engine's thread has no arena of its own, whose heap ends at 64 MiB
}

OLD_THRESHOLD = 32 * MIB  # the largest M_MMAP_THRESHOLD that glibc takes before 2.35

SPINS = "5000"  # some 20 us

# Kernels that oneDNN keeps compiled. A model has some hundred for every size of pass, and its 1024 push each
# other out: EfficientNet-Lite0 with passes of changing size took 93 ms for one row instead of 35.
PRIMITIVES = "4096"
SWITCH_S = (
    0.0005  # torch lets the interpreter go at every op, and gets it back from the event loop after this long
)


def give_back() -> None:
    """Give freed memory back to the kernel, once, where glibc has been told to keep it.

    Loading and probing a model takes several times the memory that serving it does.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def malloc_settings(glibc: str) -> dict[int, int]:
    """Return what to ask of mallopt; `glibc` is the library's version, such as "2.36"."""
    major, minor = (int(part) for part in glibc.split(".")[:2])
    return MALLOC if (major, minor) >= (2, 35) else MALLOC | {M_MMAP_THRESHOLD: OLD_THRESHOLD}


def prepare() -> None:
    """Set the allocator, OpenMP and how often threads take turns. Call it before torch is imported; raises RuntimeError after that.

    OpenMP threads that wait spin for a moment, then sleep: spinning for long, as by default, they starve the
    event loop and each other (50 times slower beside another busy process); sleeping at once, they are woken
    too late (2.5 times slower at one row). What the user has set by a variable of OMP_, GOMP_, ONEDNN_ or MALLOC_
    stands, as does an allocator that is not glibc's.
    """
    if "torch" in sys.modules:
        raise RuntimeError("process.prepare: want it before torch is imported, got it after")
    sys.setswitchinterval(SWITCH_S)
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
        os.environ["GOMP_SPINCOUNT"] = SPINS
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)
    library, version = platform.libc_ver()
    if library == "glibc" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in malloc_settings(version).items():
            if not mallopt(parameter, value):
                raise RuntimeError(f"mallopt({parameter}, {value}): want 1, got 0")
