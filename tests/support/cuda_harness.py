"""Drives the CUDA kernels and the TensorRT plugin.

Arrays live wherever the library works: on the host for emulated kernels, on the device for real ones.
"""

import ctypes
from ctypes import c_char_p, c_int32, c_int64, c_void_p

import numpy as np

from ltbm.plugins.cuda_op import Call, CudaOp

OUTPUTS = ("y", "sizes", "anchors", "source_map")
GUARD = 256  # bytes behind every array that must stay as they are
POISON = 0xA5


class Kernels:
    """The bare launcher of ltbm_cuda.h."""

    def __init__(self, path):
        self._op = CudaOp(path)
        self.library = self._op.library

    def configure(self, residents=3, seed=0, processors=4):
        """Of the emulator: blocks side by side, a shuffle of its threads,
        multiprocessors it pretends to have."""
        self.library.emulator_configure(residents, seed, processors)

    def workspace(self, shape, half):
        return self._op.workspace(shape[0], shape[1])

    def enqueue(self, pointers, shape, half, step, stream=None):
        """Enqueue on addresses by name; shape is B, T, D, K.
        RuntimeError with the library's words if it refuses."""
        batch, tokens, width, slots = shape
        call = Call(
            **pointers,
            batch=batch,
            tokens=tokens,
            slots=slots,
            width=width,
            half=half,
            step_num=step[0],
            step_den=step[1],
        )
        self._op.enqueue(call, stream)


class Host:
    """The stand-in for TensorRT, with a plugin library opened in it."""

    POINTERS = ("open", "create", "clone", "attach", "reload")

    def __init__(self, host_path, plugin_path):
        self.library = ctypes.CDLL(str(host_path))
        for name in self.POINTERS:
            getattr(self.library, f"host_{name}").restype = c_void_p
        for name in ("log", "timing_id"):
            getattr(self.library, f"host_{name}").restype = c_char_p
        self.library.host_workspace.restype = c_int64
        self.library.host_clear_log()
        self.creator = c_void_p(self.library.host_open(str(plugin_path).encode()))
        if not self.creator:
            raise RuntimeError(f"{plugin_path} is no plugin library: {self.log()}")

    def log(self):
        return self.library.host_log().decode()

    def describe(self):
        text = ctypes.create_string_buffer(200)
        self.library.host_describe(self.creator, text, len(text))
        return text.value.decode()

    def create(self, step=(2, 5), wide=True, given=2):
        """A plugin in the build phase. wide: fields in int64; given: how many of them."""
        self.library.host_clear_log()
        made = self.library.host_create(self.creator, c_int64(step[0]), c_int64(step[1]), wide, given)
        if not made:
            raise RuntimeError(self.log())
        return HostedPlugin(self, made)


class HostedPlugin:
    """A plugin object; takes the same enqueue as Kernels, its step apart."""

    def __init__(self, host, address):
        self.host, self.library, self.address = host, host.library, c_void_p(address)

    def clone(self):
        return HostedPlugin(self.host, self.library.host_clone(self.address))

    def attach(self):
        return HostedPlugin(self.host, self.library.host_attach(self.address))

    def reload(self):
        """Serialise, destroy and read back."""
        made = self.library.host_reload(self.host.creator, self.address)
        self.address = None
        return HostedPlugin(self.host, made)

    def destroy(self):
        self.library.host_destroy(self.address)

    def timing_id(self):
        return self.library.host_timing_id(self.address).decode()

    def shapes(self, x, keep, shape_inputs=1):
        out = (c_int64 * 12)()
        self.library.host_clear_log()
        if self.library.host_shapes(
            self.address, (c_int64 * len(x))(*x), len(x), c_int64(keep), shape_inputs, out
        ):
            raise RuntimeError(self.host.log())
        return [tuple(extent for extent in out[3 * i : 3 * i + 3] if extent) for i in range(4)]

    def types(self, x_type):
        out = (c_int32 * 4)()
        assert self.library.host_types(self.address, self.library.host_type(x_type.encode()), out) == 0
        return list(out)

    def supports(self, position, x_type, dtype, linear=True):
        number = self.library.host_type
        form = self.library.host_linear() + (not linear)
        return bool(
            self.library.host_supports(
                self.address, position, number(x_type.encode()), number(dtype.encode()), form
            )
        )

    def workspace(self, shape, half):
        return self.library.host_workspace(self.address, (c_int64 * 4)(*shape), half)

    def enqueue(self, pointers, shape, half, step=None, stream=None):
        inputs = [pointers["x"], pointers["lengths"], pointers["targets"], None, pointers["window"]]
        outputs = [pointers[name] for name in OUTPUTS]
        self.library.host_clear_log()
        if self.library.host_enqueue(
            self.address,
            (c_int64 * 4)(*shape),
            half,
            (c_void_p * 5)(*inputs),
            (c_void_p * 4)(*outputs),
            c_void_p(pointers["workspace"]),
            c_void_p(stream),
        ):
            raise RuntimeError(self.host.log())


# --- the op on host memory, and comparison with the reference ---


def merge_on_host(op, x, lengths, targets, keep, window, step=(2, 5)):
    """The op of an emulated library on numpy arrays; outputs,
    workspace and what lies behind them start as poison."""
    batch, tokens, width = x.shape
    shape, half = (batch, tokens, width, keep), int(x.dtype == np.float16)
    fresh = {
        "y": poisoned(batch * keep * width * x.itemsize),
        "sizes": poisoned(batch * keep * 4),
        "anchors": poisoned(batch * keep * 4),
        "source_map": poisoned(batch * tokens * 4),
        "workspace": poisoned(op.workspace(shape, half)),
    }
    given = {
        "x": np.ascontiguousarray(x),
        "lengths": np.asarray(lengths, np.int32),
        "targets": np.asarray(targets, np.int32),
        "window": np.array([window], np.int32),
    }
    op.enqueue({name: array.ctypes.data for name, array in {**fresh, **given}.items()}, shape, half, step)
    for name, array in fresh.items():
        assert (array[-GUARD:] == POISON).all(), f"the op wrote behind {name}"
    shapes = {
        "y": (batch, keep, width),
        "sizes": (batch, keep),
        "anchors": (batch, keep),
        "source_map": (batch, tokens),
    }
    return {
        name: fresh[name][:-GUARD].view(x.dtype if name == "y" else np.int32).reshape(shapes[name])
        for name in OUTPUTS
    }


def poisoned(size):
    """`size` bytes and a guard behind them, aligned as a device allocates."""
    block = np.full(size + 2 * GUARD, POISON, np.uint8)
    start = -block.ctypes.data % GUARD
    return block[start : start + size + GUARD]


def assert_same(got, want):
    """Every output bit for bit; NaNs of any payload are alike, as the hardware that adds them chooses it."""
    for name in OUTPUTS[1:]:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
    assert got["y"].dtype == want["y"].dtype
    bits = np.dtype(f"u{want['y'].itemsize}")
    same = (got["y"].view(bits) == want["y"].view(bits)) | (np.isnan(got["y"]) & np.isnan(want["y"]))
    assert same.all(), (
        f"y differs in {np.count_nonzero(~same)} elements, first at {np.argwhere(~same)[0].tolist()}"
    )


# --- cases ---


def slow_tokens(rng, batch, tokens, width):
    """Tokens [B, T, D] that change slowly, as an encoder's do."""
    x = rng.standard_normal((batch, tokens, width)).astype(np.float32)
    for i in range(1, tokens):
        x[:, i] = 0.9 * x[:, i - 1] + 0.4 * x[:, i]
    return x


def with_garbage(x, lengths):
    """x with NaN, infinities and large values after each row's length."""
    x = x.copy()
    for row, length in enumerate(lengths):
        padding = x[row, length:].reshape(-1)
        padding[:] = np.resize([np.nan, np.inf, -np.inf, 6e4, -7], padding.shape)
    return x


def random_batch(seed, most_tokens=70, most_width=90):
    """Arguments of merge_rows after x: a ragged batch of random shape, type, targets, keep,
    window and step."""
    rng = np.random.default_rng(seed)
    batch, tokens, width = (int(rng.integers(1, most + 1)) for most in (4, most_tokens, most_width))
    x = (
        slow_tokens(rng, batch, tokens, width)
        if rng.random() < 0.6
        else rng.integers(-2, 3, (batch, tokens, width))
    )
    lengths = rng.integers(0, tokens + 1, batch)
    targets = [int(rng.integers(min(length, 1), length + 1)) for length in lengths]
    keep = max(targets) + int(rng.integers(0, 4))
    window = int(rng.choice([-1, 0, 1, 2, 5, 8, 30, 47, 48, 64, tokens, 2**31 - 1]))
    step = [(2, 5), (2, 5), (1, 2), (1, 4), (1, 100), (7, 3)][rng.integers(6)]
    x = with_garbage(x.astype(np.float32), lengths).astype(rng.choice([np.float16, np.float32]))
    return x, lengths, targets, keep, window, step
