import hashlib
import json
import shutil
from pathlib import Path

import onnx
import pytest

from ltbm.runtime.bundle import FORMAT_VERSION, Bundle
from ltbm.runtime.levels import ATTENTION, parse_level
from ltbm.runtime.session import Session


@pytest.fixture
def copy(qwen, tmp_path):
    return shutil.copytree(qwen[1], tmp_path / "bundle")


def edit_manifest(folder, change) -> None:
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def test_opens_and_verifies(qwen):
    manifest = Bundle.open(qwen[1], verify=True).manifest
    assert manifest.family == "qwen2_audio" and manifest.audio.segment_seconds == 30


def test_the_manifest_survives_a_round_trip(qwen):
    manifest = Bundle.open(qwen[1]).manifest
    assert type(manifest).from_json(manifest.to_json(), qwen[1]) == manifest


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="ltbm export"):
        Bundle.open(tmp_path / "none")


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(FileNotFoundError, match="manifest.json"):
        Bundle.open(tmp_path)


def test_half_a_bundle(copy):
    (copy / "decoder.weights").unlink()
    with pytest.raises(FileNotFoundError, match="half a bundle"):
        Bundle.open(copy)


def test_a_cut_file(copy):
    path = copy / "encoder.weights"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut or changed"):
        Bundle.open(copy)


def test_a_changed_byte_is_seen_when_verifying(copy):
    path = copy / "encoder.weights"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    Bundle.open(copy)
    with pytest.raises(ValueError, match="sha256"):
        Bundle.open(copy, verify=True)


def test_a_newer_format(copy):
    edit_manifest(copy, lambda raw: raw.update(format_version=FORMAT_VERSION + 1))
    with pytest.raises(ValueError, match="upgrade ltbm"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("decoder"),
        lambda raw: raw["audio"].update(surprise=1),
        lambda raw: raw.update(files=3),
    ],
)
def test_a_garbled_manifest(copy, change):
    edit_manifest(copy, change)
    with pytest.raises(ValueError, match="lacks a field or has a wrong one"):
        Bundle.open(copy)


def test_a_manifest_that_is_no_json(copy):
    (copy / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="not a bundle manifest"):
        Bundle.open(copy)


def to_format_3(bundle: Path) -> None:
    """The merge takes proportional_attention [1] int32, 0 or 1, in place of bias_strength [1] float32."""
    model = onnx.load(bundle / "merge.onnx", load_external_data=False)
    taken = next(one for one in model.graph.input if one.name == "bias_strength")
    taken.name = "proportional_attention"
    taken.type.tensor_type.elem_type = onnx.TensorProto.INT32
    cast = onnx.helper.make_node(
        "Cast", ["proportional_attention"], ["bias_strength"], to=onnx.TensorProto.FLOAT
    )
    model.graph.node.insert(0, cast)
    onnx.save(model, bundle / "merge.onnx")
    written = (bundle / "merge.onnx").read_bytes()
    record = {"sha256": hashlib.sha256(written).hexdigest(), "size": len(written)}

    def change(raw):
        raw["format_version"] = 3
        raw["files"]["merge.onnx"] |= record

    edit_manifest(bundle, change)


def test_format_3_knows_two_kinds_of_attention(copy, qwen, make_clip):
    to_format_3(copy)
    with Session.open(copy) as former, Session.open(qwen[1]) as session:
        for attention in ATTENTION:
            level = parse_level("keep12", attention=attention)
            expected = session.generate(make_clip(5), "What?", level, max_new_tokens=8)
            answer = former.generate(make_clip(5), "What?", level, max_new_tokens=8)
            assert answer.token_ids == expected.token_ids
        with pytest.raises(ValueError, match="attention 1.5 needs a bundle of format 4"):
            former.generate(make_clip(5), "What?", parse_level("keep12", attention=1.5))
