"""What a plan measures on this machine, and the `ltbm plan` command."""

import json

import numpy as np
import onnx
import pytest

from ltbm.export.int8_products import WEIGHT_TOP
from ltbm.export.quantize import Quantization
from ltbm.profiles.budgets import probe, rates
from ltbm.profiles.budgets.estimate import Rates
from ltbm.profiles.budgets.model import model_of_bundle
from ltbm.profiles.budgets.onnx_bytes import FLOAT, chain_model
from ltbm.profiles.budgets.probe import Measured, Storage, _matrix, _product
from ltbm.runtime.backends.native_products import takes_columns
from ltbm.runtime.backends.opening import open_engine
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main

pytestmark = pytest.mark.slow

WIDTH, FFN = 64, 96


@pytest.mark.parametrize("weights,bits", [("float32", 0), ("int4", 4), ("int8", 8)])
def test_the_chain_is_a_valid_model_of_its_products(tmp_path, weights, bits):
    storage = Storage(weights, "float32", 32 if bits else 0, 0)
    matrices, shapes = (
        [_matrix(WIDTH, FFN, storage), _matrix(FFN, WIDTH, storage)],
        ((WIDTH, FFN), (FFN, WIDTH)),
    )
    with open(tmp_path / "weights", "wb") as stream:
        products = [_product(stream, matrix, shape, storage) for matrix, shape in zip(matrices, shapes)]
    path = tmp_path / "chain.onnx"
    path.write_bytes(chain_model(products, FLOAT, WIDTH))
    onnx.checker.check_model(path)
    x = np.random.default_rng(2).standard_normal((5, WIDTH)).astype(np.float32)
    up, down = (_dense(matrix, bits) for matrix in matrices)
    np.testing.assert_allclose(
        open_engine(path, device="cpu").run({"x": x})["y"], x @ up @ down, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("ours", [True, False])
def test_int8_columns_are_multiplied_by_the_op_of_an_int8_encoder(tmp_path, monkeypatch, ours):
    if ours and not takes_columns():
        pytest.skip("on this processor they are ONNX Runtime's")
    monkeypatch.setattr(probe, "takes_columns", lambda: ours)
    storage = Storage("int8", "float32")
    matrix = _matrix(WIDTH, FFN, storage)
    with open(tmp_path / "weights", "wb") as stream:
        product = _product(stream, matrix, (WIDTH, FFN), storage)
    path = tmp_path / "chain.onnx"
    path.write_bytes(chain_model([product], FLOAT, WIDTH))
    x = np.random.default_rng(2).uniform(-1, 1, (5, WIDTH)).astype(np.float32)
    codes, scales = matrix
    assert np.abs(codes.astype(int)).max() <= WEIGHT_TOP == probe.WEIGHT_TOP
    want = x @ (codes * scales)
    got = open_engine(path, device="cpu").run({"x": x})["y"]
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()  # activations are rounded to int8


def _dense(matrix: list[np.ndarray], bits: int) -> np.ndarray:
    """[K, N] float32 of codes [N, blocks, bytes] and scales [N, blocks]."""
    if not bits:
        return matrix[0]
    codes, scales = matrix
    values = codes if bits == 8 else np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], -1)
    centred = values.astype(np.float32) - Quantization(bits).zero_point
    return (centred * scales[..., None]).reshape(len(scales), -1).T


def test_copies_of_a_matrix_differ_so_that_none_is_shared(tmp_path):
    storage = Storage("float32", "float32")
    matrix = _matrix(WIDTH, FFN, storage)
    with open(tmp_path / "weights", "wb") as stream:
        first, second = (_product(stream, matrix, (WIDTH, FFN), storage).weights[0] for _ in range(2))
    data = (tmp_path / "weights").read_bytes()
    assert (
        data[first.offset : first.offset + first.size] != data[second.offset : second.offset + second.size]
        and first.name != second.name
    )


def test_measuring_gives_rates_of_the_bytes_that_were_written(monkeypatch):
    monkeypatch.setattr(probe, "MOST_PAIRS", 2)
    found = probe._measure(256, 512, Storage("float32", "float32"), 1)
    assert (
        found.bandwidth > 0 and found.rate > found.bandwidth / 4
    )  # a float32 weight of one token is two operations in four bytes
    with pytest.raises(RuntimeError, match="measuring products of int5 failed"):
        probe.measure_products(64, 96, Storage("int5", "float32", 32))


@pytest.mark.parametrize(
    "storage", [Storage("int4", "float32", 32, 4), Storage("int8", "float32"), Storage("float32", "float32")]
)
def test_weights_count_as_memory_whether_mapped_or_packed(monkeypatch, storage):
    monkeypatch.setattr(probe, "MOST_PAIRS", 4)
    found = probe._measure(2048, 4096, storage, 1)
    assert 0.8 < found.resident < 2.5


def test_rates_of_this_machine_take_the_models_own_types(monkeypatch, make_bundle):
    asked = []

    def measure(width, ffn, storage, threads):
        asked.append((width, ffn, storage.weights, storage.activations, storage.block_size, threads))
        return Measured(bandwidth=len(asked) * 1e9, rate=len(asked) * 1e12, resident=len(asked))

    monkeypatch.setattr(probe, "measure_products", measure)
    model = model_of_bundle(Bundle.open(make_bundle("qwen2_audio", "int4")[1]))
    found = rates.measured_rates(model, 3)
    assert asked == [(32, 64, "float32", "float32", 0, 3), (64, 96, "int4", "float32", 32, 3)]
    assert (found.encoder, found.llm, found.bandwidth, found.move_seconds) == (1e12, 2e12, 2e9, 1e-9)
    assert (found.encoder_resident, found.llm_resident, found.loading) == (
        1,
        2,
        model.head_bytes,
    ) and found.usable > 2**20


def test_an_int8_encoder_is_measured_beside_what_it_leaves_in_float32(monkeypatch, make_bundle):
    """Attention and values are float32's, only products with weights are int8's."""

    def measure(width, ffn, storage, threads):
        count = {"float32": 1, "int8": 2, "int4": 3}[storage.weights]
        return Measured(bandwidth=count * 1e9, rate=count * 1e12, resident=count)

    monkeypatch.setattr(probe, "measure_products", measure)
    bundle = Bundle.open(make_bundle("qwen2_audio", "int4", dict(encoder_precision="int8"))[1])
    found = rates.measured_rates(model_of_bundle(bundle), 3)
    assert (found.encoder, found.encoder_resident) == (2e12, 2)
    assert (found.attention, found.move_seconds) == (1e12, 1e-9)


def test_an_int8_encoder_is_planned_for_no_gpu(make_bundle, capsys):
    _, bundle = make_bundle("qwen2_audio", "int4", dict(encoder_precision="int8"))
    assert main(["plan", str(bundle), "--device", "thor"]) == 1
    assert "runs on no GPU: its int8 encoder is for CPUs" in capsys.readouterr().err


def test_plan_prints_a_table_and_one_object(qwen, capsys):
    flags = [
        "plan",
        str(qwen[1]),
        "--device",
        "orin-nano-8gb",
        "--levels",
        "full,keep25",
        "--audio-seconds",
        "12",
        "--ttft-ms",
        "800",
    ]
    assert main(flags) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith("estimate")
        and "Orin Nano" in out
        and "choose    full" in out
        and "ltbm was not run on it" in out
    )
    assert main([*flags, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["estimate"] is True and plan["chosen"] == "full"
    assert [(one["level"], one["tokens_out"]) for one in plan["estimates"]] == [("full", 300), ("keep25", 75)]


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--device", "toaster"], "devices are"),
        ([], "--device is missing"),
        (["--device", "thor", "--levels", "keep99"], "levels are"),
        (["--device", "thor", "--audio-seconds", "0"], "--audio-seconds: 0 is not a number above 0"),
        (["--device", "thor", "--text-tokens", "1.5"], "--text-tokens: 1.5 is not a whole number"),
    ],
)
def test_wrong_usage_exits_with_2(qwen, capsys, flags, words):
    assert main(["plan", str(qwen[1]), *flags]) == 2
    assert words in capsys.readouterr().err


def test_devices_are_listed_with_their_sources(capsys):
    assert main(["plan", "--devices"]) == 0
    assert "bandwidth_gb_s             273  NVIDIA" in capsys.readouterr().out
    assert main(["plan", "--devices", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["thor"]["bandwidth_gb_s"]["value"] == 273


def test_check_measures_what_it_estimates(qwen, capsys, monkeypatch):
    from ltbm.profiles.budgets import check

    monkeypatch.setattr(
        check,
        "measured_rates",
        lambda model, threads: Rates(1e9, 1e10, 1e10, 1e10, usable=2**33, runtime=2**26),
    )
    monkeypatch.setattr(check, "TURNS", 1)
    monkeypatch.setattr(check, "REPEATS", 1)
    monkeypatch.setattr(check.os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert (
        main(
            [
                "plan",
                str(qwen[1]),
                "--check",
                "--levels",
                "keep25",
                "--audio-seconds",
                "2",
                "--max-new-tokens",
                "4",
                "--json",
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert "load average 3.0" in err
    lines = {line["quantity"]: line for line in json.loads(out)}
    assert set(lines) == {"encoder", "prefill", "tpot", "memory"}
    for line in lines.values():
        assert line["measured"] > 0 and line["error"] == pytest.approx(
            line["estimated"] / line["measured"] - 1
        )
    assert lines["memory"]["unit"] == "MiB" and lines["memory"]["measured"] > 30
