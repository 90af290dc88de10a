"""build.py: what it refuses, what it rebuilds, what it packs."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import build as build_py

ROOT = Path(__file__).parents[1]
NVCC = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin/nvcc"
PROTO = """
syntax = "proto3";
package iguana.v1;
// Ask asks.
message Ask {
  // model is a name.
  string model = 1;
}
"""


def build(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "build.py", *arguments],
        cwd=root,
        env={**os.environ, **environment},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a copy of what is built, with the object cache, whose paths are relative."""
    for name in ("build.py", "pyproject.toml", "MANIFEST.in"):
        shutil.copy2(ROOT / name, tmp_path / name)
    for name in ("README.md", "LICENSE"):
        (tmp_path / name).write_text("Iguana\n")
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    for objects in (ROOT / "build").glob("*/csrc"):
        shutil.copytree(objects.parent, tmp_path / "build" / objects.parent.name)
    python = shutil.ignore_patterns("weights", "__pycache__", "*.so")
    shutil.copytree(ROOT / "server/iguana_server", tmp_path / "server/iguana_server", ignore=python)
    return tmp_path


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tree with one proto file and its stubs."""
    root = tmp_path_factory.mktemp("stubs")
    shutil.copy2(ROOT / "build.py", root / "build.py")
    (root / "proto/iguana/v1").mkdir(parents=True)
    (root / "proto/iguana/v1/ask.proto").write_text(PROTO)
    done = build(root, "stubs")
    assert done.returncode == 0, done.stdout
    return root


@pytest.fixture
def protos(stubs: Path, tmp_path: Path) -> Path:
    """Copy that tree, to be changed."""
    return shutil.copytree(stubs, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize("arguments", [["--wheel"], ["wheel"], ["extension", "--check"], ["stubs", "--chek"]])
def test_unknown_arguments_are_refused(arguments: list[str]) -> None:
    done = build(ROOT, *arguments)
    assert done.returncode == 2
    assert "pip wheel --no-deps ." in done.stdout


def test_unknown_knob_is_refused() -> None:
    done = build(ROOT, IGUANA_CUDA="yes")
    assert done.returncode == 1
    assert "IGUANA_CUDA: want auto, 0 or 1, got yes" in done.stdout


def test_missing_nvcc_fails_where_cuda_is_asked_for(tmp_path: Path) -> None:
    done = build(ROOT, IGUANA_CUDA="1", CUDA_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "IGUANA_CUDA=1: want nvcc in" in done.stdout


def test_toolkit_is_found_behind_a_wrapper_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolkit, programs = tmp_path / "toolkit", tmp_path / "programs"
    program(toolkit / "bin/nvcc", f"echo '#$ _SPACE_= '; echo '#$ _HERE_={toolkit}/bin' >&2")
    program(programs / "nvcc", f'exec {toolkit}/bin/nvcc "$@"')
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("IGUANA_CUDA", raising=False)
    monkeypatch.setattr(build_py, "CUDA", str(tmp_path / "none"))
    assert build_py.cuda_home() == toolkit
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "none"))  # what is named is not replaced
    assert build_py.cuda_home() is None
    monkeypatch.delenv("CUDA_HOME")
    program(toolkit / "bin/nvcc", "echo no toolkit")
    with pytest.raises(SystemExit, match="--dryrun: want a line _HERE_=, got none; set CUDA_HOME"):
        build_py.cuda_home()


def program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.mark.skipif(not NVCC.exists(), reason="no nvcc")
def test_real_nvcc_names_its_toolkit() -> None:
    assert build_py.toolkit_of(str(NVCC)).resolve() == NVCC.resolve().parents[1]


def test_fresh_stubs_pass_the_check(protos: Path) -> None:
    names = sorted(path.name for path in (protos / "clients/python/iguana/v1").iterdir())
    assert names == ["ask_pb2.py", "ask_pb2.pyi", "ask_pb2_grpc.py", "ask_pb2_grpc.pyi"]
    assert build(protos, "stubs", "--check").returncode == 0


@pytest.mark.parametrize("change", ["edited", "missing", "left over", "proto"])
def test_check_names_the_stub_that_differs(protos: Path, change: str) -> None:
    stub = protos / "clients/python/iguana/v1/ask_pb2.py"
    if change == "edited":
        stub.write_text(stub.read_text() + "# by hand\n")
    elif change == "missing":
        stub.unlink()
    elif change == "left over":
        stub = stub.with_name("old_pb2.py")
        stub.write_text("")
    else:
        (protos / "proto/iguana/v1/ask.proto").write_text(PROTO.replace("model", "name"))
    before = stub.read_text() if stub.exists() else None
    done = build(protos, "stubs", "--check")
    assert done.returncode == 1
    assert f"iguana/v1/{stub.name}" in done.stdout
    assert (stub.read_text() if stub.exists() else None) == before  # a check changes nothing
    assert build(protos, "stubs").returncode == 0
    assert build(protos, "stubs", "--check").returncode == 0


def test_cpu_half_builds_alone_and_rebuilds_what_changed(tree: Path) -> None:
    first = build(tree, IGUANA_CUDA="0")
    assert first.returncode == 0, first.stdout
    assert "CPU only" in first.stdout
    assert compiled(build(tree, IGUANA_CUDA="0")) == []
    (tree / "csrc/moves.h").touch()  # included by one file of the CPU's
    assert compiled(build(tree, IGUANA_CUDA="0")) == ["csrc/cpu/moves.cpp"]


def compiled(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split(" -c ")[1].split()[0] for line in done.stdout.splitlines() if " -c " in line]


@pytest.mark.skipif(not NVCC.exists(), reason="no nvcc")
def test_kernel_that_spills_fails_the_build(tree: Path) -> None:
    (tree / "csrc/cuda/spill.cu").write_text(
        "__global__ void __launch_bounds__(1024, 2) spill(float* x) {\n"
        "  float v[64];\n"
        "#pragma unroll\n"
        "  for (int i = 0; i < 64; ++i) v[i] = x[i * 1024 + threadIdx.x];\n"
        "  __syncthreads();\n"
        "#pragma unroll\n"
        "  for (int i = 0; i < 64; ++i) x[threadIdx.x * 64 + i] = v[i] * v[63 - i];\n"
        "}\n"
    )
    done = build(tree, IGUANA_CUDA="1")
    assert done.returncode == 1
    assert "Registers are spilled to local memory in function" in done.stdout
    assert not (tree / "server/iguana_server/_C.so").exists()


def test_wheel_holds_the_library_and_fits_any_python(tree: Path) -> None:
    code = "import build; print(build.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, check=False, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tree / "dist").glob("*.whl")
    assert wheel.name.split("-", 2)[2].startswith("py3-none-linux_")
    names = zipfile.ZipFile(wheel).namelist()
    assert "iguana_server/_C.so" in names
    assert "iguana_server/ops/reference.py" in names
    assert not [name for name in names if name.endswith((".cpp", ".cu", ".o"))]
