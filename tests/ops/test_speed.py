"""The loops of the CPU are vectorised: by their instructions, and by the clock."""

import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from iguana_server import ops

LIBRARY = Path(ops.__file__).parents[1] / "_C.so"

# A function's name in the library -> what a packed loop of it must hold, at the least, in both of its clones.
LOOPS = {
    "loop<iguana::LinfStep": ("mul", "add", "min"),
    "loop<iguana::ApgdStep": ("mul", "add", "min", "max"),
    "loop<iguana::L2Project": ("mul", "add", "sub"),
    "values<iguana::L2Move": ("mul", "add", "div"),
    "loop<iguana::MomentumStep": ("mul", "add", "div"),
    "loop<iguana::ForgeAdam": ("mul", "add", "div", "sqrt"),
    "loop<iguana::ForgeSign": ("mul", "add", "sub"),
    "loop<iguana::GridStep": ("mul", "add", "max"),
    "floats_of(unsigned char": ("mul", "add"),
    "pixels_of(float const": ("mul", "add"),
    "draws_of<iguana::Normal": ("mul", "add", "sqrt"),
    "draws_of<iguana::Uniform": ("mul",),
}


def functions() -> dict[str, str]:
    """Disassembly of the library, by demangled name."""
    objdump = shutil.which("objdump")
    assert objdump, "objdump: want binutils, which come with g++, got none"
    command = [objdump, "-dC", "--no-show-raw-insn", str(LIBRARY)]
    text = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    return dict(re.findall(r"^[0-9a-f]+ <(.*)>:\n((?:.+\n)*)", text, re.MULTILINE))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions named are x86's")
def test_loops_are_vectorised() -> None:
    code = functions()
    for loop, wanted in LOOPS.items():
        for clone, form in (("default", r"\b{}ps "), ("arch_x86_64_v3", r"\bv{}ps .*%ymm")):
            bodies = [body for name, body in code.items() if loop in name and f"[clone .{clone}" in name]
            assert len(bodies) == 1, f"{loop}, {clone}: want one function, got {len(bodies)}"
            missing = [word for word in wanted if not re.search(form.format(word), bodies[0])]
            assert not missing, f"{loop}, {clone}: no packed {missing}"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions named are x86's")
def test_words_of_noise_are_drawn_by_vectors() -> None:
    (body,) = (
        body for name, body in functions().items() if "words_of(" in name and "[clone .arch_x86_64_v3" in name
    )
    assert re.search(r"\bvpmuludq .*%ymm", body)
    assert not re.search(r"\bvperm\w+ .*\n(?:.+\n)*.*\bvpmuludq ", body), "a shuffle inside a round"


def fastest(run: Callable[[], object], repeats: int = 40) -> float:
    """Return the shortest of many runs, in seconds: what the machine does when nothing disturbs it."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def test_linf_step_costs_a_few_copies() -> None:
    shape = (8, 3, 128, 128)
    x, x0, d, out = (torch.rand(shape) for _ in range(4))
    epsilon, alpha = torch.full((8,), 8 / 255), torch.full((8,), 2 / 255)
    d -= 0.5
    step = fastest(lambda: ops.linf_step_(x, x0, d, epsilon, alpha))
    copy = fastest(lambda: out.copy_(x))
    assert step < 6 * copy, f"{step / copy:.1f} copies"
