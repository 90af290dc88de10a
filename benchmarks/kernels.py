"""Each native op against eager torch as the attack libraries write it, compiled torch, and its own traffic.

    python -m benchmarks.kernels [--threads 1] [--rounds 15] [--device cpu|cuda] [--out FOLDER]

Sides, in turn in every round:
  native    the op;
  eager     the same step as torchattacks, foolbox and their kind write it, the result put where x lies;
  compiled  torch.compile of that, compile time left out; a case that the compiler refuses is named;
  limit     plain torch ops that move the bytes the op must move and compute next to nothing, in as many passes
            as its mathematics needs:
              linf_step_       reads x, x0, d, writes x
              l2_step_         reads d; reads x, x0, d, writes x; reads x, x0, writes x: a norm before the step,
                               another before the projection
              momentum_        reads g; reads m, g, writes m: the mean before the step
              apgd_step_       reads x, x0, d, writes x; reads x, writes x_old
              forge_step_      reads x, x_ref, g, writes x; reads and writes m; reads and writes v
              grid_            reads x, x0, writes x
              keep_            reads x, writes best
              pixels_to_float  reads bytes, writes floats
              float_to_pixels  reads floats; writes bytes
              philox_*         writes floats
            A limit of several passes takes a large image at a time, so that its later passes too find the
            image in the cache.

Philox is bound by arithmetic, not by traffic: ten rounds of two 32-bit products for four words, and for
normals a logarithm, a root, a sine and a cosine a pair; its limit says how far from memory it is, not how far
from its best. Memory that an op returns is kept by the process and used again: without that the system's
zeroing of fresh pages is most of what is timed, on every side.

A run is several calls, so that a side finds the caches as it left them itself, and all sides work on the same
memory; on CUDA it is many calls and one synchronisation. "of copy" is the op's bytes a second (those of the
limit's passes) over those of a large copy_ on the same device; an op whose images fit in a cache exceeds 1.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed

from benchmarks.record import Record, add_output
from benchmarks.rounds import Run, alternate
from iguana_server import ops
from iguana_server.ops import reference

SHAPES = {
    "cpu": ((16, 3, 224, 224), (256, 1, 28, 28)),
    "cuda": ((256, 3, 224, 224), (16, 3, 224, 224)),  # the first is far larger than a GPU's cache
}
CALLS = {"cpu": 5, "cuda": 20}  # a run
COPY_BYTES = 2**28
LARGE_BYTES = 2**16  # an image from here on is walked alone


@dataclass(frozen=True)
class Case:
    """One op on one shape: the native call, the eager one, the limit and the bytes that it moves."""

    name: str
    native: Run
    eager: Run
    limit: Run
    bytes: int


def passes(images: tuple[Tensor, ...], walk: Callable[..., object]) -> Run:
    """Return a run that walks all images, a large one at a time on a CPU."""
    first = images[0]
    if first.is_cuda or first[0].nbytes < LARGE_BYTES:
        return lambda: walk(*images)
    parts = [tuple(image[row] for image in images) for row in range(len(first))]

    def run() -> None:
        for part in parts:
            walk(*part)

    return run


def l2_passes(x: Tensor, x0: Tensor, d: Tensor) -> None:
    """8 images: d; x, x0, d, x; x, x0, x."""
    d.sum()
    x.addcmul_(x0, d)
    x.add_(x0)


def momentum_passes(m: Tensor, g: Tensor) -> None:
    """4 images: g; m, g, m."""
    g.sum()
    m.add_(g)


def apgd_passes(x: Tensor, x_old: Tensor, x0: Tensor, d: Tensor) -> None:
    """6 images: x, x0, d, x; x, x_old."""
    x.addcmul_(x0, d)
    x_old.copy_(x)


def forge_passes(x: Tensor, m: Tensor, v: Tensor, x_ref: Tensor, g: Tensor) -> None:
    """8 images: x, x_ref, g, x; m, m; v, v."""
    x.addcmul_(x_ref, g)
    m.mul_(1)
    v.mul_(1)


def cases(shape: tuple[int, ...], device: str) -> list[Case]:
    """Every op on images [n, C, H, W]; parameters as columns for the op, broadcast for eager torch."""
    n, channels, *side = shape
    x, old, x0, d, m, v = (torch.rand(shape, device=device) for _ in range(6))
    d -= 0.5
    epsilon, alpha, one = (torch.full((n,), value, device=device) for value in (8 / 255, 2 / 255, 1.0))
    radius, adam, t = one * 3, one > 0, torch.full((n,), 7, device=device)
    epsilon4, alpha4 = reference.rows(epsilon, x), reference.rows(alpha, x)
    u8 = torch.randint(0, 256, (n, *side, channels), dtype=torch.uint8, device=device)
    scale, bias = torch.ones(channels, device=device), torch.zeros(channels, device=device)
    key = torch.arange(n, device=device)
    size, image = x[0].numel(), x.nbytes

    def linf() -> Tensor:
        moved = x + alpha4 * d.sign()
        return x.copy_(torch.clamp(x0 + torch.clamp(moved - x0, -epsilon4, epsilon4), 0, 1))

    def l2() -> Tensor:
        moved = x + alpha4 * (d / (d.view(n, -1).norm(p=2, dim=1) + 1e-10).view(-1, 1, 1, 1))
        delta = moved - x0
        factor = torch.min(radius / delta.view(n, -1).norm(p=2, dim=1), one)
        return x.copy_(torch.clamp(x0 + delta * factor.view(-1, 1, 1, 1), 0, 1))

    def momentum() -> Tensor:
        return m.copy_(d / d.abs().mean(dim=(1, 2, 3), keepdim=True) + m * 1.0)

    def optimise() -> Tensor:
        g = d + 2 * epsilon4 * (x - x0)
        m.mul_(0.9).add_(g, alpha=0.1)
        v.mul_(0.999).addcmul_(g, g, value=0.001)
        return x.sub_(alpha4 * (m / (1 - 0.9**7)) / ((v / (1 - 0.999**7)).sqrt() + 1e-8)).clamp_(0, 1)

    def byte_passes() -> None:
        x.sum()
        torch.zeros_like(u8)

    return [
        Case(
            "linf_step_",
            lambda: ops.linf_step_(x, x0, d, epsilon, alpha),
            linf,
            lambda: x.addcmul_(x0, d),
            4 * image,
        ),
        Case(
            "l2_step_",
            lambda: ops.l2_step_(x, x0, d, radius, alpha),
            l2,
            passes((x, x0, d), l2_passes),
            8 * image,
        ),
        Case(
            "momentum_",
            lambda: ops.momentum_(m, d, one),
            momentum,
            passes((m, d), momentum_passes),
            4 * image,
        ),
        Case(
            "apgd_step_",
            lambda: ops.apgd_step_(x, old, x0, d, epsilon, alpha, alpha),
            lambda: reference.apgd_step_(x, old, x0, d, epsilon, alpha, alpha),
            passes((x, old, x0, d), apgd_passes),
            6 * image,
        ),
        Case(
            "forge_step_ (Adam)",
            lambda: ops.forge_step_(x, m, v, x0, d, t, alpha, epsilon, adam),
            optimise,
            passes((x, m, v, x0, d), forge_passes),
            8 * image,
        ),
        Case(
            "grid_",
            lambda: ops.grid_(x, x0, epsilon),
            lambda: reference.grid_(x, x0, epsilon),
            lambda: x.add_(x0),
            3 * image,
        ),
        Case("keep_", lambda: ops.keep_(old, x, adam), lambda: old.copy_(x), lambda: old.copy_(x), 2 * image),
        Case(
            "pixels_to_float NCHW",
            lambda: ops.pixels_to_float(u8, scale, bias, channels_last=False),
            lambda: u8.permute(0, 3, 1, 2).float().contiguous().div_(255),
            u8.float,
            u8.nbytes + image,
        ),
        Case(
            "pixels_to_float NHWC",
            lambda: ops.pixels_to_float(u8, scale, bias, channels_last=True),
            lambda: u8.float().div_(255),
            u8.float,
            u8.nbytes + image,
        ),
        Case(
            "float_to_pixels NCHW",
            lambda: ops.float_to_pixels(x),
            lambda: (x * 255).round_().clamp_(0, 255).permute(0, 2, 3, 1).to(torch.uint8).contiguous(),
            byte_passes,
            image + u8.nbytes,
        ),
        Case(
            "philox_uniform",
            lambda: ops.philox_uniform(key, key, key, key, size),
            lambda: torch.rand(n, size, device=device),
            lambda: torch.zeros(n, size, device=device),
            image,
        ),
        Case(
            "philox_normal",
            lambda: ops.philox_normal(key, key, key, key, size),
            lambda: torch.randn(n, size, device=device),
            lambda: torch.zeros(n, size, device=device),
            image,
        ),
    ]


def compiled(case: Case) -> Run | None:
    """Compile the eager side and run it once; name the case and the error where that is refused."""
    torch._dynamo.reset()
    run: Run = torch.compile(case.eager, dynamic=False)
    try:
        run()
    except BackendCompilerFailed as error:
        print(f"{case.name}: torch.compile refuses: {type(error).__name__}: {error}".split("\n", 1)[0])
        return None
    return run


def repeated(run: Run, device: str) -> Run:
    """Return a run of CALLS calls that ends when the device has done them."""

    def whole() -> None:
        for _ in range(CALLS[device]):
            run()
        if device == "cuda":
            torch.cuda.synchronize()

    return whole


def seconds(sides: dict[str, Run], device: str, rounds: int) -> dict[str, float]:
    """Return the median seconds of one call of each side."""
    times = alternate({name: repeated(run, device) for name, run in sides.items()}, rounds, warm_up=3)
    return {name: statistics.median(values) / CALLS[device] for name, values in times.items()}


def copy_rate(device: str, rounds: int) -> float:
    """Return the bytes a second, read and written, of a copy much larger than any cache."""
    source, target = (torch.ones(COPY_BYTES // 4, device=device) for _ in range(2))
    return 2 * COPY_BYTES / seconds({"copy": lambda: target.copy_(source)}, device, rounds)["copy"]


def keep_memory() -> None:
    """Have malloc give nothing back to the system: glibc's M_TRIM_THRESHOLD and M_MMAP_MAX."""
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(-1, 2**31 - 1) and libc.mallopt(-4, 0)):
        raise OSError("mallopt: want 1, got 0")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=sorted(SHAPES), default="cpu")
    add_output(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_memory()
    device, rounds = arguments.device, arguments.rounds
    where = "cuda" if device == "cuda" else f"{arguments.threads} threads"
    record = Record("kernels" if where == "1 threads" else f"kernels-{where.replace(' ', '-')}")
    copy = copy_rate(device, rounds)
    record.add({"op": "copy_", "images": f"{COPY_BYTES >> 20} MiB", "where": where}, {"GB/s": copy / 1e9})
    for shape in SHAPES[device]:
        for case in cases(shape, device):
            sides = {"native": case.native, "eager": case.eager, "limit": case.limit}
            fused = compiled(case)
            if fused:
                sides["compiled"] = fused
            time = seconds(sides, device, rounds)
            rate = case.bytes / time["native"]
            record.add(
                {"op": case.name, "images": "x".join(map(str, shape)), "where": where},
                {
                    **{f"{name} ms": value * 1e3 for name, value in time.items()},
                    "eager / native": time["eager"] / time["native"],
                    **({"compiled / native": time["compiled"] / time["native"]} if fused else {}),
                    "native / limit": time["native"] / time["limit"],
                    "GB/s": rate / 1e9,
                    "of copy": rate / copy,
                },
            )
    record.write(arguments.out)


if __name__ == "__main__":
    main()
