"""An engine on the host between engines on the GPU: its arrays are copied there and back."""

from collections.abc import Mapping

import numpy as np

from ..engine import Array, Engine, check_arrays
from .cuda import CudaArray, Stream


class HostEngine:
    """What a backend runs on the CPU of a chain that is otherwise on the GPU.

    engine: takes and gives arrays on the host
    """

    def __init__(self, engine: Engine, stream: Stream):
        self.inputs = engine.inputs
        self.outputs = engine.outputs
        self._engine = engine
        self._stream = stream

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._engine.run({name: np.asarray(array) for name, array in inputs.items()})

    def zeros(self, shape: tuple[int, ...], dtype) -> Array:
        return self._stream.zeros(shape, dtype)

    def bind(self, arrays: Mapping[str, Array], once: bool = False) -> "HostBinding":
        check_arrays(self.inputs | self.outputs, arrays)
        return HostBinding(self._engine, arrays)

    def close(self) -> None:
        self._engine.close()


class HostBinding:
    """Copies inputs to the host, runs there, and copies outputs to where they were bound."""

    def __init__(self, engine: Engine, arrays: Mapping[str, Array]):
        self._arrays = dict(arrays)
        self._inputs = {name: arrays[name] for name in engine.inputs}
        self._outputs = {}
        for name in engine.outputs:
            bound = arrays[name]
            on_host = not isinstance(bound, CudaArray)
            self._outputs[name] = bound if on_host else np.zeros(bound.shape, bound.dtype)
        self._engine = engine

    def run(self) -> None:
        inputs = {name: np.asarray(array) for name, array in self._inputs.items()}
        self._engine.bind(inputs | self._outputs).run()
        for name, values in self._outputs.items():
            bound = self._arrays[name]
            if bound is not values:
                bound[:] = values
