"""The runtime as an aarch64 CPU would run it, under emulation: by hand, as root, on Debian or Ubuntu.

    python tests/arm64/check.py ROOT [--tensorrt FOLDER_OF_NvInfer.h]

ROOT is made by make_root.sh, once, and kept. The wheel is cross-compiled and installed there; then the op is
held against its reference bit for bit, the demo's words against those of this machine, and the doctor is run.
With nvcc here libltbm_cuda.so, and with TensorRT's headers the plugin too, are cross-compiled for Jetson Orin
and Thor and loaded there. Times under emulation mean nothing. Exit code 1 if anything differs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
sys.path.insert(0, str(PROJECT))  # for tests.support

from ltbm.demo.bundle import demo_bundle  # noqa: E402
from ltbm.demo.commands import CAPTION_TOKENS, read_clips  # noqa: E402
from ltbm.demo.language import CAPTION_PROMPT  # noqa: E402
from ltbm.plugins import library  # noqa: E402
from ltbm.runtime.session import Session  # noqa: E402
from tests.support import cuda_builds as builds  # noqa: E402

CXX = "aarch64-linux-gnu-g++"
JETSON = ("87", "110")  # Orin, Thor
LEVELS = ("full", "keep25", "keep12")
CUDA_RUNTIME = "nvidia-cuda-runtime"  # its wheel for aarch64 holds what the libraries are linked with
CUDA_OP_REFUSAL = "LTBM: x must be [B, T, D] with D from 1 to 32767"  # its host code runs without a GPU
PYTHON = "/opt/ltbm/bin/python"  # in the root


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--tensorrt", type=Path, help="folder of NvInfer.h: build the plugin too")
    args = parser.parse_args()
    root = args.root.absolute()
    subprocess.run([HERE / "make_root.sh", root], check=True)
    work = root / "checked"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    install(root, cross_wheel(work))
    variables = cross_cuda(work, args.tensorrt) if builds.nvcc() else {}
    wrong = compare(*run(root, variables), variables)
    print("\n".join(wrong) or "all of it as on this machine")
    return 1 if wrong else 0


# --- what is built here ---


def cross_wheel(work: Path) -> Path:
    """The project's wheel with its native op for aarch64."""
    defines = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": CXX,
    }
    settings = [f"--config-settings=cmake.define.{name}={value}" for name, value in defines.items()]
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", work, *settings, PROJECT]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": ""})
    (wheel,) = work.glob("ltbm-*.whl")
    return wheel.rename(work / (wheel.stem.rpartition("-")[0] + "-linux_aarch64.whl"))


def cross_cuda(work: Path, tensorrt: Path | None) -> dict[str, str]:
    """Variable -> the library it names in the root: the CUDA op, and the plugin where there are headers."""
    runtime = cuda_runtime(work)
    header = work / "architectures.h"  # nvcc cuts the value of a -D at its commas
    header.write_text(f'#define LTBM_ARCHITECTURES "{",".join(JETSON)}"\n')
    flags = [f"-ccbin={CXX}", f"-L{runtime}", "-cudart=static", f"--pre-include={header}"]
    built = {}
    op = work / library.CUDA_NAME
    includes = builds.cuda_includes()  # of this machine's target: headers are the same for all
    builds.build_cuda(op, JETSON, [builds.BUILT_FOR], includes, [*flags, "-DLTBM_CUDA_SHARED"])
    built[library.CUDA_VARIABLE] = f"/checked/{op.name}"
    if tensorrt:
        plugin = work / library.TENSORRT_NAME
        builds.build_cuda(plugin, JETSON, [builds.PLUGIN], [tensorrt, *includes], flags)
        built[library.TENSORRT_VARIABLE] = f"/checked/{plugin.name}"
    return built


def cuda_runtime(work: Path) -> Path:
    """The folder of libcudart_static.a for aarch64, of nvcc's version, out of NVIDIA's wheel."""
    release = builds.run([builds.nvcc(), "--version"]).rpartition("release ")[2].split(",")[0]
    wanted = f"{CUDA_RUNTIME}{'-cu12' if release.startswith('12.') else ''}=={release}.*"
    platforms = [f"--platform=manylinux{name}_aarch64" for name in ("2014", "_2_17", "_2_28")]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", *platforms]
    subprocess.run([*command, "-d", work / "cuda", wanted], check=True)
    (wheel,) = (work / "cuda").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "cuda")
    (static,) = (work / "cuda").rglob("libcudart_static.a")
    return static.parent


# --- what runs there ---


def install(root: Path, wheel: Path) -> None:
    in_root(
        root,
        [PYTHON, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", f"/checked/{wheel.name}"],
    )
    for name in ("support", "arm64"):
        shutil.copytree(PROJECT / "tests" / name, root / "checked" / "tests" / name)


def run(root: Path, variables: dict[str, str]) -> tuple[dict, dict]:
    """(what this machine says, what is said in the root)."""
    clips = read_clips(10)
    names = [f"/checked/{clip.path.name}" for clip in clips]
    for clip in clips:
        shutil.copy(clip.path, root / "checked")
    request = {"prompt": CAPTION_PROMPT, "levels": LEVELS}
    (root / "checked" / "request.json").write_text(json.dumps(request))
    with demo_bundle() as bundle:
        shutil.copytree(bundle, root / "checked" / "bundle")
        here = captions(bundle, [str(clip.path) for clip in clips])
    command = [PYTHON, "/checked/tests/arm64/inside.py", "/checked/bundle", "/checked/request.json", *names]
    return here, json.loads(in_root(root, command, variables))


def captions(bundle: Path, clips: list[str]) -> dict[str, list[str]]:
    said = {}
    with Session.open(bundle, threads=1) as session:
        for level in LEVELS:
            answers = [
                session.generate(clip, CAPTION_PROMPT, level, max_new_tokens=CAPTION_TOKENS) for clip in clips
            ]
            said[level] = [answer.text for answer in answers]
    return said


def in_root(root: Path, command: list[str], variables: dict[str, str] | None = None) -> str:
    """What a command in the root prints; it sees nothing of this machine's environment."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"} | (
        variables or {}
    )
    binds = [["mount", "--bind", f"/{name}", root / name] for name in ("proc", "dev")]
    # a mount namespace of its own: nothing stays mounted
    script = " && ".join(" ".join(map(str, bind)) for bind in binds) + ' && exec chroot "$@"'
    unshared = ["unshare", "--mount", "sh", "-c", script, "sh", root, *command]
    done = subprocess.run(list(map(str, unshared)), capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} in {root} failed: {done.stderr[-2000:]}")
    return done.stdout


def compare(here: dict, there: dict, libraries: dict[str, str]) -> list[str]:
    """What is not as it should be, in words."""
    print(f"{there['machine']}, Python {there['python']}, ONNX Runtime {there['onnxruntime']}")
    wrong = []
    for body, seeds in there["differing"].items():
        print(f"op, {body}: {there['cases'] - len(seeds)} of {there['cases']} cases equal the reference")
        if seeds:
            wrong.append(f"the op's {body} differs from the reference at seeds {seeds}")
    for level, said in here.items():
        equal = sum(one == other for one, other in zip(said, there["captions"][level]))
        print(f"demo, {level}: {equal} of {len(said)} captions the same")
        if equal < len(said):
            wrong.append(f"the demo's words differ at {level}")
    said = " ".join(finding["text"] for finding in there["doctor"])
    for path in libraries.values():
        if f"{path} for architectures {', '.join(JETSON)}" not in said:
            wrong.append(f"the doctor does not load {path}")
    if there["cuda_op"] != CUDA_OP_REFUSAL and library.CUDA_VARIABLE in libraries:
        wrong.append(f"the CUDA op says {there['cuda_op']!r} of an empty call")
    for finding in there["doctor"]:
        print(f"doctor: {finding['status']:<9}{finding['subject']:<14}{finding['text']}")
        if finding["status"] == "problem":
            wrong.append(f"doctor: {finding['subject']}: {finding['text']}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
