"""Finding and loading the native bodies, without any of the runtimes that they are for."""

import ctypes
import subprocess
import sys

import pytest

from ltbm.plugins import library


class Options:
    """An onnxruntime.SessionOptions, as far as needed."""

    def __init__(self):
        self.registered = []

    def register_custom_ops_library(self, path):
        self.registered.append(path)


class Registry:
    """A tensorrt plugin registry, as far as needed."""

    def __init__(self, handle=1):
        self.handle, self.loaded = handle, []

    def load_library(self, path):
        self.loaded.append(path)
        return self.handle


@pytest.fixture
def package(monkeypatch, tmp_path):
    """An empty installation in two folders, as an editable install makes."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr("ltbm.plugins.__path__", [str(folder) for folder in folders])
    monkeypatch.delenv("LTBM_TENSORRT_PLUGIN", raising=False)
    return folders


def test_importing_it_imports_no_heavy_package():
    heavy = "{'numpy', 'onnx', 'onnxruntime', 'torch', 'tensorrt'}"
    code = f"import sys, ltbm.plugins.library; print({heavy} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )


def test_without_a_library_nothing_is_registered(package):
    options = Options()
    assert (
        library.native_library() is None and library.register(options) is False and options.registered == []
    )


def test_the_library_is_found_in_any_folder_of_the_package(package):
    path = package[1] / "libltbm_ort.so"
    path.touch()
    options = Options()
    assert library.native_library() == path
    assert library.register(options) is True and options.registered == [str(path)]


def test_without_native_products_there_are_no_instructions(package):
    assert library.product_instructions() is None
    assert library.instructions_of(ctypes.CDLL(None)) is None  # a library without them, as earlier ones were


def test_a_missing_tensorrt_plugin_says_how_to_build_it(package):
    assert library.tensorrt_library() is None
    for attempt in (library.trtexec_arguments, lambda: library.load_tensorrt_plugin(Registry())):
        with pytest.raises(
            FileNotFoundError, match="no TensorRT plugin is installed: build it .*TENSORRT_INCLUDE_DIR"
        ):
            attempt()


def test_the_environment_names_a_tensorrt_plugin(package, monkeypatch, tmp_path):
    (package[0] / "libltbm_tensorrt.so").touch()
    built = tmp_path / "built.so"
    monkeypatch.setenv("LTBM_TENSORRT_PLUGIN", str(built))
    with pytest.raises(FileNotFoundError, match="LTBM_TENSORRT_PLUGIN names .*built.so, which is no file"):
        library.tensorrt_library()
    built.touch()
    assert library.tensorrt_library() == built
    assert library.trtexec_arguments() == [f"--dynamicPlugins={built}"]
    monkeypatch.delenv("LTBM_TENSORRT_PLUGIN")
    assert library.trtexec_arguments() == [f"--dynamicPlugins={package[0] / 'libltbm_tensorrt.so'}"]


def test_a_path_that_is_no_file_is_refused(package, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no TensorRT plugin at .*nowhere.so"):
        library.load_tensorrt_plugin(Registry(), tmp_path / "nowhere.so")


def test_a_plugin_that_does_not_load_says_why(package, tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    registry = Registry()
    with pytest.raises(OSError, match="broken.so does not load: .*built for another machine"):
        library.load_tensorrt_plugin(registry, broken)
    assert registry.loaded == []


@pytest.mark.skipif(
    library.native_library() is None, reason="needs some shared library: the native op is not built"
)
def test_tensorrt_is_handed_the_plugin(package, monkeypatch):
    monkeypatch.undo()
    path = library.native_library()
    registry = Registry()
    assert library.load_tensorrt_plugin(registry, path) == path and registry.loaded == [str(path)]
    with pytest.raises(RuntimeError, match="TensorRT took no plugin from .*its log says why"):
        library.load_tensorrt_plugin(Registry(handle=None), path)
