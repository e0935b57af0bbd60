"""Builds the CUDA kernels on this machine, compares them with the reference and times them.

    python tests/gpu/check_and_time.py [--json FILE] [--quick]

Needs nvcc, a CUDA GPU and numpy: no TensorRT, no network, nothing installed. With TENSORRT_INCLUDE_DIR set,
every call goes through the TensorRT plugin's enqueue in a stand-in for TensorRT, else through the bare
launcher.
With PyTorch installed, a plain implementation of the same merge is timed as well.
The exit status is 1 if any result differs from the reference.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".typing")]  # nothing needs to be installed

from ltbm.plugins import merge  # noqa: E402
from tests.support import cuda_builds as builds  # noqa: E402
from tests.support import cuda_harness as harness  # noqa: E402
from tests.support import gpu_device as gpu  # noqa: E402
from tests.support.hard_rows import hard_rows  # noqa: E402

DEVICE_CALLS = ROOT / "tests" / "support" / "device.cu"
SMALLEST = 80  # compute capability from which the kernels run
OPS_IN_GRAPH = 20
# Name, dtype, B, T, D, level (num, den), window.
TIMED = (
    ("30 s", "float16", 1, 750, 1280, (1, 4), 8),
    ("30 s x 20", "float16", 20, 750, 1280, (1, 4), 8),
    ("30 s x 32", "float16", 32, 750, 1280, (1, 4), 8),
    ("keep75", "float16", 1, 750, 1280, (3, 4), 8),
    ("keep50", "float16", 1, 750, 1280, (1, 2), 8),
    ("keep12", "float16", 1, 750, 1280, (1, 8), 16),
    ("float32", "float32", 1, 750, 1280, (1, 4), 8),
    ("Global", "float16", 1, 750, 1280, (1, 4), -1),
    ("Global x 20", "float16", 20, 750, 1280, (1, 4), -1),
    ("1500 tokens", "float16", 1, 1500, 1280, (1, 4), 8),
    ("1500, Global", "float16", 1, 1500, 1280, (1, 4), -1),
    ("wide", "float16", 1, 750, 5120, (1, 4), 8),
)


def build(folder):
    """The kernels for this machine's GPU with the device calls;
    the plugin too where TensorRT's headers are."""
    library = folder / "libltbm_gpu.so"
    capability = compute_capability(folder)
    if capability < SMALLEST:
        raise SystemExit(
            f"the kernels need a GPU of compute capability 8.0 or later, this one has {capability / 10}"
        )
    sources = [DEVICE_CALLS] + [builds.PLUGIN] * bool(builds.tensorrt_includes())
    said = builds.build_cuda(library, [capability], sources, builds.tensorrt_includes())
    return library, said


def compute_capability(folder):
    """Of device 0, asked of a first small library: the kernels are compiled for it alone."""
    path = folder / "libdevice.so"
    builds.run([builds.nvcc(), "-std=c++17", "-shared", "-Xcompiler", "-fPIC", DEVICE_CALLS, "-o", path])
    try:
        return gpu.Device(path).describe()[1]
    except RuntimeError as error:
        raise SystemExit(f"no CUDA GPU can be used here: {error}") from None


def open_op(library, folder):
    """(op, how it is called): the plugin in its stand-in for TensorRT, or the bare launcher."""
    if not builds.tensorrt_includes():
        return (lambda step: harness.Kernels(library)), "bare launcher"
    host = harness.Host(builds.build_host(folder / "libhost.so"), library)
    return (
        lambda step: host.create(step).reload().attach()
    ), f"TensorRT plugin, headers in {builds.tensorrt_includes()[0]}"


# --- conformance ---


def cases(quick):
    """(name, arguments of merge_rows) of everything that is compared."""
    rng = np.random.default_rng(0)
    for seed in range(40 if quick else 200):
        yield f"random {seed}", harness.random_batch(seed, 200, 300)
    for name, row in hard_rows().items():
        length = len(row)
        x = harness.with_garbage(
            np.concatenate([np.stack([row] * 3), np.ones((3, 4, row.shape[1]), np.float32)], 1), [length] * 3
        )
        for window in (-1, 0, 1, 8, 100):
            for dtype in (np.float32, np.float16):
                targets = [min(length, 1), (length + 1) // 2, length]
                yield (
                    f"{name}, window {window}",
                    (x.astype(dtype), [length] * 3, targets, length + 1, window, (2, 5)),
                )
    sizes = (
        [(1, 750, 1280), (3, 300, 5120), (4, 1500, 64), (32, 60, 257)]
        if quick
        else [(1, 750, 1280), (20, 750, 1280), (3, 300, 5120), (2, 1500, 1280), (32, 200, 257), (1, 8000, 64)]
    )
    for batch, tokens, width in sizes:
        x = harness.slow_tokens(rng, batch, tokens, width)
        lengths = [tokens] + [int(rng.integers(tokens // 2, tokens + 1)) for _ in range(batch - 1)]
        for window, (num, den) in ((8, (1, 4)), (-1, (1, 8)), (60, (1, 2))):
            if window < 0 and tokens > 1500:
                continue
            targets = [max(1, -(-length * num // den)) for length in lengths]
            for dtype in (np.float16, np.float32):
                yield (
                    f"{batch} x {tokens} x {width}, window {window}",
                    (x.astype(dtype), lengths, targets, max(targets), window, (2, 5)),
                )
    same = np.ones((1, 1400, 256), np.float32)
    same[0, ::7, 0] = 0.5
    yield "one large group", (same, [1400], [3], 3, -1, (1, 1))


def compare_all(device, open_step, stream, quick):
    """How many cases were compared, and what differs: a list of texts."""
    count, wrong, ops = 0, [], {}
    for name, (x, lengths, targets, keep, window, step) in cases(quick):
        op = ops.setdefault(step, open_step(step) if step not in ops else None)
        problem = gpu.Problem(device, op, x, keep, step)
        problem.fill(x, lengths, targets, window)
        problem.enqueue(stream)
        try:
            with np.errstate(all="ignore"):
                want = merge.merge_rows(x, lengths, targets, keep, window, step)
            harness.assert_same(problem.results(stream), want)
        except AssertionError as error:
            wrong.append(f"{name} ({x.dtype}): {str(error).strip()[:300]}")
        problem.free()
        count += 1
    return count, wrong


def check_graph(device, open_step, stream):
    """Capture once, then replay with other tokens, lengths, targets and windows in the same memory,
    50 times each."""
    rng, keep, wrong = np.random.default_rng(1), 190, []
    problem = gpu.Problem(device, open_step((2, 5)), np.zeros((3, 400, 256), np.float16), keep)
    graph = gpu.Graph(device, stream, lambda: problem.enqueue(stream))
    for window, targets in ((8, [190, 40, 1]), (-1, [7, 100, 0]), (0, [150, 3, 60]), (200, [13, 14, 15])):
        x = harness.slow_tokens(rng, 3, 400, 256).astype(np.float16)
        lengths = [400, int(rng.integers(100, 400)), 80 if targets[2] else 0]
        want = merge.merge_rows(x, lengths, targets, keep, window)
        for replay in range(50):
            problem.fill(x, lengths, targets, window)
            graph.replay()
            try:
                harness.assert_same(problem.results(stream), want)
            except AssertionError as error:
                wrong.append(f"graph, window {window}, replay {replay}: {str(error).strip()[:300]}")
                break
    nodes = graph.nodes
    graph.drop()
    problem.free()
    return nodes, wrong


# --- times ---


def time_op(device, open_step, stream, row, bandwidth):
    name, dtype, batch, tokens, width, (num, den), window = row
    rng = np.random.default_rng(2)
    target = -(-tokens * num // den)
    op = open_step((2, 5))
    problems = []
    for _ in range(
        max(2, min(OPS_IN_GRAPH, 2**28 // (batch * tokens * width * 2)))
    ):  # other tokens each time: no warm cache
        x = harness.slow_tokens(rng, batch, tokens, width).astype(dtype)
        problems.append(gpu.Problem(device, op, x, target))
        problems[-1].fill(x, [tokens] * batch, [target] * batch, window)
    many = gpu.Graph(
        device, stream, lambda: [problems[i % len(problems)].enqueue(stream) for i in range(OPS_IN_GRAPH)]
    )
    one = gpu.Graph(device, stream, lambda: problems[0].enqueue(stream))
    per_op, alone = many.times() / OPS_IN_GRAPH, one.times()
    moved = sum(size for key, size in problems[0].sizes.items() if key != "workspace")
    for used in (*problems, many, one):
        used.drop() if isinstance(used, gpu.Graph) else used.free()
    return {
        "name": name,
        "dtype": dtype,
        "batch": batch,
        "tokens": tokens,
        "width": width,
        "kept": target,
        "window": window,
        "microseconds": 1e6 * float(np.median(per_op)),
        "p10": 1e6 * float(np.percentile(per_op, 10)),
        "p90": 1e6 * float(np.percentile(per_op, 90)),
        "alone_microseconds": 1e6 * float(np.median(alone)),
        "floor_microseconds": 1e6 * moved / bandwidth,
        "torch_microseconds": time_torch(row, x, target),
    }


def time_torch(row, x, target):
    """Microseconds of the plain PyTorch merge, None without PyTorch on CUDA."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    from tests.support import torch_merge

    batch, tokens, window = row[2], row[3], row[6]
    tensor = torch.from_numpy(x).cuda()
    times = []
    for _ in range(8):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch_merge.merge_rows(tensor, [tokens] * batch, [target] * batch, target, window)
        stop.record()
        torch.cuda.synchronize()
        times.append(1e3 * start.elapsed_time(stop))
    return float(np.median(times[3:]))


def print_table(rows):
    print(
        "\n| | x | kept | window | us per call | p10-p90 | us per row | alone | floor | PyTorch | times "
        "faster |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        torch_time, per_call = row["torch_microseconds"], row["microseconds"]
        beside = (f"{torch_time:.0f}", f"{torch_time / per_call:.0f}") if torch_time else ("-", "-")
        cells = (
            row["name"],
            f"{row['dtype']} {row['batch']}x{row['tokens']}x{row['width']}",
            row["kept"],
            row["window"],
            f"{per_call:.1f}",
            f"{row['p10']:.1f}-{row['p90']:.1f}",
            f"{per_call / row['batch']:.1f}",
            f"{row['alone_microseconds']:.1f}",
            f"{row['floor_microseconds']:.2f}",
            *beside,
        )
        print("| " + " | ".join(map(str, cells)) + " |")
    print(
        f"\nus per call: median of {gpu.REPEATS} replays of a CUDA graph of {OPS_IN_GRAPH} calls on other "
        "tokens each, "
        "by events; alone: a graph of one call. floor: every input read and output written once, at the "
        "bandwidth "
        "of a device copy. Not timed: uploads, capture, the first calls."
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--quick", action="store_true", help="fewer cases, and two timings")
    options = parser.parse_args(arguments)
    if builds.nvcc() is None:
        raise SystemExit("nvcc is not installed: put the CUDA toolkit's bin folder on PATH, or set NVCC")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        library, said = build(Path(folder))
        device = gpu.Device(library)
        open_step, way = open_op(library, Path(folder))
        stream, (text, _) = device.stream(), device.describe()
        print(f"{text}\ncalled through: {way}\nbuilt in {time.perf_counter() - began:.0f} s", flush=True)
        nodes, wrong = check_graph(device, open_step, stream)
        count, differences = compare_all(device, open_step, stream, options.quick)
        wrong += differences
        print(
            f"{count} cases and 200 replays compared, {len(wrong)} differ; {nodes} nodes in a graph of one "
            "call",
            flush=True,
        )
        for line in wrong[:20]:
            print(line)
        bandwidth = device.bandwidth(stream)
        rows = [
            time_op(device, open_step, stream, row, bandwidth)
            for row in TIMED[: 2 if options.quick else None]
        ]
    print_table(rows)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "device": text,
                    "way": way,
                    "bytes_per_second": bandwidth,
                    "cases": count,
                    "different": wrong,
                    "nodes": nodes,
                    "ptxas": said,
                    "times": rows,
                },
                indent=1,
            )
        )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
