"""Each native op against eager torch as the attack libraries write it, and plain ops of as many bytes.

    python benchmarks/kernels.py [--threads 1] [--repeats 15] [--json FILE]

Times are medians of runs that alternate between the three, so that a disturbance meets all of them. The
limit is plain ops (`copy_`, `add`, `addcmul`, a conversion, a fill) that read and write as many bytes as
the op must; where the op needs several passes (a norm before a step) the limit counts one.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.ops import reference

Run = Callable[[], object]
WARM_UP = 2  # runs


@dataclass(frozen=True)
class Case:
    """One op on one size: the native call, the eager one, and the limit."""

    name: str
    native: Run
    eager: Run
    limit: Run


def limit(like: Tensor, *passes: int) -> Run:
    """Return plain ops over fresh images; each pass reads 1, 2 or 3 of them and writes one."""
    a, b, c, out = (torch.rand_like(like) for _ in range(4))
    plain: dict[int, Run] = {
        1: lambda: out.copy_(a),
        2: lambda: torch.add(a, b, out=out),
        3: lambda: torch.addcmul(a, b, c, out=out),
    }

    def run() -> None:
        for reads in passes:
            plain[reads]()

    return run


def cases(shape: tuple[int, ...]) -> list[Case]:
    """Every op on images [n, C, H, W]; parameters as columns for the op, broadcast for eager torch."""
    n = shape[0]
    x, old, x0, d, m, v = (torch.rand(shape) for _ in range(6))
    d -= 0.5
    e, a, one = torch.full((n,), 8 / 255), torch.full((n,), 2 / 255), torch.ones(n)
    far, adam, t = torch.full((n,), 3.0), torch.ones(n, dtype=torch.bool), torch.full((n,), 7)
    e4, a4 = reference.rows(e, x), reference.rows(a, x)
    u8 = torch.randint(0, 256, (n, *shape[2:], shape[1]), dtype=torch.uint8)
    scale, bias = torch.ones(shape[1]), torch.zeros(shape[1])
    key = torch.arange(n)
    size = x[0].numel()

    def linf() -> None:
        adv = x + a4 * d.sign()
        x.copy_(torch.clamp(x0 + torch.clamp(adv - x0, -e4, e4), 0, 1))

    def l2() -> None:
        adv = x + a4 * (d / (d.view(n, -1).norm(p=2, dim=1) + 1e-10).view(-1, 1, 1, 1))
        delta = adv - x0
        factor = torch.min(far / delta.view(n, -1).norm(p=2, dim=1), one)
        x.copy_(torch.clamp(x0 + delta * factor.view(-1, 1, 1, 1), 0, 1))

    def momentum() -> None:
        m.copy_(d / d.abs().mean(dim=(1, 2, 3), keepdim=True) + m * 1.0)

    def optimise() -> None:
        g = d + 2 * e4 * (x - x0)
        m.mul_(0.9).add_(g, alpha=0.1)
        v.mul_(0.999).addcmul_(g, g, value=0.001)
        x.sub_(a4 * (m / (1 - 0.9**7)) / ((v / (1 - 0.999**7)).sqrt() + 1e-8)).clamp_(0, 1)

    return [
        Case("linf_step_", lambda: ops.linf_step_(x, x0, d, e, a), linf, limit(x, 3)),
        Case("l2_step_", lambda: ops.l2_step_(x, x0, d, far, a), l2, limit(x, 3)),
        Case("momentum_", lambda: ops.momentum_(m, d, one), momentum, limit(x, 2)),
        Case(
            "apgd_step_",
            lambda: ops.apgd_step_(x, old, x0, d, e, a, a),
            lambda: reference.apgd_step_(x, old, x0, d, e, a, a),
            limit(x, 2, 2),
        ),
        Case(
            "forge_step_ (Adam)",
            lambda: ops.forge_step_(x, m, v, x0, d, t, a, e, adam),
            optimise,
            limit(x, 2, 2, 1),
        ),
        Case(
            "grid_",
            lambda: ops.grid_(x, x0, e),
            lambda: reference.grid_(x, x0, e),
            limit(x, 2),
        ),
        Case("keep_", lambda: ops.keep_(old, x, adam), lambda: old.copy_(x), limit(x, 1)),
        Case(
            "pixels_to_float NCHW",
            lambda: ops.pixels_to_float(u8, scale, bias, channels_last=False),
            lambda: u8.permute(0, 3, 1, 2).float().contiguous().div_(255),
            u8.float,
        ),
        Case(
            "pixels_to_float NHWC",
            lambda: ops.pixels_to_float(u8, scale, bias, channels_last=True),
            lambda: u8.float().div_(255),
            u8.float,
        ),
        Case(
            "float_to_pixels NCHW",
            lambda: ops.float_to_pixels(x),
            lambda: (x * 255).round_().clamp_(0, 255).permute(0, 2, 3, 1).to(torch.uint8).contiguous(),
            lambda: x.to(torch.uint8),
        ),
        Case(
            "philox_uniform",
            lambda: ops.philox_uniform(key, key, key, key, size),
            lambda: torch.rand(n, size),
            lambda: torch.zeros(n, size),
        ),
        Case(
            "philox_normal",
            lambda: ops.philox_normal(key, key, key, key, size),
            lambda: torch.randn(n, size),
            lambda: torch.zeros(n, size),
        ),
    ]


def measure(case: Case, repeats: int) -> dict[str, float]:
    """Return the median milliseconds of each side, alternating between them."""
    sides: dict[str, Run] = {"native": case.native, "eager": case.eager, "limit": case.limit}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(repeats + WARM_UP):
        for side, run in sides.items():
            start = time.perf_counter()
            run()
            if repeat >= WARM_UP:
                times[side].append((time.perf_counter() - start) * 1e3)
    return {side: statistics.median(values) for side, values in times.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the table to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(*(f"{key}: {value}" for key, value in machine.items()), sep=", ")
    columns = ("native ms", "eager ms", "limit ms", "eager/op", "op/limit")
    print(f"{'op':22}{'images':>16}" + "".join(f"{column:>11}" for column in columns))
    results = []
    for shape in ((16, 3, 224, 224), (256, 1, 28, 28)):
        for case in cases(shape):
            ms = measure(case, arguments.repeats)
            images = "x".join(map(str, shape))
            ratios = ms["eager"] / ms["native"], ms["native"] / ms["limit"]
            numbers = (f"{value:11.3f}" for value in (*ms.values(), *ratios))
            print(f"{case.name:22}{images:>16}" + "".join(numbers))
            results.append({"op": case.name, "images": shape, "ms": ms})
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


def cpu_name() -> str:
    """Return what the system calls its processor."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
