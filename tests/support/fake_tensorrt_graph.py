"""What the fake TensorRT's building and running share: graphs, serialised data, plugins and the logger."""

from pathlib import Path

import numpy as np
import onnxruntime

from ltbm.plugins import library

WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
NUMPY_TYPES = {
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(float16)": ("HALF", np.float16),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
}


class ILogger:
    """Derived from by the logger under test."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self):
        pass


class HostMemory(bytes):
    """Serialised data."""

    @property
    def nbytes(self) -> int:
        return len(self)


class Registry:
    """The plugins of a builder or runtime."""

    def __init__(self):
        self.libraries = []

    def load_library(self, path):
        self.libraries.append(path)
        return object()


class Graph:
    """An ONNX file on ONNX Runtime; the merge with its function body or native op in place of the plugin."""

    def __init__(self, path: Path, model: bytes):
        self.path = path
        self.model = model
        options = onnxruntime.SessionOptions()
        library.register(options)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry(WEIGHTS_FOLDER, str(path.parent))
        if path.name == "merge.trt.onnx":
            model = path.with_name("merge.onnx").read_bytes()
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.tensors = self.inputs | self.outputs

    def has_dynamic_cache(self) -> bool:
        """Whether a cache that is updated in place has a capacity that varies."""
        cache = self.inputs.get("past.0.key")
        return cache is not None and "past_len" in self.inputs and isinstance(cache.shape[2], str)

    def varying_inputs(self) -> set[str]:
        """Inputs with dimensions that vary."""
        return {
            name for name, value in self.inputs.items() if not all(isinstance(d, int) for d in value.shape)
        }

    def output_shape(self, name: str, shapes: dict, keep: int | None) -> tuple[int, ...]:
        """Of an output, from the shapes of the inputs and the number of tokens to keep."""
        sizes = {} if keep is None else {"K": keep}
        for tensor, value in self.inputs.items():
            for dimension, size in zip(value.shape, shapes[tensor]):
                if isinstance(dimension, str):
                    known = sizes.setdefault(dimension, size)
                    assert known == size, f"{dimension} is {known} and {size}"
        if "F" in sizes:
            sizes["T"] = sizes["F"] // 4
        if "P" in sizes:
            sizes["P + S"] = sizes["P"] + sizes["S"]
        return tuple(sizes[d] if isinstance(d, str) else d for d in self.outputs[name].shape)
