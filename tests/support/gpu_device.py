"""The GPU as check_and_time.py uses it: arrays with guards behind them, one call of the op,
and a captured graph of calls."""

import ctypes
from ctypes import byref, c_char_p, c_double, c_float, c_int, c_size_t, c_void_p

import numpy as np

from .cuda_harness import GUARD, OUTPUTS, POISON

WARMUP, REPEATS = 5, 30  # replays


class Device:
    """The CUDA runtime calls of device.cu."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))

    def call(self, name, *arguments):
        function = getattr(self.library, f"gpu_{name}")
        function.restype = c_char_p
        error = function(*arguments)
        if error:
            raise RuntimeError(f"{name}: {error.decode()}")

    def describe(self):
        text, capability = ctypes.create_string_buffer(300), c_int()
        self.call("describe", text, len(text), byref(capability))
        return text.value.decode(), capability.value

    def stream(self):
        made = c_void_p()
        self.call("stream", byref(made))
        return made.value

    def bandwidth(self, stream):
        found = c_double()
        self.call("bandwidth", c_void_p(stream), byref(found))
        return found.value


class Problem:
    """One call of the op on the device: its arrays, filled with poison but for the inputs."""

    def __init__(self, device, op, x, keep, step=(2, 5)):
        self.device, self.op, self.step = device, op, step
        batch, tokens, width = x.shape
        self.shape, self.half, self.dtype = (batch, tokens, width, keep), int(x.dtype == np.float16), x.dtype
        self.sizes = {
            "x": x.nbytes,
            "lengths": 4 * batch,
            "targets": 4 * batch,
            "window": 4,
            "y": batch * keep * width * x.itemsize,
            "sizes": 4 * batch * keep,
            "anchors": 4 * batch * keep,
            "source_map": 4 * batch * tokens,
            "workspace": op.workspace(self.shape, self.half),
        }
        self.pointers = {name: self.allocate(size) for name, size in self.sizes.items()}

    def allocate(self, size):
        made = c_void_p()
        self.device.call("allocate", c_size_t(size + GUARD), byref(made))
        return made.value

    def fill(self, x, lengths, targets, window):
        given = {
            "x": np.ascontiguousarray(x),
            "lengths": np.asarray(lengths, np.int32),
            "targets": np.asarray(targets, np.int32),
            "window": np.array([window], np.int32),
        }
        for name, size in self.sizes.items():
            if name in given:
                assert given[name].nbytes == size, name
                self.device.call(
                    "upload", c_void_p(self.pointers[name]), c_void_p(given[name].ctypes.data), c_size_t(size)
                )
            else:
                self.device.call("fill", c_void_p(self.pointers[name]), POISON, c_size_t(size + GUARD))

    def enqueue(self, stream):
        self.op.enqueue(self.pointers, self.shape, self.half, self.step, stream)

    def results(self, stream):
        """Outputs by name, once the stream has come to its end;
        AssertionError if anything wrote behind an array."""
        self.device.call("synchronize", c_void_p(stream))
        batch, tokens, width, keep = self.shape
        shapes = {
            "y": (batch, keep, width),
            "sizes": (batch, keep),
            "anchors": (batch, keep),
            "source_map": (batch, tokens),
        }
        out = {}
        for name in (*OUTPUTS, "workspace"):
            raw = np.empty(self.sizes[name] + GUARD, np.uint8)
            self.device.call(
                "download", c_void_p(raw.ctypes.data), c_void_p(self.pointers[name]), c_size_t(raw.nbytes)
            )
            assert (raw[-GUARD:] == POISON).all(), f"the op wrote behind {name}"
            if name != "workspace":
                out[name] = raw[:-GUARD].view(self.dtype if name == "y" else np.int32).reshape(shapes[name])
        return out

    def free(self):
        for pointer in self.pointers.values():
            self.device.call("free", c_void_p(pointer))


class Graph:
    """What `enqueue` puts on the stream, captured."""

    def __init__(self, device, stream, enqueue):
        self.device, self.stream = device, stream
        made, nodes = c_void_p(), c_size_t()
        device.call("begin_capture", c_void_p(stream))
        enqueue()
        device.call("end_capture", c_void_p(stream), byref(made), byref(nodes))
        self.graph, self.nodes = made, nodes.value

    def replay(self):
        self.device.call("replay", self.graph, c_void_p(self.stream))

    def times(self):
        """Seconds of each replay [REPEATS]."""
        out = (c_float * REPEATS)()
        self.device.call("time", self.graph, c_void_p(self.stream), WARMUP, REPEATS, out)
        return np.array(out) * 1e-3

    def drop(self):
        self.device.call("drop_graph", self.graph)
