"""The ONNX Runtime backend: one InferenceSession a stage, IO binding for what stays on the device."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

try:
    import onnxruntime
except ImportError:
    raise ImportError("the onnxruntime backend needs onnxruntime: pip install 'ltbm[cpu]', or 'ltbm[gpu]' for CUDA") from None

from ltbm.plugins import library
from ltbm.runtime.engine import TensorSpec, check_inputs

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


class OrtEngine:
    """A graph on ONNX Runtime, on `cpu` or `cuda`."""

    def __init__(self, path: Path, device: str = "cpu", threads: int | None = None):
        self.device = device
        self._session = onnxruntime.InferenceSession(str(path), _options(device, threads), providers=_providers(device))
        if self._session.get_providers()[0] != PROVIDERS[device]:
            raise RuntimeError(f"onnxruntime could not start {PROVIDERS[device]} and fell back to "
                               f"{self._session.get_providers()[0]}; check the driver and the CUDA libraries")
        self.inputs = {value.name: _spec(value) for value in self._session.get_inputs()}
        self.outputs = {value.name: _spec(value) for value in self._session.get_outputs()}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_inputs(self.inputs, inputs)
        return dict(zip(self.outputs, self._session.run(list(self.outputs), dict(inputs))))

    def zeros(self, shape: tuple[int, ...], dtype) -> onnxruntime.OrtValue:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), self.device, 0)

    def bind(self, fixed: Mapping[str, onnxruntime.OrtValue]) -> "OrtBinding":
        return OrtBinding(self, self._session, fixed)

    def close(self) -> None:
        self._session = None


class OrtBinding:
    """An OrtEngine with buffers fixed; inputs left over come from host arrays, outputs left over go to host arrays.

    The outputs left over keep their buffers from run to run: what `run` returned is overwritten by the next one, and
    their shapes must not change.
    """

    def __init__(self, engine: OrtEngine, session, fixed: Mapping[str, onnxruntime.OrtValue]):
        self._session, self._io = session, session.io_binding()
        self.inputs = {name: spec for name, spec in engine.inputs.items() if name not in fixed}
        self.outputs = [name for name in engine.outputs if name not in fixed]
        for name in self.outputs:  # first, so that their places in the result are known
            self._io.bind_output(name, "cpu")
        for name, buffer in fixed.items():
            if name in engine.inputs:
                self._io.bind_ortvalue_input(name, buffer)
            else:
                self._io.bind_ortvalue_output(name, buffer)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_inputs(self.inputs, inputs)
        for name, array in inputs.items():
            self._io.bind_cpu_input(name, np.ascontiguousarray(array))
        self._session.run_with_iobinding(self._io)
        results = self._io.get_outputs_as_ortvaluevector()
        return {name: results[place].numpy() for place, name in enumerate(self.outputs)}


def _options(device: str, threads: int | None):
    options = onnxruntime.SessionOptions()
    if device == "cpu":  # elsewhere the function body keeps the tokens on the device
        library.register(options)
    # Idle threads of one engine would take the cores from the next stage: on 2 cores that costs a fifth to half of TTFT.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # errors only: warnings about unused initializers are no news to a user
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _providers(device: str) -> list[str]:
    if device not in PROVIDERS:
        raise ValueError(f"unknown device {device!r}; devices are {', '.join(PROVIDERS)}")
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this onnxruntime has no {PROVIDERS[device]}: pip uninstall onnxruntime && pip install 'ltbm[gpu]'")
    return [PROVIDERS["cuda"], PROVIDERS["cpu"]] if device == "cuda" else [PROVIDERS["cpu"]]


def _spec(value) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else None for d in value.shape)
    return TensorSpec(value.name, np.dtype(NUMPY_TYPES[value.type]), shape)
