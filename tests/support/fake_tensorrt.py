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
}


class IProgressMonitor:
    """Derived from by what follows a build."""

    def __init__(self):
        pass


class FakeTensorRT(types.ModuleType):
    """A `tensorrt` of one version.

    fail: names of methods that are to fail
    built: names of the graphs that were built
    alive: how many engines and contexts there are
    in_place: whether a cache is updated in place, as from 10.15 on
    """

    def __init__(self, driver: Driver, version: str):
        super().__init__("tensorrt")
        self.__version__ = version
        self.driver = driver
        self.in_place = version_tuple(version) >= (10, 15)
        self.fail: set[str] = set()
        self.built: list[str] = []
        self.alive = {"engines": 0, "contexts": 0}
        for name, members in ENUMERATIONS.items():
            setattr(self, name, enum.IntEnum(name, members, start=0))
        self.ILogger = ILogger
        self.IProgressMonitor = IProgressMonitor
        self.OnnxParser = functools.partial(OnnxParser, self)
        self.Builder = functools.partial(Builder, self)
        self.Runtime = functools.partial(Runtime, self)
