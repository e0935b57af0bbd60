"""The ONNX Runtime backend: one InferenceSession a stage, bound to arrays by their addresses."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

try:
    import onnxruntime
except ImportError:
    raise ImportError("the onnxruntime backend needs onnxruntime: pip install 'ltbm[cpu]', or 'ltbm[gpu]' for CUDA") from None

from ltbm.plugins import library
from ltbm.runtime.engine import BFLOAT16, Array, TensorSpec, check_arrays

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(bfloat16)": BFLOAT16, "tensor(int8)": np.int8,
               "tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
ONNX_BFLOAT16 = 16  # TensorProto.BFLOAT16


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
        check_arrays(self.inputs, inputs)
        return dict(zip(self.outputs, self._session.run(list(self.outputs), dict(inputs))))

    def zeros(self, shape: tuple[int, ...], dtype) -> Array:
        return np.zeros(shape, dtype)

    def bind(self, arrays: Mapping[str, Array]) -> "OrtBinding":
        check_arrays(self.inputs | self.outputs, arrays)
        return OrtBinding(self._session, self.inputs, arrays)

    def close(self) -> None:
        self._session = None


class OrtBinding:
    """An OrtEngine with every input and output at a fixed address; holds the arrays, so that they stay."""

    def __init__(self, session, inputs: Mapping[str, TensorSpec], arrays: Mapping[str, Array]):
        self._session, self._io, self._arrays = session, session.io_binding(), arrays
        for name, array in arrays.items():
            bind = self._io.bind_input if name in inputs else self._io.bind_output
            bind(name, "cpu", 0, _element_type(array.dtype), array.shape, _address(name, array))

    def run(self) -> None:
        self._session.run_with_iobinding(self._io)


def _address(name: str, array: np.ndarray) -> int:
    if not array.flags.c_contiguous:
        raise ValueError(f"engine tensor {name} is not contiguous: bind a copy")
    return array.ctypes.data


def _element_type(dtype: np.dtype):
    return ONNX_BFLOAT16 if dtype == BFLOAT16 else dtype.type


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
