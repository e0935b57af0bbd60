"""`ltbm pack`: answers are those of the unpacked, bit for bit; what is stale is named and packed anew."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltbm.export import packing
from ltbm.export.packing import pack_bundle
from ltbm.runtime.backends import packed_store
from ltbm.runtime.backends.packed_store import WEIGHTS_FILE, find_packed, stored_packed, this_host
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main
from ltbm.runtime.levels import parse_level
from ltbm.runtime.pipeline import Pipeline
from ltbm.runtime.prompt import Turn

STEPS = 4  # of the LLM after the prompt
SECONDS = 3.0


@pytest.fixture
def copy(make_bundle, tmp_path):
    """(precision, options of the export) -> the folder of a bundle of its own."""

    def copy_bundle(precision: str = "float32", **export) -> Path:
        return shutil.copytree(make_bundle("qwen2_audio", precision, export)[1], tmp_path / "bundle")

    return copy_bundle


def pack(path: Path, **options):
    said = []
    packed = pack_bundle(Bundle.open(path), progress=said.append, threads=1, **options)
    return packed, said


def values(pipeline: Pipeline, clip: np.ndarray) -> dict[str, np.ndarray]:
    """What the encoder gives, and of the decoder the logits after the prompt and each of STEPS tokens."""
    (audio,) = pipeline.segments(clip)
    encoded = pipeline.encode(audio)
    layout = pipeline.lay_out([Turn("user", "hm ?", 1)], [audio], parse_level("keep50"), STEPS)
    prefix = pipeline.prefix(layout, [pipeline.merge(encoded, layout.level)])
    decoder = pipeline.decoder(len(prefix) + STEPS)
    logits = [decoder.prefill([prefix]).copy()]
    for _ in range(STEPS):
        logits.append(decoder.step(pipeline.embeddings[logits[-1].argmax(-1)]).copy())
    return {"encoder": np.array(encoded[0].audio_embeds), "decoder": np.stack(logits)}


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    for name, value in one.items():
        assert value.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize(
    "precision, export",
    [("float32", {}), ("float16", {}), ("int4", {}), ("int4", {"encoder_precision": "int8"})],
)
def test_values_are_those_of_the_unpacked_bit_for_bit(copy, make_clip, precision, export):
    path = copy(precision, **export)
    pack(path)
    clip = make_clip(SECONDS)
    with Pipeline.open(path, threads=1) as packed, Pipeline.open(path, threads=1, packed=False) as plain:
        expected = values(plain, clip)
        assert np.ptp(expected["decoder"]) > 0
        assert_equal(values(packed, clip), expected)


@pytest.mark.parametrize("stage", ["encoder", "decoder"])
def test_kernels_read_the_packed_file(copy, make_clip, stage):
    """It is changed where it lies once the engines are open."""
    path = copy()
    packed, _ = pack(path)
    with Pipeline.open(path, threads=1) as pipeline:
        before = values(pipeline, make_clip(SECONDS))
        with open(packed[stage].path / WEIGHTS_FILE, "r+b") as file:
            file.seek(packing.PAGE)  # behind the weight at its begin
            file.write(bytes(packed[stage].files[WEIGHTS_FILE].size - packing.PAGE))
        after = values(pipeline, make_clip(SECONDS))
    assert not np.array_equal(after[stage], before[stage])


def test_a_changed_file_is_not_mapped(copy, make_clip):
    path = copy()
    packed, _ = pack(path)
    for one in packed.values():
        (one.path / WEIGHTS_FILE).write_bytes(bytes(one.files[WEIGHTS_FILE].size))
    with pytest.warns(RuntimeWarning, match="not mapped .*ltbm pack .* --refresh"):
        pipeline = Pipeline.open(path, threads=1)
    with pipeline, Pipeline.open(path, threads=1, packed=False) as plain:
        assert_equal(values(pipeline, make_clip(SECONDS)), values(plain, make_clip(SECONDS)))


def test_threads_do_not_matter(copy):
    path = copy("int4")
    one, _ = pack(path)
    files = {stage: packed.files[WEIGHTS_FILE].sha256 for stage, packed in one.items()}
    two = pack_bundle(Bundle.open(path), threads=2, refresh=True, progress=lambda line: None)
    assert {stage: packed.files[WEIGHTS_FILE].sha256 for stage, packed in two.items()} == files


def test_only_one_form_is_kept(copy):
    """The packed buffers, one weight that bears their places, and padding to pages."""
    path = copy()
    packed, _ = pack(path)
    for stage, one in packed.items():
        assert sorted(file.name for file in one.path.iterdir()) == sorted([*one.files, "packed.json"])
        weights = one.files[WEIGHTS_FILE].size
        buffers = weights // packing.PAGE
        assert weights < (path / f"{stage}.weights").stat().st_size + buffers * packing.PAGE


def test_what_is_there_stays(copy):
    path = copy()
    first, _ = pack(path)
    second, said = pack(path)
    assert second == first
    assert [line.split(":")[0] for line in said if "is there" in line] == ["encoder", "decoder"]
    third, _ = pack(path, refresh=True)
    assert third["encoder"].files == first["encoder"].files


def other_host(monkeypatch, **changes) -> None:
    """From now on this machine is another one."""
    here = replace(this_host(), **changes)
    monkeypatch.setattr(packed_store, "this_host", lambda machine=None: here)
    for module in ("ltbm.runtime.backends.engines", "ltbm.export.packing"):
        monkeypatch.setattr(f"{module}.this_host", lambda machine=None: here)


def inspect(path: Path, capsys) -> dict:
    assert main(["inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["packed"]


@pytest.mark.parametrize("changes", [{"onnxruntime": "1.99.0"}, {"cpu": "avx avx2 avx512f"}])
def test_weights_packed_elsewhere_are_named_and_not_mapped(copy, monkeypatch, capsys, changes):
    path = copy()
    pack(path)
    assert [one["not_mapped"] for one in inspect(path, capsys).values()] == [[], []]
    other_host(monkeypatch, **changes)
    bundle = Bundle.open(path)
    graphs = {"encoder": path / "encoder.onnx", "decoder": path / "decoder.gqa.onnx"}
    assert find_packed(bundle, graphs, packed_store.this_host()) == {}
    ((name, value),) = changes.items()
    for one in inspect(path, capsys).values():
        assert f"packed for {name}" in one["not_mapped"][0] and f"here it is {value}" in one["not_mapped"][0]
    packed, said = pack(path)
    assert sum("are not for this machine and bundle" in line for line in said) == 2
    assert len(find_packed(bundle, graphs, packed_store.this_host())) == 2
    kept = {one.path for one in stored_packed(bundle)}
    same_cpu = "onnxruntime" in changes
    assert len(kept) == (2 if same_cpu else 4)  # what another CPU may map stays
    assert kept >= {one.path for one in packed.values()}


def test_another_graph_is_another_key(copy):
    path = copy()
    former, _ = pack(path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["encoder.weights"]["sha256"] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest))
    packed, said = pack(path)
    assert any("packed for another encoder.onnx or its weights" in line for line in said)
    assert packed["decoder"] == former["decoder"] and packed["encoder"].path != former["encoder"].path
    assert any(former["encoder"].path.name in line for line in said if line.startswith("removed"))
    assert not former["encoder"].path.exists()


@pytest.mark.parametrize("text", ["", "{", '{"format": 1}', '{"format": 7}'])
def test_a_record_that_nobody_understands_is_not_mapped(copy, text):
    path = copy()
    packed, _ = pack(path)
    for one in packed.values():
        (one.path / "packed.json").write_text(text)
    bundle = Bundle.open(path)
    graphs = {"encoder": path / "encoder.onnx", "decoder": path / "decoder.gqa.onnx"}
    assert list(stored_packed(bundle)) == [] and find_packed(bundle, graphs, this_host()) == {}
    assert pack(path)[0]["encoder"].files == packed["encoder"].files


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("packed_before", [False, True])
def test_a_pack_that_is_killed_leaves_the_former_state(copy, monkeypatch, packed_before):
    path = copy()
    if packed_before:
        pack(path)
    before = files_of(path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "with_entries", killed)
    with pytest.raises(KeyboardInterrupt):
        pack(path, refresh=True)
    assert files_of(path) == before


def test_what_a_killed_pack_left_goes(copy):
    path = copy()
    left = path / "engines" / ".0123456789ab.export-dead"
    left.mkdir(parents=True)
    (left / "saved.weights").touch()
    _, said = pack(path)
    assert not left.exists() and any(left.name in line for line in said)


def test_a_disk_without_room_is_said_before(copy, monkeypatch):
    path = copy()
    before = files_of(path)
    monkeypatch.setattr(packing, "free_disk", lambda folder: 1000)
    with pytest.raises(OSError, match="packed weights take about .* MiB while packing, 0 MiB are free"):
        pack(path)
    assert files_of(path) == before


def test_a_disk_that_fills_meanwhile_leaves_the_former_state(copy):
    """Files of this process may not grow beyond a limit, as if the disk were full."""
    path = copy()
    before = files_of(path)
    code = (
        "import resource, sys\n"
        "from ltbm.runtime.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"sys.exit(main(['pack', {str(path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "encoder.onnx was not packed" in done.stderr, done.stderr
    assert files_of(path) == before


def test_the_command(copy, capsys):
    path = copy()
    assert main(["pack", str(path), "--json", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert list(facts) == ["encoder", "decoder"] and Path(facts["encoder"]["path"]).is_dir()
    assert "MiB while packing" in err and "encoder: packing" in err
    assert main(["pack", str(path)]) == 0
    assert capsys.readouterr().out.startswith("encoder ")
