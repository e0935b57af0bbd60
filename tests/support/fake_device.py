"""A fake GPU and a fake TensorRT in place of the real ones: `ltbm build` and sessions run on them."""

import _ctypes
import sys
import types

from ltbm.runtime.backends.trt_library import load_library
from tests.support import fake_cuda
from tests.support.fake_tensorrt import FakeTensorRT

MODULES_OVER_FAKES = (
    "ltbm.runtime.backends.cuda",
    "ltbm.runtime.backends.trt",
    "ltbm.runtime.backends.host_engine",
    "ltbm.runtime.backends.cuda_merge",
    "ltbm.export.engine",
)


class Device:
    """The fake device: its driver, its tensorrt, and how to change the version."""

    def __init__(self, monkeypatch):
        self.cuda = fake_cuda
        self._monkeypatch = monkeypatch
        self.driver = self.cuda.Driver()
        for name in ("cuda", "cuda.bindings"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        runtime = self.cuda.runtime_module(self.driver)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
        sys.modules["cuda.bindings"].runtime = runtime
        self.gpu("Fake Orin")
        monkeypatch.setenv("LTBM_TENSORRT_PLUGIN", _ctypes.__file__)  # any library that loads
        self.tensorrt("10.16.1")

    def tensorrt(self, version: str) -> None:
        self._install(FakeTensorRT(self.driver, version))

    def tensorrt_rtx(self, version: str = "1.7.1", capabilities: str = "SM86 SM87 SM120") -> None:
        self._install(FakeTensorRT(self.driver, version, capabilities))

    def _install(self, fake: FakeTensorRT) -> None:
        self.trt = fake
        self._monkeypatch.setitem(sys.modules, fake.__name__, fake)
        load_library.cache_clear()
        for name in MODULES_OVER_FAKES:
            self._monkeypatch.delitem(sys.modules, name, raising=False)

    def without(self, module: str) -> None:
        """There is no such Python module here."""
        self._monkeypatch.setitem(sys.modules, module, None)
        load_library.cache_clear()

    def gpu(self, name: str | None, integrated: bool = True, capability: tuple[int, int] = (8, 7)) -> None:
        """This GPU is here; None for none."""
        from ltbm.runtime import machine

        gpu = machine.Gpu(name, capability, 2**33, integrated, (12, 6)) if name else None
        self._monkeypatch.setattr(machine, "find_gpu", lambda _: gpu)
        self._monkeypatch.delitem(sys.modules, "ltbm.export.engine", raising=False)

    def build(self, path, **options):
        """`ltbm build`; the folder of engines and what was said."""
        from ltbm.export.engine import build_engines
        from ltbm.runtime.bundle import Bundle

        said = []
        return build_engines(Bundle.open(path), progress=said.append, **options), said
