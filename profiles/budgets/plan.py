"""A plan: what a model costs on a device at every level, estimated before anything is exported or bought."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.bundle import MANIFEST_NAME, Bundle
from ...runtime.levels import NAMED_RATIOS, Level
from ...runtime.precision import Precision
from .device import load_device
from .estimate import Estimate, Request, choose, estimate
from .model import Model, model_of_bundle, model_of_checkpoint
from .rates import GIB, Rates, device_rates, measured_rates

THIS_MACHINE = "cpu"
DEFAULT_PRECISION = "int4"
DEFAULT_REQUEST = Request()


@dataclass(frozen=True)
class Plan:
    """Everything is an estimate. `chosen` is a level's name, None where no level is within the limits;
    `reason` says why.

    basis: what was counted against which figures; missing: what no figure holds
    """

    model: str
    precision: str
    device: str
    request: Request
    rates: Rates
    estimates: list[Estimate]
    chosen: str | None
    reason: str
    basis: str
    missing: str


def make_plan(
    source,
    device: str,
    levels: Sequence[str] = tuple(NAMED_RATIOS),
    request: Request = DEFAULT_REQUEST,
    precision: str | None = None,
    ttft_ms: float | None = None,
    memory_gib: float | None = None,
    threads: int | None = None,
) -> Plan:
    """Estimate a model on a device.

    source: a bundle, or a checkpoint (a folder or a hub id, of which only config.json and its like are read)
    device: a name of `device_names`, or cpu: this machine, whose rates are measured now (some seconds)
    precision: of the LLM's weights in the export that is planned (default int4); a bundle has its own
    ttft_ms, memory_gib: limits that the chosen level keeps; without them the device's memory is the limit
    """
    model = load_model(source, precision, device)
    rates, title, basis = _rates(model, device, threads)
    named = [Level(name, NAMED_RATIOS[name]) for name in levels]
    ordered = sorted(named, key=lambda level: level.ratio, reverse=True)
    estimates = [estimate(model, rates, request, level) for level in ordered]
    memory_limit = None if memory_gib is None else min(memory_gib * GIB, rates.usable)
    chosen, reason = choose(estimates, ttft_ms, memory_limit)
    return Plan(
        model=model.name,
        precision=str(model.precision),
        device=title,
        request=request,
        rates=rates,
        estimates=estimates,
        chosen=chosen and chosen.level,
        reason=reason,
        basis=basis,
        missing="log-mel, merging, sampling and the time to load are not in the times; audio longer than "
        "the model takes at once "
        f"({model.audio.segment_seconds * model.audio.max_segments:g} s) is several audios (--long-audio "
        "segments)",
    )


def load_model(source, precision: str | None, device: str) -> Model:
    if (Path(source) / MANIFEST_NAME).is_file():
        if precision is not None:
            raise ValueError(
                f"{source} is a bundle and has its precision; give --precision with a checkpoint only"
            )
        return model_of_bundle(Bundle.open(source))
    try:
        return model_of_checkpoint(str(source), _planned_precision(precision or DEFAULT_PRECISION, device))
    except ImportError as error:
        raise ImportError(
            f"{source} is no bundle, and a plan from a checkpoint needs pip install 'ltbm[export]' ({error})"
        ) from None


def _planned_precision(weights: str, device: str) -> Precision:
    """As `ltbm export` would write it for the device: on a GPU int4 is TensorRT's,
    and what is not quantised is float16."""
    from ...export.precision import choose_precision

    on_gpu = device != THIS_MACHINE
    quantised = weights.startswith("int")
    return choose_precision(
        weights,
        "bfloat16",
        target="tensorrt" if on_gpu and weights == "int4" else "onnxruntime",
        activations="float16" if on_gpu and quantised else None,
    )


def _rates(model: Model, device: str, threads: int | None) -> tuple[Rates, str, str]:
    """Rates, the device's title, and what they are taken from."""
    counted = "bytes and operations counted from the model's dimensions"
    if device == THIS_MACHINE:
        rates = measured_rates(model, threads)
        return (
            rates,
            "this machine's CPU",
            (
                f"{counted}, against what this machine just reached through ONNX Runtime: "
                f"{rates.bandwidth / 1e9:.1f} GB/s of weights "
                f"one token at a time, {rates.llm / 1e9:.0f} GFLOP/s many at once"
            ),
        )
    if obstacle := model.precision.obstacle("cuda"):
        raise ValueError(
            f"{model.name} ({model.precision}) runs on no GPU: {obstacle}; plan it for --device cpu"
        )
    found = load_device(device)
    tflops = found.fp32_tflops if model.precision.activations == "float32" else found.fp16_tflops_dense
    return (
        device_rates(found, model),
        found.title,
        (
            f"{counted}, against published figures: {found.bandwidth_gb_s.value:g} GB/s of which "
            f"{found.bandwidth_efficiency.value:.0%} are reached, "
            f"{tflops.value:g} dense TFLOPS of which {found.compute_efficiency.value:.0%} are; ltbm was not "
            "run on it"
        ),
    )
