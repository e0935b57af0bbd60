"""What check.py runs in the aarch64 root: op, demo and doctor; prints one JSON object."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # for tests.support, beside the ltbm that is installed

from ltbm.plugins import library  # noqa: E402
from ltbm.plugins.cuda_op import Call, CudaOp  # noqa: E402
from ltbm.plugins.merge import merge_rows  # noqa: E402
from ltbm.plugins.onnx_function import OUTPUTS, op_model  # noqa: E402
from ltbm.runtime.session import Session  # noqa: E402
from tests.support.cuda_harness import random_batch  # noqa: E402

CASES = 200


def main() -> None:
    bundle, *clips = sys.argv[1:]
    work = json.loads(Path(clips.pop(0)).read_text())
    print(
        json.dumps(
            {
                "machine": platform.machine(),
                "python": platform.python_version(),
                "onnxruntime": onnxruntime.__version__,
                "differing": {"native": differing(native=True), "body": differing(native=False)},
                "cases": CASES,
                "captions": captions(bundle, work["prompt"], work["levels"], clips),
                "cuda_op": cuda_op(),
                "doctor": doctor(bundle),
            }
        )
    )


def differing(native: bool) -> list[int]:
    """The random batches of which an output is not the reference's, bit for bit."""
    sessions = {}
    wrong = []
    for seed in range(CASES):
        x, lengths, targets, keep, window, step = random_batch(seed, most_tokens=60, most_width=80)
        key = (x.shape[2], str(x.dtype), step)
        if key not in sessions:
            sessions[key] = open_op(*key, native)
        feeds = {
            "x": x,
            "lengths": np.array(lengths, np.int32),
            "targets": np.array(targets, np.int32),
            "keep": np.array([keep], np.int64),
            "window": np.array([window], np.int32),
        }
        got = sessions[key].run(OUTPUTS, feeds)
        wanted = merge_rows(x, lengths, targets, keep, window, step)
        if any(one.tobytes() != wanted[name].tobytes() for name, one in zip(OUTPUTS, got)):
            wrong.append(seed)
    return wrong


def open_op(width: int, dtype: str, step: tuple[int, int], native: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if native and not library.register(options):
        raise SystemExit("the native op is not installed")
    model = op_model(width, dtype, step).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def captions(bundle: str, prompt: str, levels: list[str], clips: list[str]) -> dict[str, list[str]]:
    """What the model says of each clip, by level."""
    said = {}
    with Session.open(bundle, threads=1) as session:
        for level in levels:
            said[level] = [session.generate(clip, prompt, level, max_new_tokens=48).text for clip in clips]
    return said


def cuda_op() -> str:
    """What the CUDA op says of an empty call; empty where there is no such library."""
    path = library.cuda_library()
    if path is None:
        return ""
    try:
        CudaOp(path).enqueue(Call(), None)
    except ValueError as error:
        return str(error)
    return "nothing"


def doctor(bundle: str) -> list[dict]:
    command = [Path(sys.executable).with_name("ltbm"), "doctor", bundle, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
