"""ONNX Runtime's GPU devices as far as a CPU can tell: sessions over the fake device's memory,
and the providers' options."""

import importlib
import json
import sys

import onnxruntime
import pytest

from ltbm.runtime.backends.backend import EngineOptions
from ltbm.runtime.session import Session

PROMPT = "What do you hear?"
OTHER = "And how often is it heard?"
LEVELS = ("full", "keep75", "keep50", "keep33", "keep25", "keep12", "keep6")


@pytest.fixture
def gpu_session(device, monkeypatch):
    """Opens a session on `cuda` or `tensorrt` whose provider is the CPU's,
    reading the device's memory by its addresses."""
    monkeypatch.delitem(sys.modules, "ltbm.runtime.backends.ort", raising=False)
    ort = importlib.import_module("ltbm.runtime.backends.ort")
    given = []

    def providers(path, options):
        given.append((path.name, options))
        return [("CPUExecutionProvider", {})]

    def run(self):
        device.driver.flush()  # the CPU's provider is not on the stream
        self._session.run_with_iobinding(self._io, self._run_options)

    monkeypatch.setattr(ort, "_providers", providers)
    monkeypatch.setattr(ort, "check_provider", lambda name: None)
    monkeypatch.setattr(ort, "_device_of", lambda array: "cpu")
    monkeypatch.setattr(ort.OrtBinding, "run", run)
    yield lambda path, name: (Session.open(path, device=name), given)
    sys.modules.pop("ltbm.runtime.backends.ort", None)


@pytest.mark.parametrize("name, flavour", [("cuda", "std24"), ("tensorrt", "concat20")])
def test_answers_and_copies(gpu_session, device, bundle_of, make_clip, name, flavour):
    path = bundle_of()
    with Session.open(path) as plain:
        wanted = plain.generate(make_clip(3), PROMPT, "keep25", max_new_tokens=5)
    with pytest.warns(RuntimeWarning, match="merge runs as a graph of standard operators, slower"):
        session, given = gpu_session(path, name)
    given = given[3:]  # those of the plain session
    with session:
        got = session.generate(make_clip(3), PROMPT, "keep25", max_new_tokens=5)
        logits = 4 * session.manifest.decoder.vocab_size
        waits = session.pipeline.engines.get("encoder")._run_options.get_run_config_entry(
            "disable_synchronize_execution_providers"
        )
    assert got.token_ids == wanted.token_ids and session.pipeline.engines.flavour == flavour
    assert waits == "1"
    to_host = [copy["bytes"] for copy in device.driver.named("copy") if copy["kind"] == "DeviceToHost"]
    assert to_host == [logits] * len(got.token_ids)
    streams = {options.stream for _, options in given}
    assert len(streams) == 1 and None not in streams
    profiles = {file: options.profile for file, options in given}
    assert profiles["merge.onnx"] is None
    assert (
        (profiles[f"decoder.{flavour}.onnx"] is None)
        == (profiles["encoder.onnx"] is None)
        == (name == "cuda")
    )


@pytest.mark.compiler
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_the_merge_is_the_cuda_op_where_it_is_installed(
    gpu_session, device, cuda_op, bundle_of, make_clip, name
):
    path = bundle_of("audioflamingo3")
    session, given = gpu_session(path, name)
    clips = [make_clip(5), make_clip(35, seed=1)]
    with session, Session.open(path) as plain:
        for level in LEVELS:
            for prompt in (PROMPT, OTHER):
                wanted = plain.generate(clips, prompt, level, max_new_tokens=5)
                got = session.generate(clips, prompt, level, max_new_tokens=5)
                assert got.token_ids == wanted.token_ids
                assert got.reused_tokens == (wanted.reused_tokens if name == "cuda" else 0)
    assert len(device.driver.named("op")) == 3 * len(LEVELS)
    opened = {file: options.profile for file, options in given[:3]}
    assert opened["merge.projector.onnx"] is None and "merge.onnx" not in opened


def test_a_bundle_without_the_projector_runs_the_former_way(gpu_session, cuda_op, bundle_of, make_clip):
    path = bundle_of()
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["files"]["merge.projector.onnx"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(RuntimeWarning, match="has no merge.projector.onnx: run `ltbm export` again"):
        session, _ = gpu_session(path, "cuda")
    with session:
        assert session.generate(make_clip(3), PROMPT, max_new_tokens=2).token_ids


def test_cuda_options_are_those_that_onnxruntime_knows(device, bundle_of):
    from ltbm.runtime.backends.cuda import Stream
    from ltbm.runtime.backends.ort import _providers, tensorrt_options
    from ltbm.runtime.backends.shape_ranges import Limits, optimisation_profiles
    from ltbm.runtime.bundle import Bundle

    path = bundle_of()
    manifest = Bundle.open(path).manifest
    profile = optimisation_profiles(manifest, "encoder", "concat20", Limits.of(manifest))[0]
    options = tensorrt_options(path / "encoder.onnx", profile)
    assert options["trt_profile_min_shapes"] == "input_features:1x128x4,frame_lengths:1"
    assert options["trt_profile_max_shapes"] == "input_features:1x128x3000,frame_lengths:1"
    assert options["trt_engine_cache_path"] == str(
        path / "engines" / f"onnxruntime-{onnxruntime.__version__}"
    )
    with pytest.raises(RuntimeError, match="no CUDAExecutionProvider.*ltbm.gpu"):
        _providers(path, EngineOptions("cuda", stream=Stream()))


def test_the_providers_in_their_order(device, monkeypatch, tmp_path):
    from ltbm.runtime.backends import ort
    from ltbm.runtime.backends.cuda import Stream
    from ltbm.runtime.backends.shape_ranges import OptimisationProfile

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(ort.PROVIDERS.values()))
    stream = Stream()
    profile = OptimisationProfile("x", {})
    cases = {
        "cpu": EngineOptions("cpu"),
        "cuda": EngineOptions("cuda", stream=stream),
        "tensorrt": EngineOptions("tensorrt", stream=stream, profile=profile),
        "tensorrt, merge": EngineOptions("tensorrt", stream=stream),
    }
    providers = {name: ort._providers(tmp_path / "x.onnx", options) for name, options in cases.items()}
    on_cuda = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert {name: [provider for provider, _ in given] for name, given in providers.items()} == {
        "cpu": ["CPUExecutionProvider"],
        "cuda": on_cuda,
        "tensorrt": ["TensorrtExecutionProvider", *on_cuda],
        "tensorrt, merge": on_cuda,
    }
    for _, options in providers["tensorrt"][:2]:
        assert options["user_compute_stream"] == str(stream.handle)


def test_quantised_weights_take_onnxruntimes_product_on_cuda():
    from ltbm.runtime.backends.opening import check_device, decoder_flavour

    assert decoder_flavour("onnxruntime", "cuda", quantised=True) == "ort24"
    assert decoder_flavour("onnxruntime", "cpu", quantised=True) == "gqa"
    assert (check_device("onnxruntime", None), check_device("tensorrt", None)) == ("cpu", "cuda")
    with pytest.raises(ValueError, match="devices of tensorrt are cuda"):
        check_device("tensorrt", "cpu")
