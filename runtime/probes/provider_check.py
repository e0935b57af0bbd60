"""Runs one node on an ONNX Runtime provider: `python -m ltbm.runtime.probes.provider_check NAME`.

In a process of its own, because a driver and libraries that do not go together can end it. Exit code 0 if the
node ran there.
"""

import sys

import numpy as np

IR_VERSION = 8
OPSET = 13
FLOAT = 1  # TensorProto.FLOAT


def main(provider: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if provider != "CPUExecutionProvider":  # which would take over silently
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(relu_model(), options, providers=[provider])
    if session.get_providers()[0] != provider:
        sys.exit(f"{provider} does not start")
    (result,) = session.run(None, {"x": np.array([-1.0], np.float32)})
    if np.asarray(result).tolist() != [0.0]:
        sys.exit(f"{provider} computes a wrong result")


def relu_model() -> bytes:
    """y = Relu(x), one float: an ONNX file without the onnx package, which the runtime does not have."""
    tensor = _field(1, FLOAT) + _field(2, _field(1, _field(1, 1)))

    def value(name: bytes) -> bytes:
        return _field(1, name) + _field(2, _field(1, tensor))

    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"Relu")
    graph = _field(1, node) + _field(2, b"relu") + _field(11, value(b"x")) + _field(12, value(b"y"))
    return _field(1, IR_VERSION) + _field(7, graph) + _field(8, _field(2, OPSET))


def _field(number: int, content: int | bytes) -> bytes:
    """A field of a protocol buffer; numbers and lengths below 128, which take one byte."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content)]) + content


if __name__ == "__main__":
    main(sys.argv[1])
