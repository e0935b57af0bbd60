"""`ltbm bench listen`: time to first token after the end of speech, in processes and by hand."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from ltbm.profiles.latency.listening import bench, play
from ltbm.profiles.latency.listening.bench import ListenResult
from ltbm.profiles.latency.listening.options import APPROACHES, Options
from ltbm.profiles.latency.listening.rows import make_row
from ltbm.profiles.latency.listening.runs import EndAnswer, ListenRun
from ltbm.profiles.latency.listening.table import markdown
from ltbm.runtime.cli import main
from ltbm.runtime.session import Session
from tests.support.listening import RATE

SEGMENT_SECONDS = 2


@pytest.fixture(scope="module")
def bundle(make_bundle):
    return make_bundle("audioflamingo3", positions=50 * SEGMENT_SECONDS)[1]


@pytest.fixture(scope="module")
def clips(make_clip, tmp_path_factory):
    """1.5 and 2.1 s of sound."""
    folder = tmp_path_factory.mktemp("clips")
    for seconds in (1.5, 2.1):
        soundfile.write(folder / f"{seconds}.wav", make_clip(seconds, seed=int(seconds)), RATE)
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def measured(bundle, clips, tmp_path_factory):
    """(what the command prints, what its JSON holds) of three ends each way."""
    file = tmp_path_factory.mktemp("measured") / "listen.json"
    flags = ["--ends", "3", "--seconds", "7", "--seed", "4", "--max-new-tokens", "4", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *parts, **_: printed.append(" ".join(map(str, parts))))
        assert main(["bench", "listen", str(bundle), "--audio", *clips, *flags, "--json", str(file)]) == 0
    return "\n".join(printed), json.loads(file.read_text())


def test_every_approach_is_asked_at_every_end_and_the_tokens_are_equal(measured):
    printed, data = measured
    assert data["complete"] and [row["approach"] for row in data["rows"]] == list(APPROACHES)
    ends = [[answer["end"] for answer in run["answers"]] for run in data["runs"]]
    assert len(ends) == 5 and all(one == ends[0] and len(one) == 3 for one in ends)
    equal = {row["approach"]: row["equal_tokens"] for row in data["rows"]}
    assert equal == {"listen": 1, "ahead": 1, "listen-full": 1, "whole": None, "whole-full": None}
    assert all(row["refused"] in (0, None) and row["peak_bytes"] > 2**20 for row in data["rows"])
    assert "| the whole clip | keep25 |" in printed and "Gain of listening" in printed


def test_the_result_is_read_back(measured):
    _, data = measured
    result = ListenResult.from_json(data)
    assert result.to_json() == data
    assert markdown(result) in measured[0]


def test_what_listens_waits_for_the_open_segment_alone(measured):
    """Whole segments are found in the KV cache; what was read ahead is found too, but for the question.

    Where the sound is shorter than the question, a smaller KV cache takes the place of the one that was read.
    """
    _, data = measured
    runs = {run["approach"]: run["answers"] for run in data["runs"]}
    for listened, ahead, whole in zip(runs["listen-full"], runs["ahead"], runs["whole"]):
        segments = int(listened["end"] // SEGMENT_SECONDS)
        assert listened["open_seconds"] == pytest.approx(listened["end"] - SEGMENT_SECONDS * segments)
        assert segments < 2 or listened["reused_tokens"] >= 50 * segments  # of 2 s
        assert segments < 2 or ahead["reused_tokens"] >= ahead["tokens_out"]
        assert whole["reused_tokens"] == 0
        assert listened["tokens_in"] == ahead["tokens_in"] == whole["tokens_in"]
    assert sum(answer["end"] > 2 * SEGMENT_SECONDS for answer in runs["whole"]) >= 2


def test_the_clips_follow_one_another_and_no_segment_comes_twice():
    first, second = np.float32([1, 2, 3]), np.float32([4, 5])
    sound = play.joined([first, second], 1, 12)
    assert sound[:5].tolist() == [2, 3, 4, 5, 1]
    assert np.allclose(sound[5:10], 0.999 * sound[:5]) and len(sound) == 12
    assert not np.isin(sound[5:10], sound[:5]).any()


def test_the_ends_come_from_the_seed_and_every_pass_goes_through_all_of_the_sound():
    options = Options(("a",), ends=25, seconds=100)
    passes = options.passes()
    assert [len(ends) for ends in passes] == [9, 8, 8]
    assert all(list(ends) == sorted(ends) and ends[0] < 20 and ends[-1] > 80 for ends in passes)
    assert passes == Options(("b",), ends=25, seconds=100).passes() != replace(options, seed=1).passes()


class FakeListener:
    """Reads for so long after a push as `reads` says."""

    def __init__(self, reads):
        self.reads = iter(reads)
        self.idle_at = 0.0
        self.pushed = []

    def push(self, piece):
        self.pushed.append(len(piece))
        self.idle_at = time.perf_counter() + next(self.reads, 0)

    def wait_until_read(self, timeout):
        time.sleep(max(0, min(timeout, self.idle_at - time.perf_counter())))


@pytest.mark.parametrize("real_time,least", [(False, 0.1), (True, 0.6)])
def test_busy_time_is_not_skipped(real_time, least):
    """0.6 s of sound; the first piece takes long to read: the second comes meanwhile, after its 0.1 s."""
    listener = FakeListener([0.15])
    begun = time.perf_counter()
    play.Player(listener, RATE, real_time).play(np.zeros(round(0.6 * RATE), np.float32))
    assert time.perf_counter() - begun >= least
    assert listener.pushed == [1600] * 6


def test_idle_time_is_skipped():
    begun = time.perf_counter()
    play.Player(FakeListener([]), RATE, real_time=False).play(np.zeros(60 * RATE, np.float32))
    assert time.perf_counter() - begun < 30


def test_sound_that_is_refused_is_counted(bundle, clips, monkeypatch):
    """A device that cannot keep up: the backlog is full at once."""
    options = Options(tuple(clips), ends=1, seconds=6, max_new_tokens=1)
    job = bench._job(bench.Bundle.open(bundle), options, "listen", (6.0,), 0.0)
    listen = Session.listen

    def slow(session, level, **others):
        read = session.read

        def read_slowly(*args):
            time.sleep(0.3)
            return read(*args)

        monkeypatch.setattr(session, "read", read_slowly)
        return listen(session, level, **others, max_backlog_seconds=2.1)

    monkeypatch.setattr(Session, "listen", slow)
    monkeypatch.setattr(play, "PIECE_SECONDS", 0.01)
    run = play.measure(job)
    assert run.refused > 0 and run.reading_ms > 300


def made_run(approach, *answers):
    made = [
        EndAnswer(end, end % 30, ttft, 7.0 if approach == "ahead" else 0.0, 100, 25, 0, (token,), {})
        for end, ttft, token in answers
    ]
    return ListenRun(approach, tuple(made), 60, 600 if approach != "whole" else 0, 1, 0.5, 1000)


def test_a_row_by_hand():
    runs = [
        made_run("listen", (4, 10, 1), (34, 20, 2)),
        made_run("whole", (4, 40, 1), (34, 80, 3)),
        made_run("listen", (59, 60, 4)),
        made_run("whole", (59, 90, 4)),
    ]
    row = make_row("listen", runs, 30)
    assert (row.ttft.ends, row.ttft.p50) == (3, 20) and row.ttft.p95 == pytest.approx(56)
    assert [times.p50 for times in row.curve] == [15, None, None, None, None, 60]
    assert [(times.ends, times.p50) for times in row.by_segments] == [(1, 10), (2, 40)]
    assert (row.busy_share, row.refused, row.peak_bytes) == (0.01, 2, 1000)
    assert row.equal_tokens == pytest.approx(2 / 3)
    whole = make_row("whole", runs, 30)
    assert (whole.busy_share, whole.refused, whole.equal_tokens) == (None, None, None)
    assert make_row("ahead", [made_run("ahead", (4, 1, 1))], 30).equal_tokens is None


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--ends", "0"], "--ends: 0 is not a whole number from 1"),
        (["--seconds", "0.2"], "seconds 0.2 is not above 0.5"),
        (["--seconds", "nan"], "is not a number above 0"),
        (["--audio-tokens", "90"], "a budget of audio tokens needs the sound's length"),
        (["--level", "keep99"], "unknown level 'keep99'"),
        (["--low-memory"], "leave out --low-memory"),
    ],
)
def test_what_makes_no_sense_is_refused(bundle, clips, flags, words, capsys):
    assert main(["bench", "listen", str(bundle), "--audio", *clips, *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_clip_that_is_missing_is_refused_before_anything_is_measured(bundle, capsys):
    assert main(["bench", "listen", str(bundle), "--audio", "nothing.wav"]) == 1
    assert "nothing.wav" in capsys.readouterr().err


def test_without_clips_it_plays_the_demos(bundle, monkeypatch):
    from ltbm.profiles.latency.listening import command

    taken = []

    def fake(path, options, *_):
        taken.append(options.clips)
        raise RuntimeError("enough")

    monkeypatch.setattr(command, "benchmark", fake)
    assert main(["bench", "listen", str(bundle)]) == 1
    assert len(taken[0]) == 10 and taken[0][0].endswith("clip01.flac")
