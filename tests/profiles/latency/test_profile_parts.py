"""The parts of a profile: statistics, memory, fidelity and floors against plain counts."""

import mmap
import subprocess
import sys

import numpy as np
import pytest

from ltbm.plugins.baselines import plan
from ltbm.plugins.merge import apply_plan
from ltbm.profiles.budgets.model import model_of_bundle
from ltbm.profiles.latency.fidelity import group_spans, plan_row, shrink, squared_error
from ltbm.profiles.latency.floors import floors
from ltbm.profiles.latency.rows import round_figures
from ltbm.profiles.latency.runs import ClipAnswer, RequestTimes
from ltbm.profiles.measure import (
    machine_facts,
    matrix_rate,
    memory_bandwidth,
    process_memory,
    resident_of,
    summarise,
)
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.levels import parse_level
from ltbm.runtime.machine import CommandResult, Machine
from ltbm.runtime.stages.encoder import segment_tokens


def test_a_summary_is_percentiles_and_the_interquartile_range():
    found = summarise(range(101))
    assert (found["p50"], found["p90"], found["p95"], found["p99"], found["mean"], found["spread"]) == (
        50,
        90,
        95,
        99,
        50,
        50,
    )
    with pytest.raises(ValueError, match="no values"):
        summarise([])


def test_a_round_is_the_mean_over_its_clips_and_what_the_stages_leave_is_named():
    timings = dict.fromkeys(
        ("load", "features", "prompt", "encoder", "merge", "splice", "prefill", "decode"), 1.0
    )
    long, short = (
        RequestTimes(timings | {"ttft": 7.0, "total": total}, steps)
        for total, steps in ((10.0, (2.0, 4.0)), (20.0, ()))
    )
    figures = round_figures([[long, short], [long, short]], [1.0, 2.0])
    assert (
        figures["total"].p50,
        figures["other"].p50,
        figures["tpot"].p50,
        figures["rtf"].p50,
    ) == (15.0, 7.0, 3.0, 0.01)


def test_memory_that_is_touched_shows():
    fresh = mmap.mmap(-1, 128 * 2**20)  # not what an earlier test gave back
    held = np.frombuffer(fresh, np.uint8)
    before = process_memory()
    held.fill(1)
    after = process_memory()
    grown = after["resident"] - before["resident"]
    assert grown == pytest.approx(held.nbytes, rel=0.25)  # threads of earlier tests may free some
    assert after["peak"] >= after["resident"]


def test_mapped_files_count_by_their_folder(tmp_path):
    """In a process of its own, so that nothing else is mapped."""
    folder = tmp_path / "a bundle"
    folder.mkdir()
    (folder / "weights").write_bytes(bytes(8 * 2**20))
    code = (
        "import numpy as np; from ltbm.profiles.measure import resident_of; x = "
        f"np.memmap(r'{folder}/weights', mode='r');"
        f"a = resident_of(r'{folder}'); x[:4 << 20].max(); print(a, resident_of(r'{folder}'), "
        "resident_of('/nowhere'))"
    )
    unread, half, elsewhere = map(
        int,
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split(),
    )
    assert unread < 2**20 and 4 * 2**20 <= half <= 8 * 2**20 and elsewhere == 0
    assert resident_of(folder) == 0


def test_rates_are_measured():
    assert memory_bandwidth(2, 2**20) > 0 and matrix_rate(64) > 0


def test_facts_of_a_machine_come_from_its_files(tmp_path):
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name\t: A CPU\ncpu MHz : 2300.5\n",
        "sys/devices/system/cpu/cpu0/cache/index0/size": "48K",
        "sys/devices/system/cpu/cpu0/cache/index3/size": "2M",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    def no_library(name):
        raise OSError(name)

    facts = machine_facts(Machine(tmp_path, run=lambda command: CommandResult(None), load=no_library))
    assert (facts["cpu"], facts["clock_mhz"], facts["last_level_cache_bytes"], facts["governor"]) == (
        "A CPU",
        2300.5,
        2 * 2**20,
        "powersave",
    )
    assert facts["gpu"] is None and facts["gpu_clocks"] is None and facts["board"] is None


def test_a_driver_that_does_not_answer_stops_no_measurement(tmp_path):
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version: 580")

    def no_library(name):
        raise OSError(name)

    facts = machine_facts(
        Machine(tmp_path, run=lambda command: CommandResult(9, "no devices"), load=no_library)
    )
    assert facts["gpu"] is None and facts["gpu_clocks"] is None


# --- fidelity ---


@pytest.fixture
def tokens():
    return np.random.default_rng(3).standard_normal((40, 6)).astype(np.float32)


@pytest.mark.parametrize("method", ["ltbm", "pool"])
def test_the_error_is_the_distance_to_the_groups_mean(tokens, method):
    chosen = plan(method, tokens, 10, 8)
    y = apply_plan(chosen, tokens)
    plain = sum(np.square(tokens[i] - y[chosen.source_map[i]]).sum() for i in range(40))
    assert squared_error(tokens, chosen) == pytest.approx(plain, rel=1e-5)


def test_a_dropped_token_is_compared_with_the_nearest_kept_one(tokens):
    chosen = plan("stride", tokens, 10)
    plain = sum(
        np.square(tokens[i] - tokens[min(chosen.anchors, key=lambda anchor: (abs(anchor - i), anchor))]).sum()
        for i in range(40)
    )
    assert squared_error(tokens, chosen) == pytest.approx(plain, rel=1e-5)


def test_keeping_everything_loses_nothing(tokens):
    assert squared_error(tokens, plan("ltbm", tokens, 40, 8)) == 0


def test_spans_reach_from_the_first_to_the_last_member(tokens):
    chosen = plan("ltbm", tokens, 10, 8)
    groups = [[i for i in range(40) if chosen.source_map[i] == group] for group in range(10)]
    assert group_spans(chosen).tolist() == [group[-1] - group[0] for group in groups if len(group) > 1]


def test_the_plan_of_a_level_is_what_the_session_merges(session, make_clip):
    level, pipeline = parse_level("keep25"), session.pipeline
    (audio,) = pipeline.segments(make_clip(3))
    encoded = pipeline.encode(audio)
    (x,) = segment_tokens(encoded)
    assert pipeline.merge(encoded, level).sizes.tolist() == plan_row(x, level, "ltbm").sizes.tolist()


def test_pictures_shrink_to_the_mean_of_their_blocks():
    picture = np.arange(24.0).reshape(4, 6)
    assert shrink(picture, 2, 3).tolist() == [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]
    assert shrink(picture, 9, 9).tolist() == picture.tolist()


# --- floors ---


def test_a_floor_is_the_longer_of_bytes_and_operations(qwen):
    model = model_of_bundle(Bundle.open(qwen[1]))
    clip = ClipAnswer(
        text="",
        tokens_in=80,
        tokens_out=20,
        window=-1,
        applied=True,
        reason="",
        finish_reason="length",
        kv_bytes=0,
        kv_allocated_bytes=0,
        prompt_tokens=30,
        answer_tokens=8,
    )
    found = floors(model, 1e9, 1e12, [clip, clip], [1.0, 1.0])
    assert found["decode"].bytes == model.weights.decoder + (30 + 4) * model.kv_bytes(1)
    assert found["decode"].bound == "memory" and found["decode"].ms == found["decode"].bytes / 1e9 * 1e3
    slow = floors(model, 1e15, 1e9, [clip], [1.0])
    assert slow["prefill"].bound == "matrix" and slow["prefill"].ms == slow["prefill"].operations / 1e9 * 1e3
