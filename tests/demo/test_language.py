"""Captions, questions and the tokenizer that has to spell them."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from ltbm.demo import language
from ltbm.demo.language import caption, parse_caption, questions
from ltbm.demo.scenes import Event, held_out_scene, make_scene, split_seeds
from ltbm.demo.sounds import DURATIONS, MAX_COUNT, PITCHES, SOUNDS

EVERY_EVENT = [
    Event(name, count, pitch, duration)
    for name, sound in SOUNDS.items()
    for count in (range(1, MAX_COUNT + 1) if sound.counted else [None])
    for pitch in (PITCHES if sound.pitched else [None])
    for duration in ([None] if sound.counted else DURATIONS)
]
SCENES = [
    make_scene(seed, recurring) for seed in split_seeds("validation", 60) for recurring in (True, False)
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    language.write_tokenizer(path)
    return Tokenizer.from_file(str(path))


@pytest.mark.parametrize("event", EVERY_EVENT, ids=language.describe)
def test_every_event_comes_back_from_its_caption(event):
    assert parse_caption(caption([event])) == [event]


def test_every_clause_is_said_once():
    assert len({language.describe(event) for event in EVERY_EVENT}) == len(EVERY_EVENT)


def test_captions_of_scenes_come_back():
    for scene in SCENES:
        assert parse_caption(caption(scene.events)) == list(scene.events)


def test_the_issue_s_own_example():
    heard = parse_caption("a low bell rings twice , then a siren wails briefly .")
    assert heard == [Event("bell", 2, "low", None), Event("siren", None, None, "brief")]


@pytest.mark.parametrize(
    ("text", "sounds"),
    [
        ("", []),
        ("a low siren wails briefly .", []),
        ("a bird chirps once , then a bird chirps", ["bird"]),
        ("a bird chirps once , then then a bird chirps once .", ["bird"]),
        ("  a  bird chirps   once,then rain patters briefly", ["bird", "rain"]),
    ],
)
def test_clauses_that_no_event_gives_are_left_out(text, sounds):
    assert [event.sound for event in parse_caption(text)] == sounds


def test_questions_are_reproducible_and_differ_between_draws():
    scene = SCENES[0]
    assert questions(scene, 3) == questions(scene, 3)
    assert len({tuple(q.text for q in questions(scene, 3, draw)) for draw in range(8)}) > 3


def test_questions_hold_their_answer_once():
    for scene in SCENES:
        for question in questions(scene, 6):
            assert question.options.count(question.answer) == 1
            assert len(set(question.options)) == len(question.options) in (2, language.OPTIONS)
            assert all(f" {option} " in question.text for option in question.options)


def test_questions_are_right():
    for scene in SCENES:
        for question in questions(scene, 6):
            assert question.answer == _answer(question, scene.events), question


def test_every_kind_is_asked_and_no_place_of_the_answer_is_preferred():
    asked = [question for scene in SCENES for question in questions(scene, 6)]
    assert {question.kind for question in asked} == {"order", "after", "count", "pitch", "duration", "number"}
    places = [q.options.index(q.answer) for q in asked if q.kind == "order"]
    assert np.bincount(places, minlength=3).min() > len(places) / 5


def _answer(question: language.Question, events: tuple[Event, ...]) -> str:
    """The answer, worked out from the question's own words."""
    words = question.text.split(" : ")[0].removesuffix(" ?").split()
    if question.kind == "number":
        return language.NUMBERS[len(events) - 1]
    if question.kind == "order":
        return events[language.ORDINALS.index(words[-1])].sound
    index = _index_of(" ".join(words), events)
    if question.kind == "after":
        return events[index + 1].sound
    found = getattr(events[index], question.kind)
    return language.COUNT_WORDS[found - 1] if question.kind == "count" else found


def _index_of(text: str, events: tuple[Event, ...]) -> int:
    """Which event a question names, as in "the second bell"."""
    (name,) = {event.sound for event in events if text.find(f" {event.sound}") >= 0}
    same = [k for k, event in enumerate(events) if event.sound == name]
    ordinals = [k for k, ordinal in enumerate(language.ORDINALS) if f"the {ordinal} {name}" in text]
    assert bool(ordinals) == (len(same) > 1)
    return same[ordinals[0]] if ordinals else same[0]


def test_the_tokenizer_knows_every_word(tokenizer):
    unknown = tokenizer.token_to_id(language.UNKNOWN)
    texts = [language.CAPTION_PROMPT, *map(language.describe, EVERY_EVENT)]
    for scene in SCENES:
        texts += [caption(scene.events)]
        texts += [text for q in questions(scene, 6, draw=1) for text in (q.text, q.answer, *q.options)]
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert unknown not in ids, text
        assert tokenizer.decode(ids) == text


def test_the_tokenizer_keeps_special_tokens_whole(tokenizer):
    prompt = "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nwhat do you hear ?<|im_end|>\n"
    tokens = tokenizer.encode(prompt).tokens
    assert tokens == [
        *("<|im_start|>", "user", "Audio", "1", ":", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
        *("what", "do", "you", "hear", "?", "<|im_end|>"),
    ]
    assert tokenizer.decode(tokenizer.encode(prompt).ids) == "user Audio 1 : what do you hear ?"


def test_words_never_seen_are_unknown(tokenizer):
    assert tokenizer.encode("a trombone sounds once").tokens[1] == language.UNKNOWN


def test_held_out_captions_differ_from_each_other():
    said = {caption(held_out_scene(seed).events) for seed in split_seeds("test", 100)}
    assert len(said) > 90
