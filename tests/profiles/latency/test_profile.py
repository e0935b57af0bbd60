"""`ltbm profile` from the command to its files, and what happens when it is ended early;
no time is judged."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from ltbm.profiles.latency import jobs, profiler
from ltbm.profiles.latency.job_records import FidelityJob, MachineJob
from ltbm.profiles.latency.jobs import run_job
from ltbm.profiles.latency.options import Options
from ltbm.profiles.latency.profiler import profile
from ltbm.profiles.latency.records import FailedRow, Fidelity, MachineFacts, Profile, Row
from ltbm.profiles.latency.rows import OTHER, STAGES
from ltbm.runtime.cli import main

pytestmark = pytest.mark.slow

pytest.importorskip("onnxruntime", reason="runs the engines: pip install 'ltbm[cpu]'")
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from ltbm.runtime.cli import main; sys.exit(main(sys.argv[1:]))",
    "profile",
]
"""In a process of its own: what the system accounts for as a child's peak memory starts with that of its
parent."""


@pytest.fixture(scope="module")
def clips(make_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, seconds in (("a.wav", 2), ("b.wav", 5)):
        soundfile.write(folder / name, make_clip(seconds), 16_000)
    return [str(folder / "a.wav"), str(folder / "b.wav")]


@pytest.fixture(scope="module")
def made(qwen, clips, tmp_path_factory):
    """(what the command printed, folder of its report) of two levels, two turns of two repeats."""
    out = tmp_path_factory.mktemp("report") / "out"
    command = [
        *COMMAND,
        str(qwen[1]),
        "--audio",
        *clips,
        "--levels",
        "full,keep25",
        "--methods",
        "ltbm,pool",
        "--turns",
        "2",
        "--repeats",
        "2",
        "--max-new-tokens",
        "4",
        "--threads",
        "1",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done, out


@pytest.fixture(scope="module")
def found(made):
    return json.loads((made[1] / "profile.json").read_text())


def test_every_level_has_a_row_and_the_report_is_whole(made, found):
    done, out = made
    assert [(row["level"], row["method"]) for row in found["rows"]] == [("full", "ltbm"), ("keep25", "ltbm")]
    assert sorted(path.name for path in out.iterdir()) == [
        "profile.json",
        "report.html",
        "table.csv",
        "table.md",
    ]
    assert (
        found["complete"]
        and "| keep25 | ltbm | 175 → 45 |" in done.stdout
        and done.stdout == (out / "table.md").read_text()
    )
    assert "keep25 ltbm: 2 of 4, about" in done.stderr
    assert found["options"]["command"][1:3] == ["profile", found["bundle"]["path"]]
    assert all(
        found["machine"][name] for name in ("cpu", "cores", "memory_bytes", "bandwidth", "matrix_rate")
    )


def test_tokens_are_those_of_the_levels(found):
    full, keep25 = found["rows"]
    assert full["tokens_in"] == full["tokens_out"] == keep25["tokens_in"] == 50 + 125
    assert keep25["tokens_out"] == 13 + 32
    assert not full["applied"] and keep25["applied"]
    assert keep25["kv_bytes"] < full["kv_bytes"]


def test_stages_and_the_named_rest_make_the_whole(found):
    for row in found["rows"]:
        figures = row["figures"]
        assert sum(figures[name]["mean"] for name in (*STAGES, OTHER)) == pytest.approx(
            figures["total"]["mean"], rel=1e-9
        )
        assert all(
            figures[name]["p50"] > 0 for name in ("load", "features", "encoder", "merge", "prefill", "decode")
        )
        assert all(
            figures["ttft"][low] <= figures["ttft"][high]
            for low, high in (("p50", "p90"), ("p90", "p95"), ("p95", "p99"))
        )
        assert [len(run["rounds"]) for run in row["runs"]] == [2, 2] and {
            len(requests) for run in row["runs"] for requests in run["rounds"]
        } == {2}


def test_peak_memory_is_what_the_system_accounts_for_and_its_parts_make_the_whole(found):
    for row in found["rows"]:
        memory = row["memory"]
        assert memory["peak"] == pytest.approx(memory["peak_outside"], rel=0.05)
        parts = [memory[name] for name in ("libraries", "weights", "kv_cache", "rest")]
        assert sum(parts) == memory["peak"] and min(parts) > 0


def test_the_floor_follows_the_tokens(found):
    full, keep25 = (row["floors"]["decode"] for row in found["rows"])
    assert 0 < keep25["bytes"] < full["bytes"]
    assert full["ms"] == pytest.approx(full["bytes"] / found["machine"]["bandwidth"] * 1e3)


def test_every_method_has_its_fidelity(found):
    rows = {(row["level"], row["method"]): row for row in found["fidelity"]["rows"]}
    assert list(rows) == [("full", "ltbm"), ("keep25", "ltbm"), ("keep25", "pool")]
    assert (
        rows["full", "ltbm"]["error"] == 0 < rows["keep25", "ltbm"]["error"] < rows["keep25", "pool"]["error"]
    )
    assert len(found["fidelity"]["map"]["source_maps"]["keep25"]) == 50


def test_the_file_holds_every_field_of_its_record(found):
    data = {name: value for name, value in found.items() if name != "remarks"}
    assert Profile.from_json(data).to_json() == data


def test_the_page_needs_nothing_beside_itself(made):
    page = (made[1] / "report.html").read_text()
    assert "http" not in page and "@import" not in page and "<script" not in page
    assert [piece[:22] for piece in page.split('src="')[1:]] == ["data:image/png;base64,"]


# --- ended early ---


@pytest.mark.parametrize("how, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_end_leaves_the_rows_so_far_and_no_process(qwen, clips, tmp_path, how, code):
    command = [
        *COMMAND,
        str(qwen[1]),
        "--audio",
        clips[0],
        "--levels",
        "full,keep25",
        "--methods",
        "ltbm",
        "--turns",
        "1000",
        "--repeats",
        "1",
        "--warmup",
        "0",
        "--max-new-tokens",
        "2",
        "--threads",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "out" / "profile.json").exists() and children(process.pid))
    workers = children(process.pid)
    process.send_signal(how)
    assert process.wait(timeout=30) == code
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in workers))
    left = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert left["rows"] and not left["complete"]


def test_a_worker_ends_with_the_one_who_started_it(qwen, clips):
    """However that ended: the worker's stdin is closed."""
    job = {
        "job": "level",
        "bundle": str(qwen[1]),
        "clips": clips,
        "level": "full",
        "window": "auto",
        "positions": "original",
        "attention": "plain",
        "backend": "onnxruntime",
        "device": "cpu",
        "threads": 1,
        "kv_cache": None,
        "low_memory": False,
        "long_audio": "error",
        "prompt": "what?",
        "max_new_tokens": 2,
        "repeats": 10**9,
        "warmup": 0,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "ltbm.profiles.latency.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.close()
        try:
            assert worker.wait(timeout=30) == 1
        finally:
            worker.kill()


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        pytest.skip("this kernel does not list a process's children")


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_worker_that_fails_says_why(qwen):
    job = FidelityJob(
        bundle="/nowhere",
        clips=(),
        backend="onnxruntime",
        device="cpu",
        threads=1,
        low_memory=False,
        kv_cache=None,
        long_audio="error",
        levels=("keep25",),
        methods=("ltbm",),
        window="auto",
    )
    with pytest.raises(RuntimeError, match="FileNotFoundError: no bundle at /nowhere"):
        run_job(job, Fidelity)


def test_a_worker_that_is_killed_says_so(monkeypatch, tmp_path):
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\nread job\nkill -9 $$\n")
    stub.chmod(0o755)
    monkeypatch.setattr(jobs.sys, "executable", str(stub))
    with pytest.raises(RuntimeError, match="was killed by signal 9 .out of memory"):
        run_job(MachineJob(threads=1), MachineFacts)


def test_a_level_that_fails_leaves_the_others(monkeypatch, qwen, clips, found):
    def fake(job, result):
        if isinstance(job, MachineJob):
            return result.from_json(found["machine"]), 0
        if isinstance(job, FidelityJob):
            return result.from_json(found["fidelity"]), 0
        if job.level == "full":
            raise RuntimeError("the process was killed by signal 9")
        return result.from_json(found["rows"][1]["runs"][0]), 1

    monkeypatch.setattr(profiler, "run_job", fake)
    seen, options = [], Options(tuple(clips), ("full", "keep25"), ("ltbm",), turns=1, max_new_tokens=4)
    done = profile(qwen[1], options, finished=lambda so_far: seen.append(len(so_far.rows)))
    assert [type(row) for row in done.rows] == [FailedRow, Row]
    assert done.rows[0].error == "the process was killed by signal 9"
    assert seen == [1, 2, 2] and done.complete


def test_only_what_the_engines_run_is_timed_and_full_once():
    assert Options(("a.wav",), ("full", "keep25"), ("ltbm", "global", "pool", "stride")).timed_rows() == [
        ("full", "ltbm"),
        ("keep25", "ltbm"),
        ("keep25", "global"),
    ]


# --- wrong usage ---


@pytest.mark.parametrize(
    "flags, words",
    [
        (["./b", "--audio", "x.wav", "--levels", "keep99"], "unknown levels keep99; known are full"),
        (["./b", "--audio", "x.wav", "--methods", "magic"], "unknown methods magic"),
        (["./b", "--audio", "x.wav", "--repeats", "0"], "--repeats: 0 is not a whole number from 1"),
        (["./b"], "no clips were given"),
        (["--audio", "x.wav"], "name a bundle"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, flags, words):
    assert main(["profile", *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_clip_that_is_missing_is_refused_before_anything_is_measured(capsys, qwen):
    assert main(["profile", str(qwen[1]), "--audio", "nothing.wav"]) == 1
    assert "nothing.wav" in (err := capsys.readouterr().err) and "machine:" not in err


def test_the_op_alone(capsys):

    assert (
        main(["profile", "--op", "--tokens", "40", "--dim", "8", "--rounds", "1", "--bodies", "numpy"]) == 0
    )
    captured = capsys.readouterr()
    assert "| 40 | 8 | 30 |" in captured.out and "profile --op is now ltbm bench op" in captured.err
