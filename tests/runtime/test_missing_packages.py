"""A package that is not installed: the message names the command that brings it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

from ltbm.runtime.cli import EXTRAS

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from ltbm.runtime.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("words", [["demo"], ["export", "no-such-folder", "out"]])
def test_commands_that_export_name_the_extra(words, tmp_path):
    command = [sys.executable, "-c", WITHOUT, "onnx", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "No module named 'onnx'" in done.stderr and "pip install 'ltbm[export]'" in done.stderr


def test_the_extras_bring_what_they_are_said_to_bring():
    project = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    brought = {"python-multipart": "multipart"}  # imported under another name
    along = {"safetensors", "huggingface_hub"}  # with transformers
    for extra, packages in EXTRAS.items():
        wanted = [entry for entry in extras[extra] if not entry.startswith("ltbm[")]
        names = {re.split(r"[<>=]", entry)[0] for entry in wanted}
        assert {brought.get(name, name.replace("-", "_")) for name in names} == set(packages) - along
