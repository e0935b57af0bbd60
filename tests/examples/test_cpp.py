"""The C++ example: compiled against TensorRT's headers,
and run on the CPU with ONNX Runtime in the place of TensorRT.

Needs TensorRT's headers (TENSORRT_INCLUDE_DIR) and CUDA's (nvcc), neither library and no GPU.
"""

import os
import re
import socket
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from examples.cpp import prepare
from ltbm.runtime.backends.shape_ranges import Limits, optimisation_profiles
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.levels import parse_level
from ltbm.runtime.session import Session
from tests.support import cuda_builds as builds

pytestmark = pytest.mark.compiler

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "cpp"
IN_PLACE = (10, 15)  # the first TensorRT that updates a KV cache in place
INTERFACES = {
    "NvInferImpl.h": ("VRuntime", "VCudaEngine", "VExecutionContext"),
    "NvInferRuntimeCommon.h": ("IPluginRegistry",),
}


@pytest.fixture(scope="module")
def headers():
    if builds.compiler() is None:
        pytest.skip("no C++ compiler: install g++ or set CXX")
    if builds.nvcc() is None:
        pytest.skip("no CUDA headers: nvcc is not installed")
    if not builds.tensorrt_includes():
        pytest.skip("no TensorRT headers: set TENSORRT_INCLUDE_DIR to the folder of NvInfer.h")
    return Path(builds.tensorrt_includes()[0])


@pytest.fixture(scope="module")
def version(headers):
    text = (headers / "NvInferVersion.h").read_text()
    return tuple(
        int(re.search(rf"define (?:NV_TENSORRT|TRT)_{part}(?:_ENTERPRISE)? (\d+)", text)[1])
        for part in ("MAJOR", "MINOR")
    )


@pytest.fixture(scope="module")
def program(headers, tmp_path_factory):
    """The example, linked with the fake TensorRT."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "stubs.h").write_text(
        "".join(stub(headers / file, name) for file, names in INTERFACES.items() for name in names)
    )
    system = [part for path in [headers, *builds.cuda_includes()] for part in ("-isystem", path)]
    builds.run(
        [
            builds.compiler(),
            "-std=c++17",
            "-g",
            "-fsanitize=address,undefined",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-deprecated-declarations",
            *system,
            "-isystem",
            folder,
            EXAMPLE / "main.cpp",
            HERE / "fake_tensorrt.cpp",
            "-o",
            folder / "ltbm_example",
        ]
    )
    return folder / "ltbm_example"


def stub(header: Path, name: str) -> str:
    """A class that implements every pure virtual function of an interface by ending the program."""
    body = re.search(rf"^class {name}\b.*?^}};", header.read_text(), re.S | re.M)[0]
    body = re.sub(r"//[^\n]*", "", body)
    functions = [
        " ".join(function.split()) for function in re.findall(r"\bvirtual\b([^;{]*?)=\s*0\s*;", body)
    ]
    base = f"apiv::{name}" if name.startswith("V") else name
    lines = "".join(
        f" {function} override {{ std::abort(); }}\n" for function in functions if "~" not in function
    )
    return f"namespace nvinfer1 {{\nclass {name}Stub : public {base} {{ public:\n{lines}}};\n}}\n"


class Stages:
    """Answers for the engines: ONNX Runtime runs the bundle's graphs; keeps which profiles were used."""

    def __init__(self, bundle: Path, flavour: str):
        import onnxruntime

        self.manifest, self.flavour = Bundle.open(bundle).manifest, flavour
        files = {"encoder": "encoder.onnx", "merge": "merge.onnx", "decoder": f"decoder.{flavour}.onnx"}
        self.sessions = {name: onnxruntime.InferenceSession(bundle / file) for name, file in files.items()}
        self.used: list[tuple[str, int]] = []

    def write_engines(self, folder: Path, max_context: int | None = None) -> Path:
        folder.mkdir(parents=True)
        limits = Limits.of(self.manifest, None, max_context)
        for name, session in self.sessions.items():
            profiles = optimisation_profiles(self.manifest, name, self.flavour, limits)
            (folder / f"{name}.engine").write_text(describe(name, session, profiles, limits.max_context))
        return folder

    def serve(self, end: socket.socket) -> None:
        with end, end.makefile("rwb") as stream:
            while line := stream.readline():
                name, profile = line.split()
                self.used.append((name.decode(), int(profile)))
                for output in self.run(self.sessions[name.decode()], stream):
                    stream.write(np.int64(output.nbytes).tobytes() + output.tobytes())
                stream.flush()

    @staticmethod
    def run(session, stream) -> list[np.ndarray]:
        types, feeds = {value.name: numpy_type(value) for value in session.get_inputs()}, {}
        while (words := stream.readline().split())[0] != b"end":
            name, shape = words[0].decode(), tuple(map(int, words[1:]))
            dtype = np.dtype(types[name])
            feeds[name] = np.frombuffer(stream.read(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(
                shape
            )
        return session.run(None, feeds)


def numpy_type(value) -> str:
    return {"float": "float32"}.get(value.type[7:-1], value.type[7:-1])


def describe(name: str, session, profiles, capacity: int) -> str:
    """An engine file for the fake, with the profiles and the capacity that `ltbm build` gives it."""
    lines = [f"stage {name} {len(profiles)}"]
    for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for value in values:
            known = [capacity if extent == "CAP" else extent for extent in value.shape]
            shape = [extent if isinstance(extent, int) else -1 for extent in known]
            ends = (
                [
                    end
                    for profile in profiles
                    for end in profile.shapes.get(value.name, (shape, shape, shape))[::2]
                ]
                if kind == "input"
                else []
            )
            words = [
                kind,
                numpy_type(value),
                "host" if value.name == "keep" else "device",
                len(shape),
                *shape,
                *(n for end in ends for n in end),
            ]
            lines.append(" ".join(map(str, [*words, value.name])))
    if any(value.name == "past_len" for value in session.get_inputs()):
        caches = [value.name for value in session.get_inputs() if value.name.startswith("past.")]
        lines += [f"alias {past.replace('past', 'present')} {past}" for past in caches]
    return "\n".join(lines)


def run(program, stages, engines, table, request, plugin):
    """The finished program, while `stages` answer it."""
    ours, theirs = socket.socketpair()
    server = threading.Thread(target=stages.serve, args=(ours,))
    with theirs:
        server.start()
        done = subprocess.run(
            [program, engines, table, plugin, request],
            capture_output=True,
            text=True,
            timeout=120,
            pass_fds=[theirs.fileno()],
            env=os.environ | {"LTBM_TEST_SOCKET": str(theirs.fileno())},
        )
    server.join()
    return done


@pytest.fixture
def ready(make_bundle, make_clip, tmp_path):
    """(family, precision, flavour, level) -> bundle, stages, plugin, and the request in tmp_path."""

    def make(family="qwen2_audio", precision="float32", flavour="trt24", level="keep25"):
        bundle = make_bundle(family, precision)[1]
        prepare.write_request(
            Bundle.open(bundle), make_clip(3), "hm ?", parse_level(level), 8, tmp_path / "request"
        )
        (tmp_path / "plugin.so").touch()
        return bundle, Stages(bundle, flavour), tmp_path / "plugin.so"

    return make


@pytest.mark.parametrize(
    "family,precision,flavour,level",
    [
        ("qwen2_audio", "float32", "trt24", "keep25"),
        ("qwen2_audio", "float32", "trt24", "full"),
        ("qwen2_audio", "float16", "trt24", "keep50"),
        ("qwen2_audio", "float32", "concat20", "keep25"),
        ("audioflamingo3", "float32", "trt24", "keep12"),
        ("musicflamingo", "float32", "trt24", "keep25"),
        ("voxtral", "float32", "trt24", "keep25"),
        ("qwen2_5_omni", "float32", "trt24", "keep25"),
    ],
)
def test_it_answers_as_python_does(
    program, version, ready, make_clip, tmp_path, family, precision, flavour, level
):
    if flavour == "trt24" and version < IN_PLACE:
        pytest.skip(f"TensorRT {version[0]}.{version[1]} updates no cache in place")
    bundle, stages, plugin = ready(family, precision, flavour, level)
    done = run(
        program,
        stages,
        stages.write_engines(tmp_path / "engines"),
        bundle / "embeddings.npy",
        tmp_path / "request",
        plugin,
    )
    assert done.returncode == 0, done.stderr
    with Session.open(bundle) as session:
        answer = session.generate(make_clip(3), "hm ?", level, max_new_tokens=8)
    assert [int(token) for token in done.stdout.split()] == answer.token_ids
    assert f"{answer.tokens_in} audio tokens -> {answer.tokens_out}, " in done.stderr
    assert stages.used == [("encoder", 0), ("merge", 0), ("decoder", 0)] + [("decoder", 1)] * (
        len(answer.token_ids) - 1
    )


def test_a_table_of_bfloat16_bits_is_read(program, version, ready, tmp_path):
    bundle, stages, plugin = ready(flavour="trt24" if version >= IN_PLACE else "concat20")
    engines = stages.write_engines(tmp_path / "engines")
    bits = np.load(bundle / "embeddings.npy").view(np.uint32) >> 16
    np.save(tmp_path / "bits.npy", bits.astype(np.uint16))
    np.save(tmp_path / "values.npy", (bits << 16).view(np.float32))
    said = [
        run(program, stages, engines, tmp_path / name, tmp_path / "request", plugin).stdout
        for name in ("bits.npy", "values.npy")
    ]
    assert said[0] == said[1] and said[0].strip()


def test_what_is_wrong_is_said(program, version, ready, tmp_path):
    flavour = "trt24" if version >= IN_PLACE else "concat20"
    bundle, stages, plugin = ready(flavour=flavour)
    good, small = stages.write_engines(tmp_path / "engines"), stages.write_engines(tmp_path / "small", 64)
    (foreign := stages.write_engines(tmp_path / "foreign") / "decoder.engine").write_text(
        "of another machine"
    )
    for engines, library, request, words in (
        (tmp_path / "none", plugin, "request", "no engine .*decoder.engine: make it here with `ltbm build`"),
        (foreign.parent, plugin, "request", "decoder.engine does not load: .* `ltbm build` again"),
        (good, tmp_path / "lost.so", "request", "lost.so does not load as a TensorRT plugin"),
        (
            small,
            plugin,
            "request",
            "decoder.engine (was built for smaller shapes|holds 64: build it with a larger --max-context)",
        ),
        (good, plugin, "nothing", "no file .*request.txt: write it with prepare.py"),
    ):
        done = run(program, stages, engines, bundle / "embeddings.npy", tmp_path / request, library)
        assert done.returncode == 1 and re.search(words, done.stderr), (words, done.stderr)


def test_it_compiles_without_a_warning(headers):
    system = [part for path in [headers, *builds.cuda_includes()] for part in ("-isystem", path)]
    builds.run(
        [
            builds.compiler(),
            "-std=c++17",
            "-fsyntax-only",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            *system,
            EXAMPLE / "main.cpp",
        ]
    )


def test_the_script_writes_and_reads(make_bundle, tmp_path, capsys, monkeypatch, make_clip):
    import io

    import soundfile

    bundle = make_bundle("qwen2_audio")[1]
    soundfile.write(tmp_path / "clip.wav", make_clip(3), 16_000)
    monkeypatch.setattr(
        "sys.argv",
        ["prepare.py", str(bundle), str(tmp_path / "clip.wav"), "--out", str(tmp_path / "request")],
    )
    prepare.main()
    assert np.load(tmp_path / "request" / "input_features.npy").dtype == np.float32
    assert "tokens 75\n" in (tmp_path / "request" / "request.txt").read_text()
    monkeypatch.setattr("sys.argv", ["prepare.py", str(bundle), "--decode"])
    monkeypatch.setattr("sys.stdin", io.StringIO("72 105\n"))
    prepare.main()
    assert capsys.readouterr().out.strip()
