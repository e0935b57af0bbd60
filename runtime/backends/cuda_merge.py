"""The merge stage on a GPU in two parts: the op, called on the stream, then an engine of the projector."""

from collections.abc import Mapping

import numpy as np

from ...plugins.cuda_op import Call, CudaOp
from ...plugins.merge import check_counts, check_window
from ..engine import Array, Binding, Engine, TensorSpec, address_of, check_arrays, is_contiguous
from .cuda import CudaArray, Stream

PLAN = ("sizes", "anchors")  # of the op's outputs, what the projector reads
MERGED = "merged_tokens"  # [B, K, D], from the op to the projector


class CudaMergeEngine:
    """Takes and gives what the graph merge.onnx does.

    projector: the engine of merge.projector.onnx, on the same stream
    step: LTBM's, numerator and denominator
    """

    def __init__(self, op: CudaOp, projector: Engine, stream: Stream, step: tuple[int, int]):
        self._op = op
        self._projector = projector
        self._stream = stream
        self._step = step
        merged = projector.inputs[MERGED]
        int32 = np.dtype(np.int32)
        specs = [
            TensorSpec("audio_embeds", merged.dtype, (None, None, merged.width)),
            TensorSpec("lengths", int32, (None,)),
            TensorSpec("targets", int32, (None,)),
            TensorSpec("keep", np.dtype(np.int64), (1,)),
            TensorSpec("window", int32, (1,)),
        ]
        placing = [spec for name, spec in projector.inputs.items() if name not in (MERGED, *PLAN)]
        self.inputs = {spec.name: spec for spec in (*specs, *placing)}
        plan = {name: projector.inputs[name] for name in PLAN}
        source_map = TensorSpec("source_map", int32, (None, None))
        self.outputs = projector.outputs | plan | {"source_map": source_map}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_arrays(self.inputs, inputs)
        rows, tokens, _ = inputs["audio_embeds"].shape
        slots = int(inputs["keep"][0])
        outputs: dict[str, Array] = {}
        for name, spec in self.outputs.items():
            count = tokens if name == "source_map" else slots
            outputs[name] = self.zeros((rows, count, *(n or 0 for n in spec.shape[2:])), spec.dtype)
        self.bind({**inputs, **outputs}).run()
        return {name: np.asarray(array) for name, array in outputs.items()}

    def zeros(self, shape: tuple[int, ...], dtype) -> Array:
        return self._stream.zeros(shape, dtype)

    def bind(self, arrays: Mapping[str, Array], once: bool = False) -> "CudaMergeBinding":
        check_arrays(self.inputs | self.outputs, arrays)
        rows, tokens, width = arrays["audio_embeds"].shape
        slots = int(np.asarray(arrays["keep"])[0])
        _check_values(arrays, rows, tokens, slots)
        merged = self._stream.empty((rows, slots, width), arrays["audio_embeds"].dtype)
        workspace = self._stream.empty((self._op.workspace(rows, tokens),), np.uint8)
        op_arrays = {"y": merged, "workspace": workspace}
        for name in ("lengths", "targets", "window", *PLAN, "source_map"):
            op_arrays[name] = self._on_device(name, arrays[name])
        op_arrays["x"] = self._on_device("audio_embeds", arrays["audio_embeds"])
        call = Call(
            **{name: address_of(array) for name, array in op_arrays.items()},
            batch=rows,
            tokens=tokens,
            slots=slots,
            width=width,
            half=int(merged.dtype == np.float16),
            step_num=self._step[0],
            step_den=self._step[1],
        )
        names = self._projector.inputs | self._projector.outputs
        of_projector = {name: merged if name == MERGED else arrays[name] for name in names}
        return CudaMergeBinding(
            self._op, call, self._stream, self._projector.bind(of_projector), list(op_arrays.values())
        )

    def interrupt(self, now: bool) -> None:
        """Let the projector's runs fail, where its engine can; the op takes no time to speak of."""
        interrupt = getattr(self._projector, "interrupt", None)
        if interrupt:
            interrupt(now)

    def close(self) -> None:
        self._projector.close()

    def _on_device(self, name: str, array: Array) -> CudaArray:
        """What the op reads and writes; ValueError for outputs on the host and for arrays with gaps."""
        if not isinstance(array, CudaArray):
            if name in self.outputs:
                raise ValueError(f"engine tensor {name} is an output on the host: bind what `zeros` gave")
            return self._stream.upload(np.asarray(array))
        if not is_contiguous(array):
            raise ValueError(f"engine tensor {name} is not contiguous: bind a copy")
        return array


class CudaMergeBinding:
    """One call of the op and a binding of the projector.

    arrays: those of the op, which stay as long as this does
    """

    def __init__(self, op: CudaOp, call: Call, stream: Stream, projector: Binding, arrays: list[CudaArray]):
        self._op = op
        self._call = call
        self._stream = stream
        self._projector = projector
        self._arrays = arrays

    def run(self) -> None:
        self._op.enqueue(self._call, self._stream.handle)
        self._projector.run()


def _check_values(arrays: Mapping[str, Array], rows: int, tokens: int, slots: int) -> None:
    """ValueError for what the op would answer with an empty row: a kernel cannot raise."""
    lengths = np.asarray(arrays["lengths"]).tolist()
    targets = np.asarray(arrays["targets"]).tolist()
    check_counts(rows, tokens, lengths, targets, slots)
    check_window(int(np.asarray(arrays["window"])[0]))
