"""Build Iguana's native extension and its stubs; also the server distribution's PEP 517 backend.

    python build.py [extension]        csrc/ -> server/iguana_server/_C.so, recompiling what changed
    python build.py stubs [--check]    proto/ -> clients/python/, or fail naming the files that differ

Wheels: `pip wheel --no-deps .` (in this folder `python -m build` runs this file). Environment:
IGUANA_CUDA=auto|0|1 (auto: if nvcc is there), IGUANA_CUDA_ARCHS="80;90", CXX, CUDA_HOME (else
/usr/local/cuda, else the toolkit of the nvcc in PATH).
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
LIBRARY = Path("server/iguana_server/_C.so")
STUBS = Path("clients/python")
TORCH = "torch==2.13.0"  # asked for only where none is at hand; the binary fits any torch >= 2.11

CUDA = "/usr/local/cuda"  # looked into before PATH

# -O3 and -fno-trapping-math vectorise, -fno-math-errno lets sqrt be an instruction, -fno-thread-jumps keeps
# branches out of clamps and comparisons in a row; none of them changes a value. Nothing is fused, so that the
# results equal eager torch in every bit.
CXX_FLAGS = [
    *("-std=c++20", "-O3", "-fno-trapping-math", "-fno-math-errno", "-ffp-contract=off"),
    *("-fno-thread-jumps", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"),
    "-DTORCH_TARGET_VERSION=0x020b000000000000",
]
NVCC_FLAGS = [
    *("-std=c++20", "-O3", "-fmad=false", "-Xcompiler", "-fPIC,-fvisibility=hidden"),
    *("-Xptxas", "-v,-warn-spills,--warning-as-error"),
]


def torch_dirs() -> list[Path]:
    """Return torch's folders with the stable ABI's headers: ours, then the outer one of an isolated build."""
    spec = importlib.util.find_spec("torch")
    found = [Path(spec.origin).parent] if spec and spec.origin else []
    found.append(Path(sysconfig.get_path("platlib")) / "torch")
    return [folder for folder in found if (folder / "include/torch/csrc/stable/library.h").exists()]


def toolkit_of(nvcc: str) -> Path:
    """Return the folder of the toolkit that `nvcc`, maybe a wrapper script, belongs to: it says so itself."""
    said = _run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull])
    here = re.search(r"^#\$ _HERE_=(.+)$", said, re.MULTILINE)
    if not here:
        sys.exit(f"{nvcc} --dryrun: want a line _HERE_=, got none; set CUDA_HOME")
    return Path(here[1]).parent


def cuda_home() -> Path | None:
    """Return the CUDA toolkit to build with, or None for the CPU half alone."""
    wanted = os.environ.get("IGUANA_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"IGUANA_CUDA: want auto, 0 or 1, got {wanted}")
    if wanted == "0":
        return None
    home = Path(os.environ.get("CUDA_HOME", CUDA))
    nvcc = shutil.which("nvcc")
    if nvcc and "CUDA_HOME" not in os.environ and not (home / "bin/nvcc").exists():
        home = toolkit_of(nvcc)
    if (home / "bin/nvcc").exists():
        return home
    if wanted == "1":
        sys.exit(f"IGUANA_CUDA=1: want nvcc in {home / 'bin'}, got none; set CUDA_HOME")
    return None


class Toolchain:
    """The compilers and their flags; `objects` is a folder of its own for each set of them."""

    def __init__(self) -> None:
        """Choose by the environment."""
        torch = torch_dirs()
        if not torch:
            sys.exit(f"torch: want an installation with headers, got none; pip install {TORCH}")
        self.torch = torch[0]
        self.cuda = cuda_home()
        cxx = os.environ.get("CXX", "g++")
        self.cxx = [cxx, *CXX_FLAGS, "-isystem", str(self.torch / "include")]
        self.nvcc: list[str] = []
        if self.cuda:
            self.cxx.append("-DIGUANA_CUDA")
            archs = os.environ.get("IGUANA_CUDA_ARCHS", "80;90").split(";")
            codes = [f"arch=compute_{arch},code=sm_{arch}" for arch in archs]
            codes.append(f"arch=compute_{archs[-1]},code=compute_{archs[-1]}")  # PTX for what comes after
            gencode = [word for code in codes for word in ("-gencode", code)]
            self.nvcc = [str(self.cuda / "bin/nvcc"), "-ccbin", cxx, *NVCC_FLAGS, *gencode]
        version = (self.torch / "version.py").read_text()
        key = hashlib.sha256(repr((self.cxx, self.nvcc, version)).encode()).hexdigest()
        self.objects = Path("build") / key[:16]

    def compile(self, source: Path) -> Path:
        """Compile one file of csrc unless its object is newer than everything it includes."""
        target = self.objects / f"{source}.o"
        if _fresh(ROOT / target):
            return target
        compiler = self.nvcc if source.suffix == ".cu" else self.cxx
        (ROOT / target).parent.mkdir(parents=True, exist_ok=True)
        depfile = target.with_suffix(".d")
        try:
            log = _run([*compiler, "-c", str(source), "-o", str(target), "-MMD", "-MF", str(depfile)])
        except SystemExit:
            (ROOT / target).unlink(missing_ok=True)
            raise
        (ROOT / target.with_suffix(".log")).write_text(log)
        return target

    def link(self, objects: list[Path]) -> Path:
        """Link `_C.so`. It must name libtorch.so: only that brings a CUDA torch's symbols into our scope."""
        target = self.objects / "_C.so"
        if (ROOT / target).exists() and all(
            (ROOT / one).stat().st_mtime <= (ROOT / target).stat().st_mtime for one in objects
        ):
            return target
        torch = [
            f"-L{self.torch / 'lib'}",
            *["-Wl,--no-as-needed", "-ltorch", "-Wl,--as-needed", "-ltorch_cpu", "-lc10"],
        ]
        cuda = (
            [f"-L{self.cuda / 'lib64'}", *["-lcudart_static", "-lrt", "-lpthread", "-ldl"]]
            if self.cuda
            else []
        )
        files = [str(one) for one in objects]
        _run([self.cxx[0], "-shared", "-o", str(target), *files, *torch, *cuda, "-Wl,--exclude-libs,ALL"])
        return target


def _run(command: list[str]) -> str:
    """Run a command in ROOT and return what it printed; exit with that if it fails."""
    print(shlex.join(command), flush=True)
    done = subprocess.run(
        command, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed ({done.returncode}): {command[0]}")
    return done.stdout


def _fresh(target: Path) -> bool:
    """Whether an object is newer than all that the compiler said it is made of."""
    depfile = target.with_suffix(".d")
    if not (target.exists() and depfile.exists()):
        return False
    made_of = depfile.read_text().split(":", 1)[1].replace("\\\n", " ").split()
    built = target.stat().st_mtime
    return all((ROOT / name).exists() and (ROOT / name).stat().st_mtime <= built for name in made_of)


def registers(logs: list[str]) -> str:
    """Return a table of kernels and the registers of a thread, from what `ptxas -v` said."""
    pattern = r"Compiling entry function '(\w+)' for '(\w+)'(?:.*\n)+?.*Used (\d+) registers"
    found = [match for log in logs for match in re.findall(pattern, log)]
    if not found:
        return ""
    names = "\n".join(kernel for kernel, _, _ in found)
    demangle = [shutil.which("c++filt") or "cat"]
    full = subprocess.run(demangle, input=names, check=True, text=True, stdout=subprocess.PIPE).stdout
    table: dict[str, dict[str, str]] = {}
    for (_, arch, count), name in zip(found, full.splitlines(), strict=True):
        short = re.sub(r"\(anonymous namespace\)::|(iguana|cuda)::|^void |\([^()]*\)$", "", name)
        table.setdefault(short, {})[arch] = count
    archs = sorted({arch for _, arch, _ in found})
    lines = [f"{'registers a thread':58}" + "".join(f"{arch:>7}" for arch in archs)]
    lines += [
        f"{name:58}" + "".join(f"{row.get(arch, '-'):>7}" for arch in archs) for name, row in table.items()
    ]
    return "\n".join(lines)


def extension() -> None:
    """Compile csrc/ into the server package."""
    tools = Toolchain()
    sources = [
        source for pattern in ("*.cpp", "cpu/*.cpp") for source in sorted((ROOT / "csrc").glob(pattern))
    ]
    if tools.cuda:
        sources += sorted((ROOT / "csrc").glob("cuda/*.cu"))
    with ThreadPoolExecutor(max_workers=2) as pool:
        objects = list(pool.map(tools.compile, [source.relative_to(ROOT) for source in sources]))
    built = ROOT / tools.link(objects)
    if not (ROOT / LIBRARY).exists() or not filecmp.cmp(built, ROOT / LIBRARY, shallow=False):
        shutil.copy2(built, ROOT / f"{LIBRARY}.new")
        (ROOT / f"{LIBRARY}.new").rename(ROOT / LIBRARY)  # a running server keeps the old file
    print(registers([(ROOT / one.with_suffix(".log")).read_text() for one in objects]))
    print(f"{LIBRARY}: {'CPU and CUDA' if tools.cuda else 'CPU only'}")


def _generate(target: Path) -> dict[str, bytes]:
    """Run protoc over proto/ into a folder; return what it made."""
    protos = sorted(
        str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto/iguana").rglob("*.proto")
    )
    if not protos:
        sys.exit("proto/iguana: want .proto files, got none")
    tools = importlib.util.find_spec("grpc_tools")
    if not (tools and tools.origin):
        sys.exit("grpc_tools: want protoc, got none; pip install grpcio-tools mypy-protobuf")
    scripts = Path(sysconfig.get_path("scripts"))
    plugins = [f"--plugin=protoc-gen-{name}={scripts}/protoc-gen-{name}" for name in ("mypy", "mypy_grpc")]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    include = [f"-I{ROOT / 'proto'}", f"-I{Path(tools.origin).parent / '_proto'}"]
    _run([sys.executable, "-m", "grpc_tools.protoc", *include, *plugins, *outputs, *protos])
    return _stubs_in(target)


def _stubs_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "iguana").rglob("*_pb2*.py*")
        if path.suffix in (".py", ".pyi")
    }


def stubs(*, check: bool = False) -> None:
    """Generate the client's stubs from proto/, or check that those committed are up to date."""
    with tempfile.TemporaryDirectory() as folder:
        made = _generate(Path(folder))
    present = _stubs_in(ROOT / STUBS)
    differ = sorted(name for name in made.keys() | present.keys() if made.get(name) != present.get(name))
    if check and differ:
        sys.exit("differ from proto/ (run `python build.py stubs`):\n  " + "\n  ".join(differ))
    for name in differ:
        path = ROOT / STUBS / name
        if name in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made[name])
        else:
            path.unlink()
    print(f"{STUBS}: {len(made)} stubs, {len(differ)} changed")


# ---- PEP 517 and 660: our wheels, and setuptools' own hooks for the rest -----------------------------------


def get_requires_for_build_wheel(_settings: dict[str, Any] | None = None) -> list[str]:
    """Ask for torch only if none is at hand."""
    return [] if torch_dirs() else [TORCH]


get_requires_for_build_editable = get_requires_for_build_wheel


def build_wheel(folder: str, settings: dict[str, Any] | None = None, metadata: str | None = None) -> str:
    """Build the extension, then a wheel that fits any Python 3 on this platform."""
    extension()
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    settings = {**(settings or {}), "--build-option": ["--plat-name", platform]}
    return str(__getattr__("build_wheel")(folder, settings, metadata))


def build_editable(folder: str, settings: dict[str, Any] | None = None, metadata: str | None = None) -> str:
    """Build the extension in place, then setuptools' editable wheel."""
    extension()
    return str(__getattr__("build_editable")(folder, settings, metadata))


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return getattr(importlib.import_module("setuptools.build_meta"), name)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="build.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python build.py [extension | stubs [--check]]  (for a wheel: pip wheel --no-deps .)",
    )  # fmt: skip
    parser.set_defaults(check=None)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("extension", help="compile csrc/ into the server package (the default)")
    stubs_parser = commands.add_parser("stubs", help="generate the client's stubs from proto/")
    stubs_parser.add_argument("--check", action="store_true", help="change nothing; fail if a stub differs")
    arguments = parser.parse_args()
    if arguments.command == "stubs":
        stubs(check=arguments.check)
    else:
        extension()


if __name__ == "__main__":
    main()
