"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import torch


def machine() -> dict[str, str | int]:
    """Return processor, cores, device, versions, commit."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": cuda,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "commit": commit(),
    }


def processor() -> str:
    """Return what the system calls its processor."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def commit() -> str:
    """Return the checkout's commit, marked where files differ from it; "unknown" outside a checkout."""
    root = Path(__file__).parent.parent
    said = subprocess.run(
        ["git", "-C", root, "describe", "--always", "--dirty", "--exclude=*"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def busy_s() -> float:
    """Return the seconds of work of all cores since the machine started, waiting and idling apart."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft, *_ = (int(word) for word in words)
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """Return the seconds of work of this process and all below it that live: of busy_s, what is not others'."""
    spent: dict[int, float] = {}
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        words = text.rpartition(")")[2].split()  # from the state on, field 3 of proc(5)
        pid = int(path.parent.name)
        below.setdefault(int(words[1]), []).append(pid)
        spent[pid] = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    total, waiting = 0.0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        total += spent.get(pid, 0.0)
        waiting += below.get(pid, [])
    return total
