"""Shared fixtures: tiny checkpoints and their bundles, made once a run; and a guard over imports."""

import os
import signal
import sys

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core each: PyTorch's threads would wait for one another
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for a shell's background jobs, and all they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
FAMILIES = ("qwen2_audio", "audioflamingo3")
RATE = 16_000  # Hz


def pytest_sessionfinish(session):
    """The namespace is `ltbm`: a bare `import runtime` would work from this folder and nowhere else."""
    bare = [name for name in ("export", "runtime", "plugins", "profiles") if name in sys.modules]
    if bare:
        print(f"\nimported without the ltbm prefix: {', '.join(bare)}", file=sys.stderr)
        session.exitstatus = 1


@pytest.fixture(scope="session")
def make_checkpoint():
    from tests.support.tiny import make_checkpoint  # here: it imports torch

    return make_checkpoint


@pytest.fixture(scope="session")
def make_bundle(make_checkpoint, tmp_path_factory):
    """(family, precision, options of the export, **text config) -> (checkpoint folder, bundle folder), cached
    for the run."""
    from ltbm.export.writer import export_bundle

    made = {}

    def make(family: str, precision: str = "float32", export: dict | None = None, **options):
        key = (family, precision, str(export), tuple(sorted(options.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            checkpoint = make_checkpoint(folder / "checkpoint", family, **options)
            made[key] = (
                checkpoint,
                export_bundle(
                    checkpoint, folder / "bundle", precision, progress=lambda line: None, **(export or {})
                ),
            )
        return made[key]

    return make


@pytest.fixture(scope="session")
def emulated_op(tmp_path_factory):
    """The CUDA kernels compiled for the CPU, behind the C interface of libltbm_cuda.so."""
    from tests.support import cuda_builds as builds

    if builds.compiler() is None:
        pytest.skip("the emulated kernels need a C++ compiler: install g++ or set CXX")
    return builds.build_emulated(tmp_path_factory.mktemp("emulated") / "libltbm_cuda.so")


@pytest.fixture(scope="session")
def emulated_plugin(tmp_path_factory):
    """The TensorRT plugin with the kernels compiled for the CPU."""
    from tests.support import cuda_builds as builds

    builds.require_plugin_headers()
    folders = [*builds.tensorrt_includes(), *builds.cuda_includes()]
    path = tmp_path_factory.mktemp("plugin") / "libltbm_tensorrt.so"
    return builds.build_emulated(path, [builds.PLUGIN], folders, ["-fvisibility=hidden"])


@pytest.fixture(scope="session", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="session")
def qwen(make_bundle):
    return make_bundle("qwen2_audio")


@pytest.fixture(scope="session")
def session(qwen):
    from ltbm.runtime.session import Session

    with Session.open(qwen[1]) as opened:
        yield opened


@pytest.fixture(scope="session")
def pipeline(session):
    return session.pipeline


@pytest.fixture(scope="session")
def make_clip():
    """seconds -> a seeded mono waveform [samples] float32 at 16 kHz, with structure a merge can find."""

    def make(seconds: float, seed: int = 0) -> np.ndarray:
        samples = round(seconds * RATE)
        time = np.arange(samples) / RATE
        noise = np.random.default_rng(seed).standard_normal(samples)
        return (
            0.3 * np.sin(2 * np.pi * (300 + 40 * np.sin(time)) * time) * (time % 1.1 < 0.6) + 0.02 * noise
        ).astype(np.float32)

    return make
