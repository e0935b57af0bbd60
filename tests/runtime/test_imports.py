"""What importing the light packages pulls in, seen from a fresh process."""

import subprocess
import sys

import pytest

SERVER = ("starlette", "uvicorn", "python_multipart", "prometheus_client", "asyncio")
HEAVY = ("torch", "transformers", "onnx", "optimum", "scipy", "safetensors", "matplotlib", *SERVER)


def loaded_after(code: str) -> list[str]:
    probe = f"{code}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return eval(out.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "module", ["session", "bundle", "stages.audio", "levels", "sampling", "prompt", "backends.ort", "cli"]
)
def test_the_runtime_imports_nothing_heavy(module):
    assert loaded_after(f"import ltbm.runtime.{module}") == []


def test_help_imports_nothing_heavy():
    assert loaded_after("from ltbm.runtime.cli import build_parser; build_parser().format_help()") == []


def test_answering_imports_nothing_heavy(qwen):
    code = (
        "import numpy\nfrom ltbm.runtime.session import Session\n"
        f"Session.open({str(qwen[1])!r}).generate(numpy.ones(16000, numpy.float32), 'hm ?', max_new_tokens=2)"
    )
    assert loaded_after(code) == []
