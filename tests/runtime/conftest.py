"""A Jetson Orin of our own making, whose parts a test may take away."""

import pytest

from ltbm.runtime.machine import Machine
from tests.support.fake_machine import (
    LIBRARIES,
    ORIN_COMMANDS,
    ORIN_FILES,
    VERSIONS,
    compile_library,
    fake_machine,
)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return compile_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def orin(tmp_path, library, monkeypatch):
    """Makes an Orin with everything in place, or with changes by name (None takes a thing away).

    Further keywords are numbers that the library answers with.
    """
    for variable, name in (
        ("LTBM_TENSORRT_PLUGIN", "libltbm_tensorrt.so"),
        ("LTBM_CUDA_OP", "libltbm_cuda.so"),
    ):
        (tmp_path / name).touch()
        monkeypatch.setenv(variable, str(tmp_path / name))

    def make(files=(), commands=(), versions=(), libraries=LIBRARIES, **numbers) -> Machine:
        for name, number in numbers.items():
            monkeypatch.setenv(f"FAKE_{name.upper()}", str(number))
        return fake_machine(
            tmp_path / "root",
            library,
            {**ORIN_FILES, **dict(files)},
            {**ORIN_COMMANDS, **dict(commands)},
            {**VERSIONS, **dict(versions)},
            libraries,
        )

    return make
