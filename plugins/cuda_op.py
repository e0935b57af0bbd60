"""The op on a CUDA GPU through libltbm_cuda.so, the C interface of src/cuda/ltbm_cuda.h."""

import ctypes
from ctypes import c_char_p, c_int32, c_size_t, c_void_p
from pathlib import Path

from . import library

REFUSAL = "LTBM: "  # how the op's own reasons begin


class Call(ctypes.Structure):
    """ltbm_cuda_call: device addresses, and the sizes of x [B, T, D] and y [B, K, D].

    half: 1 for float16, 0 for float32
    """

    x: int
    lengths: int
    targets: int
    window: int
    y: int
    sizes: int
    anchors: int
    source_map: int
    workspace: int
    batch: int
    tokens: int
    slots: int
    width: int
    half: int
    step_num: int
    step_den: int
    _fields_ = [
        *((name, c_void_p) for name in ("x", "lengths", "targets", "window")),
        *((name, c_void_p) for name in ("y", "sizes", "anchors", "source_map", "workspace")),
        *((name, c_int32) for name in ("batch", "tokens", "slots", "width", "half", "step_num", "step_den")),
    ]


class CudaOp:
    """The library, loaded; OSError with what to do where it does not load."""

    def __init__(self, path: Path):
        try:
            self.library = ctypes.CDLL(str(path))
        except OSError as error:
            raise OSError(
                f"the CUDA op {path} does not load: {error}. It was built for another machine: "
                f"{library.BUILD_CUDA}"
            ) from None
        self._workspace = self.library.ltbm_cuda_workspace
        self._workspace.argtypes = [c_int32, c_int32]
        self._workspace.restype = c_size_t
        self._enqueue = self.library.ltbm_cuda_enqueue
        self._enqueue.argtypes = [ctypes.POINTER(Call), c_void_p]
        self._enqueue.restype = c_char_p

    def workspace(self, batch: int, tokens: int) -> int:
        """Bytes that a call needs; 0 for sizes out of range, which `enqueue` refuses with the reason."""
        return self._workspace(batch, tokens)

    def enqueue(self, call: Call, stream: int | None) -> None:
        """Put the op on a stream (a cudaStream_t).

        Raises ValueError with the reason for a call that the op refuses, RuntimeError where CUDA does.
        """
        reason = self._enqueue(ctypes.byref(call), stream)
        if not reason:
            return
        text = reason.decode()
        if text.startswith(REFUSAL):
            raise ValueError(text)
        raise RuntimeError(
            f"the CUDA op did not start ({text}): `ltbm doctor` says which GPUs it was built for; "
            f"{library.BUILD_CUDA}"
        )
