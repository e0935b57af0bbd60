"""Export, plan, demo and inspect where neither torch nor transformers nor optimum can be imported."""

import subprocess
import sys

REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "optimum", "safetensors", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import importlib.util
find = importlib.util.find_spec
def find_spec(name, package=None):
    try:
        return find(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find_spec
from ltbm.runtime.cli import main
"""


def run(*commands: list) -> subprocess.CompletedProcess:
    code = REFUSE + "\n".join(
        f"assert main({list(map(str, command))!r}) in (0, None)" for command in commands
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_export_inspect_and_plan(qwen, tmp_path):
    bundle = tmp_path / "bundle"
    done = run(
        ["export", qwen[0], bundle, "--precision", "int4"],
        ["inspect", bundle],
        ["plan", qwen[0], "--device", "orin-nano-8gb"],
    )
    assert done.returncode == 0, done.stderr
    assert (
        "no parity lines: no torch and no transformers installed; pip install 'ltbm[parity]'" in done.stderr
    )
    assert (bundle / "manifest.json").is_file()


def test_parity_says_what_it_needs(qwen):
    done = run(["parity", *qwen])
    assert (
        done.returncode and "parity needs torch and transformers: pip install 'ltbm[parity]'" in done.stderr
    )


def test_the_demo(tmp_path):
    done = run(["demo", "--clips", "1"])
    assert done.returncode == 0, done.stderr
    assert "captions exact" in done.stdout
