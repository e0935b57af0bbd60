import json
from dataclasses import replace

import pytest
import soundfile

from ltbm.profiles.quality.items import Item
from ltbm.profiles.quality.predict import (
    ANSWERS,
    AnswerLog,
    Settings,
    begin,
    bundle_hash,
    fill,
    items_hash,
    predict,
    read_settings,
)
from ltbm.profiles.quality.variants import Variant, variants
from ltbm.runtime.levels import parse_level

CHOSEN = variants(["full", "keep25"], ["ltbm", "pool"], [("original", "proportional")])


@pytest.fixture(scope="module")
def items(make_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed, seconds in enumerate((1, 2, 3)):
        soundfile.write(folder / f"{seed}.wav", make_clip(seconds, seed), 16_000)
    return [Item(f"clip{seed}", str(folder / f"{seed}.wav"), ("a",)) for seed in range(3)]


@pytest.fixture
def settings(items, pipeline):
    return Settings(
        "caption", "hm ?", 12, "error", "onnxruntime", "cpu", items_hash(items), bundle_hash(pipeline.bundle)
    )


def lines(out) -> list[dict]:
    return [json.loads(line) for line in (out / ANSWERS).read_text(encoding="utf-8").splitlines()]


def test_answers_are_the_sessions_own(session, pipeline, items, settings, tmp_path):
    chosen, seen = (
        variants(["full", "keep25"], ["ltbm", "pool"], [("original", "proportional"), ("compact", "plain")]),
        [],
    )
    with begin(tmp_path, settings, items) as log:
        predict(pipeline, items, chosen, settings, log, lambda done, total: seen.append((done, total)))
    found = {
        (line["item"], Variant(*(line[name] for name in vars(chosen[0])))): line for line in lines(tmp_path)
    }
    assert set(found) == {(item.id, variant) for item in items for variant in chosen} and seen == [
        (done, 15) for done in range(1, 16)
    ]
    for (name, variant), line in found.items():
        if variant.method == "ltbm":
            answer = session.generate(
                items[int(name[-1])].audio,
                "hm ?",
                parse_level(variant.level, positions=variant.positions, attention=variant.attention),
                max_new_tokens=12,
            )
            assert (line["text"], line["tokens_in"], line["tokens_out"], line["finish_reason"]) == (
                answer.text,
                answer.tokens_in,
                answer.tokens_out,
                answer.finish_reason,
            )
    assert any(
        found[item.id, variant]["text"] != found[item.id, replace(variant, method="ltbm")]["text"]
        for item in items
        for variant in chosen
        if variant.method == "pool"
    )


def test_a_killed_run_goes_on_where_it_stopped(pipeline, items, settings, tmp_path):
    def kill(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), begin(tmp_path, settings, items) as log:
        predict(pipeline, items, CHOSEN, settings, log, kill)
    before = (tmp_path / ANSWERS).read_bytes()
    (tmp_path / ANSWERS).write_bytes(before[:-7])  # the kill came in the middle of the fifth line
    counts = []
    with begin(tmp_path, settings, items) as log:
        assert log.torn == len(before.splitlines()[-1]) - 6 and len(log.answers) == 4
        predict(pipeline, items, CHOSEN, settings, log, lambda done, total: counts.append(total))
    assert counts == [5] * 5 and (tmp_path / ANSWERS).read_bytes().startswith(before)
    assert (
        len({(line["item"], line["level"], line["method"]) for line in lines(tmp_path)})
        == len(lines(tmp_path))
        == 9
    )


def test_further_levels_and_items_join_the_same_answers(pipeline, items, settings, tmp_path):
    with begin(tmp_path, settings, items) as log:
        predict(pipeline, items[:1], CHOSEN, settings, log)
    with begin(tmp_path, settings, items) as log:
        predict(
            pipeline, items, [*CHOSEN, Variant("keep6", "ltbm", "original", "proportional")], settings, log
        )
    assert len(lines(tmp_path)) == 12


@pytest.mark.parametrize(
    "change",
    [{"prompt": "what ?"}, {"max_new_tokens": 13}, {"items": "0"}, {"bundle": "0"}, {"device": "cuda"}],
)
def test_other_settings_are_refused(items, settings, tmp_path, change):
    begin(tmp_path, settings, items)
    with pytest.raises(ValueError, match=f"other settings.*{next(iter(change))} was .*--out"):
        begin(tmp_path, replace(settings, **change), items)


def test_two_writers_are_refused(tmp_path):
    with AnswerLog(tmp_path / ANSWERS), pytest.raises(ValueError, match="another process"):
        AnswerLog(tmp_path / ANSWERS)


def test_answers_under_another_kv_cache_are_refused(items, settings, tmp_path):
    with begin(tmp_path, settings, items):
        pass
    with pytest.raises(ValueError, match="kv_cache was None, now 'int8'"):
        begin(tmp_path, replace(settings, kv_cache="int8"), items)


def test_settings_from_before_kv_caches_are_read(items, settings, tmp_path):
    with begin(tmp_path, settings, items):
        pass
    path = tmp_path / "settings.json"
    old = json.loads(path.read_text())
    del old["kv_cache"]
    path.write_text(json.dumps(old))
    assert read_settings(tmp_path) == settings


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / ANSWERS).write_text('{"item": "1"}\n')
    with pytest.raises(ValueError, match="line 1 is no answer"):
        AnswerLog(tmp_path / ANSWERS)


def test_the_encoder_runs_once_an_item_and_equal_prefixes_are_answered_once(
    pipeline, items, settings, tmp_path, monkeypatch
):
    ran = {"encode": 0, "greedy": 0}

    def counted(name):
        run = getattr(pipeline, name)

        def count(*args):
            ran[name] += 1
            return run(*args)

        return count

    for name in ran:
        monkeypatch.setattr(pipeline, name, counted(name))
    modes = [("original", "proportional"), ("original", "plain")]
    with begin(tmp_path, settings, items) as log:
        predict(pipeline, items[:2], variants(["keep25"], ["ltbm", "stride"], modes), settings, log)
    assert ran == {"encode": 2, "greedy": 6} and len(lines(tmp_path)) == 8


def test_an_item_that_cannot_be_heard_is_named(pipeline, items, settings, tmp_path):
    with begin(tmp_path, settings, items) as log, pytest.raises(ValueError, match="item 'clip0'.*positions"):
        predict(pipeline, items[:1], CHOSEN, replace(settings, max_new_tokens=5000), log)


def test_prompts_are_filled_in_once():
    item = Item("1", "1.wav", ("x",), "is {choices} a word ?", ("x", "{question}"))
    assert fill("{question} | {choices}", item) == "is {choices} a word ? | x\n{question}"


@pytest.mark.parametrize(
    "change,words",
    [
        ({"benchmark": "mcq"}, "needs {question}"),
        ({"benchmark": "magic"}, "known are caption, mcq, asr"),
        ({"max_new_tokens": 0}, "below 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, change, words):
    with pytest.raises(ValueError, match=words):
        replace(settings, **change)
