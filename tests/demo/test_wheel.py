"""What a wheel leaves out of the demo: what made it, and nothing that its commands need."""

import subprocess
import sys
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11 and newer")

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["scikit-build"][
    "wheel"
]
LEFT_OUT = SETTINGS["exclude"]  # paths in the wheel
PACKAGES = SETTINGS["packages"]  # folder in the wheel -> folder in the checkout

RUN_AS_INSTALLED = """
import sys

class NotInTheWheel:
    def find_spec(self, name, path=None, target=None):
        if name in {modules!r}:
            raise ModuleNotFoundError(f"{{name}} is not in the wheel")

sys.meta_path.insert(0, NotInTheWheel())
from ltbm.runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""


def left_out_modules() -> list[str]:
    return [path.removesuffix(".py").replace("/", ".") for path in LEFT_OUT if path.endswith(".py")]


def run_as_installed(*arguments: str) -> subprocess.CompletedProcess:
    code = RUN_AS_INSTALLED.format(modules=left_out_modules())
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_the_trainer_and_the_results_are_left_out():
    assert {"ltbm.demo.train", "ltbm.demo.data", "ltbm.demo.evaluate"} < set(left_out_modules())
    assert "ltbm/demo/quality" in LEFT_OUT


@pytest.mark.parametrize("path", LEFT_OUT)
def test_what_is_left_out_is_in_the_checkout(path):
    package, _, inside = path.removeprefix("ltbm/").partition("/")
    assert (ROOT / PACKAGES[f"ltbm/{package}"] / inside).exists(), f"wheel.exclude names {path} in vain"


@pytest.mark.parametrize("folder", PACKAGES.values())
def test_every_package_ships_its_types(folder):
    assert (ROOT / folder / "py.typed").is_file()


@pytest.mark.slow
def test_the_demo_runs_from_a_wheel():
    done = run_as_installed("demo", "--clips", "1")
    assert done.returncode == 0, done.stderr
    assert "captions exact" in done.stdout


@pytest.mark.slow
def test_its_benchmark_runs_from_a_wheel(tmp_path):
    flags = ["--scenes", "2", "--levels", "full,keep25", "--methods", "ltbm", "--out", str(tmp_path)]
    done = run_as_installed("eval", "demo", *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results.json").is_file()


@pytest.mark.parametrize("module", left_out_modules())
def test_a_module_that_is_left_out_cannot_be_imported(module):
    """Or the two tests above would prove nothing."""
    code = RUN_AS_INSTALLED.format(modules=left_out_modules()).replace("ltbm.runtime.cli", module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"{module} is not in the wheel" in done.stderr
