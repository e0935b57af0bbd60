"""Whole sessions on a real GPU, against the same bundle on the CPU; each skips, saying why,
where its backend is not."""

import importlib.util

import numpy as np
import pytest

from ltbm.runtime.machine import Machine, find_gpu
from ltbm.runtime.session import Session
from tests.support import cuda_builds as builds

pytestmark = pytest.mark.gpu

PROMPT = "What do you hear?"
WAYS = [("onnxruntime", "cuda"), ("onnxruntime", "tensorrt"), ("tensorrt", "cuda"), ("tensorrt-rtx", "cuda")]
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def require(backend: str, device: str) -> None:
    """Skip unless this machine has a GPU and what the backend needs."""
    if find_gpu(Machine()) is None:
        pytest.skip("no CUDA GPU at hand")
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        pytest.skip("cuda-bindings is not installed")
    if backend in MODULES and importlib.util.find_spec(MODULES[backend]) is None:
        pytest.skip(f"{backend} is not installed")
    if backend == "onnxruntime":
        import onnxruntime

        provider = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[device]
        if provider not in onnxruntime.get_available_providers():
            pytest.skip(f"this onnxruntime has no {provider}")


def open_on(bundle, backend: str, device: str) -> Session:
    if backend in MODULES:
        from ltbm.export.engine import build_engines
        from ltbm.runtime.bundle import Bundle

        build_engines(Bundle.open(bundle), max_audio_segments=1, max_context=1024, backend=backend)
    return Session.open(bundle, backend, device)


@pytest.mark.parametrize("backend,device", WAYS)
def test_greedy_tokens_equal_the_cpu(make_bundle, family, make_clip, backend, device):
    """float32 with wide gaps between tokens: the device's rounding does not reach the choice."""
    require(backend, device)
    bundle = make_bundle(family)[1]
    with Session.open(bundle) as cpu, open_on(bundle, backend, device) as gpu:
        for level in ("full", "keep25"):
            want, got = (
                session.generate(make_clip(5), PROMPT, level, max_new_tokens=12) for session in (cpu, gpu)
            )
            assert got.token_ids == want.token_ids and got.prompt_token_ids == want.prompt_token_ids
        again = gpu.generate(make_clip(5), "And now?", "keep25", max_new_tokens=6)
        assert again.reused_tokens > again.tokens_out


@pytest.mark.compiler
@pytest.mark.parametrize("backend,device", [way for way in WAYS if way[0] != "tensorrt"])
def test_the_merge_is_the_cuda_op(make_bundle, family, make_clip, backend, device, monkeypatch, tmp_path):
    require(backend, device)
    from ltbm.runtime.backends.cuda_merge import CudaMergeEngine  # it needs cuda-bindings

    if builds.nvcc() is None:
        pytest.skip("nvcc is not installed")
    gpu = find_gpu(Machine())
    monkeypatch.setenv("LTBM_CUDA_OP", str(builds.build_cuda_op(tmp_path / "op.so", gpu.architecture)))
    bundle = make_bundle(family)[1]
    with Session.open(bundle) as cpu, open_on(bundle, backend, device) as session:
        assert isinstance(session.pipeline.engines.get("merge"), CudaMergeEngine)
        for level in ("full", "keep25", "keep6"):
            wanted = cpu.generate(make_clip(5), PROMPT, level, max_new_tokens=12)
            assert (
                session.generate(make_clip(5), PROMPT, level, max_new_tokens=12).token_ids == wanted.token_ids
            )


def merged(pipeline, clip, level):
    (audio,) = pipeline.segments(clip)
    return pipeline.merge(pipeline.encode(audio), level)


@pytest.mark.parametrize("backend,device", WAYS)
def test_half_precision_merges_what_the_cpu_merges(make_bundle, family, make_clip, backend, device):
    require(backend, device)
    bundle = make_bundle(family, "float16")[1]
    with Session.open(bundle) as cpu, open_on(bundle, backend, device) as gpu:
        from ltbm.runtime.levels import parse_level

        level = parse_level("full")
        want, got = (merged(session.pipeline, make_clip(5), level) for session in (cpu, gpu))
        assert np.array_equal(got.source_map, want.source_map)
        difference = np.abs(
            np.asarray(got.merged_embeds, np.float32) - np.asarray(want.merged_embeds, np.float32)
        ).max()
        assert difference < 1e-2 * max(1.0, np.abs(np.asarray(want.merged_embeds, np.float32)).max())
