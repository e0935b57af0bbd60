import json
import resource
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from ltbm.export import weights, writer
from ltbm.export.weight_files import StoredTensor
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main
from ltbm.runtime.session import Session


def test_every_tensor_is_accounted_for(make_bundle, family):
    from safetensors import safe_open

    checkpoint, bundle = make_bundle(family)
    with safe_open(checkpoint / "model.safetensors", framework="pt") as stream:
        assert set(Bundle.open(bundle).manifest.tensors) == set(stream.keys())


@pytest.mark.parametrize("precision", ["float32", "int4"])
def test_flavours_share_one_weight_file(make_bundle, precision):
    """Every flavour takes a tensor from the same range; quantised ones read it as another type and shape."""
    _, bundle = make_bundle("qwen2_audio", precision)
    ranges = {}
    for flavour in Bundle.open(bundle).manifest.flavours:
        model = onnx.load(bundle / f"decoder.{flavour}.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            ranges.setdefault(tensor.name, set()).add(tuple(entry.value for entry in tensor.external_data))
    external = {name: found for name, found in ranges.items() if found != {()}}
    assert len(external) > 10 and all(len(found) == 1 for found in external.values())
    assert [path.name for path in bundle.glob("decoder.*weights")] == ["decoder.weights"]


@pytest.mark.parametrize(
    "precision,flavours",
    [
        ("float32", ("gqa", "std24", "trt24", "concat20")),
        ("int4", ("gqa", "std24", "trt24", "ort24", "concat20")),
    ],
)
def test_flavours(make_bundle, precision, flavours):
    manifest = Bundle.open(make_bundle("qwen2_audio", precision)[1]).manifest
    assert manifest.flavours == flavours
    assert manifest.opsets["decoder.concat20"] == (20 if precision == "float32" else 21)


@pytest.mark.parametrize("precision", ["float32", "int4"])
def test_concat20_is_of_primitives(make_bundle, precision):
    """TensorRT 10.3 knows none of the attention ops of opsets 23 and 24."""
    model = onnx.load(
        make_bundle("qwen2_audio", precision)[1] / "decoder.concat20.onnx", load_external_data=False
    )
    assert {node.domain for node in model.graph.node} == {""}
    assert not {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"} & {
        node.op_type for node in model.graph.node
    }


def test_int4_for_tensorrt(make_bundle):
    """Signed codes without zero points, and none of ONNX Runtime's own ops."""
    _, bundle = make_bundle("qwen2_audio", "int4", dict(target="tensorrt"))
    assert Bundle.open(bundle).manifest.flavours == ("std24", "trt24", "concat20")
    for flavour in ("std24", "trt24", "concat20"):
        graph = onnx.load(bundle / f"decoder.{flavour}.onnx").graph
        kinds = {tensor.name: tensor for tensor in graph.initializer}
        dense = [node for node in graph.node if node.op_type == "DequantizeLinear"]
        assert len(dense) == 2 * 5
        for node in dense:
            codes, scales = (kinds[name] for name in node.input)
            assert codes.data_type == onnx.TensorProto.INT4
            assert (onnx.numpy_helper.to_array(scales) > 0).all()


def test_the_lm_head_in_chunks_is_the_lm_head(make_bundle):
    """Bit for bit the same logits from three products as from one."""
    logits = []
    for chunks in (1, 3):
        _, bundle = make_bundle("qwen2_audio", export=dict(lm_head_chunks=chunks))
        with Session.open(bundle) as session:
            answer = session.generate(np.sin(np.arange(16_000) / 9).astype(np.float32), "?", max_new_tokens=6)
        logits.append(answer.token_ids)
        shapes = [
            tuple(t.dims)
            for t in onnx.load(bundle / "decoder.gqa.onnx", load_external_data=False).graph.initializer
            if "lm_head" in t.name
        ]
        assert shapes == ([(64, 272)] if chunks == 1 else [(64, 90), (64, 91), (64, 91)])
    assert logits[0] == logits[1]


def test_nothing_large_is_read_at_once(qwen, tmp_path, monkeypatch):
    """A matrix that is quantised passes through memory a few rows at a time."""
    largest = []
    read = StoredTensor.__getitem__
    monkeypatch.setattr(weights, "CHUNK_VALUES", 512)
    monkeypatch.setattr(
        StoredTensor,
        "__getitem__",
        lambda tensor, rows: largest.append(read(tensor, rows).size) or read(tensor, rows),
    )
    writer.export_bundle(qwen[0], tmp_path / "bundle", "int4", progress=lambda line: None)
    kernels = 128 * 32 * 3  # conv1, the largest of what is read whole: convolutions, biases, norms
    assert len(largest) > 100 and max(largest) == 1500 * 32 > kernels  # the table of the encoder's positions
    assert sorted(set(largest))[-3] <= kernels


def test_what_an_export_takes_is_known_before(qwen, tmp_path, capsys):
    for precision in ("float32", "float16", "int4"):
        assert (
            main(
                [
                    "export",
                    str(qwen[0]),
                    str(tmp_path / "new" / "bundle"),
                    "--precision",
                    precision,
                    "--dry-run",
                    "--json",
                ]
            )
            == 0
        )
        estimate = json.loads(capsys.readouterr().out)
        assert not list(tmp_path.iterdir())
        bundle = Bundle.open(
            writer.export_bundle(qwen[0], tmp_path / precision, precision, progress=lambda line: None)
        )
        taken = sum(path.stat().st_size for path in bundle.path.iterdir())
        assert abs(estimate["disk"] - taken) < 0.03 * taken
        for stage in ("encoder", "merge", "decoder"):
            assert estimate["stage_bytes"][stage] == (bundle.path / f"{stage}.weights").stat().st_size
        shutil.rmtree(bundle.path)
    assert estimate["where"] == str(tmp_path) and estimate["parity_memory"] > 5e8 > estimate["memory"] > 1e8


def test_no_room(qwen, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda where: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="the bundle takes 1.2 MB, the disk has 0.0 MB free"):
        writer.export_bundle(qwen[0], tmp_path / "bundle", progress=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_export_left_goes_before_the_room_is_looked_at(qwen, tmp_path, monkeypatch):
    left = tmp_path / ".bundle.export-dead"
    left.mkdir()
    monkeypatch.setattr(
        "shutil.disk_usage", lambda where: SimpleNamespace(free=1000 if left.exists() else 2**30)
    )
    assert writer.export_bundle(qwen[0], tmp_path / "bundle", progress=lambda line: None).is_dir()


def test_a_disk_that_becomes_full(qwen, tmp_path, capsys):
    """A limit on file sizes stands for it: the system refuses the write in the midst of the weights."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, former[1]))
    try:
        code = main(["export", str(qwen[0]), str(tmp_path / "bundle")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert code == 1 and not list(tmp_path.iterdir())
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ltbm:")]
    assert (
        line == "ltbm: [Errno 27] the disk became full during the export (File too large); nothing was left, "
        f"1.2 MB are needed: '{tmp_path}'"
    )


def test_the_function_body_ships_in_the_bundle(qwen):
    functions = onnx.load(qwen[1] / "merge.onnx", load_external_data=False).functions
    assert [(function.domain, function.name) for function in functions] == [("ai.ltbm", "LTBM")]


def test_float16_halves_the_weights(make_bundle):
    sizes = [
        Bundle.open(make_bundle("qwen2_audio", precision)[1]).stage_bytes()
        for precision in ("float32", "float16")
    ]
    assert sizes[1]["embeddings"] < 0.51 * sizes[0]["embeddings"]


def test_an_existing_folder_is_kept(qwen, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    for overwrite in (False, True):
        with pytest.raises(FileExistsError):
            writer.export_bundle(qwen[0], tmp_path / "mine", overwrite=overwrite, progress=lambda line: None)
    assert (tmp_path / "mine" / "file").exists()


def test_overwrite_replaces_a_bundle(qwen, tmp_path):
    for overwrite in (False, True):
        writer.export_bundle(qwen[0], tmp_path / "bundle", overwrite=overwrite, progress=lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    Bundle.open(tmp_path / "bundle", verify=True)


def test_a_failure_leaves_nothing(qwen, tmp_path, monkeypatch):
    monkeypatch.setattr(
        writer, "write_prompt_files", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space left"):
        writer.export_bundle(qwen[0], tmp_path / "bundle", progress=lambda line: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_export_leaves_no_bundle(qwen, tmp_path, kind):
    """Nothing at all where it can clean up; after a SIGKILL a hidden sibling at most."""
    code = (
        "import sys, time\nfrom ltbm.export import writer\nfrom ltbm.runtime.cli import main\n"
        "def wait(*_):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        f"writer.write_prompt_files = wait\nsys.exit(main(['export', {str(qwen[0])!r}, "
        f"{str(tmp_path / 'bundle')!r}]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(kind)
    child.wait(timeout=60)
    assert child.returncode != 0
    left = [path.name for path in tmp_path.iterdir()]
    if kind != signal.SIGKILL:
        assert not left
        return
    assert len(left) == 1 and left[0].startswith(".bundle.export-")
    said = []
    writer.export_bundle(qwen[0], tmp_path / "bundle", progress=said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert any(left[0] in line and "killed" in line for line in said)


def test_export_ends_with_parity_lines(qwen, tmp_path, capsys):
    assert main(["export", str(qwen[0]), str(tmp_path / "bundle")]) == 0
    out, err = capsys.readouterr()
    lines = out.strip().splitlines()
    assert len(lines) > 10 and all(line.startswith("ok") for line in lines)
    assert {"encoder", "merge", "projector", "prefill", "decode", "greedy"} <= {
        line.split()[1] for line in lines
    }
    assert "of disk" in err and "decoder:" in err


def test_a_failed_parity_is_a_failed_command(qwen, tmp_path, capsys):
    """A bundle of other weights: only the figures can tell."""
    main(["export", str(qwen[0]), str(tmp_path / "bundle"), "--no-parity"])
    weights = tmp_path / "bundle" / "decoder.weights"
    content = bytearray(weights.read_bytes())
    content[4096:8192] = content[4096:8192][::-1]
    weights.write_bytes(content)
    manifest = tmp_path / "bundle" / "manifest.json"
    raw = json.loads(manifest.read_text())
    from ltbm.runtime.files import file_sha256

    raw["files"]["decoder.weights"]["sha256"] = file_sha256(weights)
    manifest.write_text(json.dumps(raw))
    capsys.readouterr()
    assert main(["parity", str(qwen[0]), str(tmp_path / "bundle"), "--level", "full", "--json"]) == 1
    lines = json.loads(capsys.readouterr().out)
    assert {line["stage"] for line in lines if not line["passed"]} >= {"prefill"}
    assert all(
        line["passed"]
        for line in lines
        if line["stage"] in ("features", "encoder", "merge plan", "projector")
    )


def test_a_link_to_a_bundle_stays_one(qwen, tmp_path):
    """The folder that it leads to is replaced, or made."""
    (tmp_path / "large").mkdir()
    link = tmp_path / "bundle"
    link.symlink_to(tmp_path / "large" / "bundle")
    for overwrite in (False, True):
        writer.export_bundle(qwen[0], link, overwrite=overwrite, progress=lambda line: None)
        assert link.is_symlink() and Bundle.open(tmp_path / "large" / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "large"]
    assert [path.name for path in (tmp_path / "large").iterdir()] == ["bundle"]
