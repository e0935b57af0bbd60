"""The part of tensorrt that ltbm uses; its engines are graphs on ONNX Runtime over the fake device.

Everything TensorRT would refuse, as far as its headers say, is an AssertionError here; what it reports by its
return value can be made to fail by name.
"""

import enum
import functools
import types

from ltbm.runtime.versions import version_tuple
from tests.support.fake_cuda import Driver
from tests.support.fake_tensorrt_build import Builder, OnnxParser
from tests.support.fake_tensorrt_engine import Runtime
from tests.support.fake_tensorrt_graph import ILogger

ENUMERATIONS = {
    "TensorIOMode": "INPUT OUTPUT",
    "TensorLocation": "DEVICE HOST",
    "MemoryPoolType": "WORKSPACE",
    "ExecutionContextAllocationStrategy": "STATIC USER_MANAGED",
    "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH STRONGLY_TYPED",
    "DataType": "FLOAT HALF BF16 INT32 INT64 INT8 UINT8 BOOL",
    "LayerType": "ATTENTION_OUTPUT",
}


class IProgressMonitor:
    """Derived from by what follows a build."""

    def __init__(self):
        pass


class FakeTensorRT(types.ModuleType):
    """A `tensorrt` of one version, or, with `capabilities` that it knows, a `tensorrt_rtx`.

    fail: names of methods that are to fail
    built: names of the graphs that were built
    compiled: of every engine that TensorRT-RTX loaded, whether its kernels had to be compiled
    alive: how many engines and contexts there are
    in_place: whether a cache is updated in place, as from 10.15 on
    """

    def __init__(self, driver: Driver, version: str, capabilities: str = ""):
        super().__init__("tensorrt_rtx" if capabilities else "tensorrt")
        self.__version__ = version
        self.driver = driver
        self.is_rtx = bool(capabilities)
        self.in_place = self.is_rtx or version_tuple(version) >= (10, 15)
        if self.is_rtx:
            self.CudaGraphStrategy = enum.IntEnum(
                "CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE", start=0
            )
        self.ComputeCapability = enum.IntEnum("ComputeCapability", capabilities, start=0)
        self.fail: set[str] = set()
        self.built: list[str] = []
        self.compiled: list[bool] = []  # of every engine loaded: whether its kernels had to be
        self.alive = {"engines": 0, "contexts": 0}
        for name, members in ENUMERATIONS.items():
            setattr(self, name, enum.IntEnum(name, members, start=0))
        self.ILogger = ILogger
        self.IProgressMonitor = IProgressMonitor
        self.OnnxParser = functools.partial(OnnxParser, self)
        self.Builder = functools.partial(Builder, self)
        self.Runtime = functools.partial(Runtime, self)
