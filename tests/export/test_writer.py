import json
import signal
import subprocess
import sys

import onnx
import pytest

from ltbm.export import writer
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main


def test_every_tensor_is_accounted_for(make_bundle, family):
    from safetensors import safe_open

    checkpoint, bundle = make_bundle(family)
    with safe_open(checkpoint / "model.safetensors", framework="pt") as stream:
        assert set(Bundle.open(bundle).manifest.tensors) == set(stream.keys())


def test_flavours_share_one_weight_file(qwen):
    names = {}
    for flavour in ("gqa", "std24"):
        model = onnx.load(qwen[1] / f"decoder.{flavour}.onnx", load_external_data=False)
        names[flavour] = {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer if tensor.external_data}
    assert names["gqa"] == names["std24"] and len(names["gqa"]) > 10
    assert [path.name for path in qwen[1].glob("decoder.*weights")] == ["decoder.weights"]


def test_the_function_body_ships_in_the_bundle(qwen):
    functions = onnx.load(qwen[1] / "merge.onnx", load_external_data=False).functions
    assert [(function.domain, function.name) for function in functions] == [("ai.ltbm", "LTBM")]


def test_float16_halves_the_weights(make_bundle):
    sizes = [Bundle.open(make_bundle("qwen2_audio", precision)[1]).stage_bytes() for precision in ("float32", "float16")]
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
    monkeypatch.setattr(writer, "write_prompt_files", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        writer.export_bundle(qwen[0], tmp_path / "bundle", progress=lambda line: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_export_leaves_no_bundle(qwen, tmp_path, kind):
    """Nothing at all where it can clean up; after a SIGKILL a hidden sibling at most."""
    code = ("import sys, time\nfrom ltbm.export import writer\nfrom ltbm.runtime.cli import main\n"
            "def wait(*_):\n    print('ready', flush=True)\n    time.sleep(60)\n"
            f"writer.write_prompt_files = wait\nsys.exit(main(['export', {str(qwen[0])!r}, {str(tmp_path / 'bundle')!r}]))")
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(kind)
    child.wait(timeout=20)
    assert child.returncode != 0
    left = [path.name for path in tmp_path.iterdir()]
    assert not left or (kind == signal.SIGKILL and all(name.startswith(".bundle.") for name in left))


def test_export_ends_with_parity_lines(qwen, tmp_path, capsys):
    assert main(["export", str(qwen[0]), str(tmp_path / "bundle")]) == 0
    out, err = capsys.readouterr()
    lines = out.strip().splitlines()
    assert len(lines) > 10 and all(line.startswith("ok") for line in lines)
    assert {"encoder", "merge", "projector", "prefill", "decode", "greedy"} <= {line.split()[1] for line in lines}
    assert "decoder.weights" in err


def test_a_failed_parity_is_a_failed_command(qwen, tmp_path, capsys):
    """A bundle of other weights: only the figures can tell."""
    main(["export", str(qwen[0]), str(tmp_path / "bundle"), "--no-parity"])
    weights = tmp_path / "bundle" / "decoder.weights"
    content = bytearray(weights.read_bytes())
    content[4096:8192] = content[4096:8192][::-1]
    weights.write_bytes(content)
    manifest = tmp_path / "bundle" / "manifest.json"
    raw = json.loads(manifest.read_text())
    from ltbm.runtime.bundle import file_sha256

    raw["files"]["decoder.weights"]["sha256"] = file_sha256(weights)
    manifest.write_text(json.dumps(raw))
    capsys.readouterr()
    assert main(["parity", str(qwen[0]), str(tmp_path / "bundle"), "--level", "full", "--json"]) == 1
    lines = json.loads(capsys.readouterr().out)
    assert {line["stage"] for line in lines if not line["passed"]} >= {"prefill"}
    assert all(line["passed"] for line in lines if line["stage"] in ("features", "encoder", "merge plan", "projector"))
