"""Captions, questions and the tokenizer that has to spell them."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from ltbm.demo import language
from ltbm.demo.language import caption, parse_caption, questions
from ltbm.demo.sounds import DIGITS, DURATIONS, MAX_COUNT, SOUNDS, SPOKEN, Event

SPOKEN_STRINGS = [Event(SPOKEN, digits=digits) for digits in (("seven",), DIGITS[:4], ("nine", "nine"))]


def every_event() -> list[Event]:
    events = list(SPOKEN_STRINGS)
    for name, sound in SOUNDS.items():
        if sound.counted:
            events += [Event(name, count=count) for count in range(1, MAX_COUNT + 1)]
        else:
            events += [Event(name, duration=duration) for duration in DURATIONS]
    return events


EVERY_EVENT = every_event()


def draw_events(seed: int) -> list[Event]:
    """One to four events, sounds recurring in about half of the draws."""
    rng = np.random.default_rng(seed)
    some = [EVERY_EVENT[k] for k in rng.integers(len(EVERY_EVENT), size=rng.integers(1, 5))]
    if len(some) > 2 and seed % 2:
        some[0] = some[2]
    return some


SCENES = {seed: draw_events(seed) for seed in range(120)}


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
    for events in SCENES.values():
        assert parse_caption(caption(events)) == events


def test_a_caption_in_words():
    given = parse_caption("a dog barks twice , then someone says seven two five , then rain falls for long .")
    assert given == [
        Event("dog", count=2),
        Event(SPOKEN, digits=("seven", "two", "five")),
        Event("rain", duration="long"),
    ]


@pytest.mark.parametrize(
    ("text", "sounds"),
    [
        ("", []),
        ("a dog barks briefly .", []),
        ("someone says .", []),
        ("someone says seven barks .", []),
        ("a dog barks once , then a dog barks", ["dog"]),
        ("a dog barks once , then then a dog barks once .", ["dog"]),
        ("  a  dog barks   once,then rain falls briefly", ["dog", "rain"]),
    ],
)
def test_clauses_that_no_event_gives_are_left_out(text, sounds):
    assert [event.sound for event in parse_caption(text)] == sounds


def test_questions_are_reproducible_and_differ_between_draws():
    events = SCENES[1]
    assert questions(events, 1, 3) == questions(events, 1, 3)
    assert len({tuple(q.text for q in questions(events, 1, 3, draw)) for draw in range(8)}) > 3


def test_questions_with_options_hold_their_answer_once():
    for seed, events in SCENES.items():
        for question in questions(events, seed, 6):
            if question.kind == "digits":
                assert not question.options
                continue
            assert question.options.count(question.answer) == 1
            assert len(set(question.options)) == len(question.options) in (2, language.OPTIONS)
            assert all(f" {option} " in question.text for option in question.options)


def test_questions_are_right():
    for seed, events in SCENES.items():
        for question in questions(events, seed, 6):
            assert question.answer == _answer(question, events), question


def test_every_kind_is_asked_and_no_place_of_the_answer_is_preferred():
    asked = [question for seed, events in SCENES.items() for question in questions(events, seed, 6)]
    assert {question.kind for question in asked} == set(language.QUESTION_KINDS)
    places = [q.options.index(q.answer) for q in asked if q.kind == "order"]
    assert np.bincount(places, minlength=3).min() > len(places) / 5


def _answer(question: language.Question, events: list[Event]) -> str:
    """The answer, worked out from the question's own words."""
    words = question.text.split(" : ")[0].removesuffix(" ?").split()
    if question.kind == "number":
        return language.NUMBERS[len(events) - 1]
    if question.kind == "order":
        return events[language.ORDINALS.index(words[-1])].sound
    if question.kind == "digits":
        said = [event.digits for event in events if event.digits]
        return " ".join(said[language.ORDINALS.index(words[-1]) if words[-1] != "said" else 0])
    index = _index_of(" ".join(words), events)
    if question.kind == "after":
        return events[index + 1].sound
    value = getattr(events[index], question.kind)
    return language.COUNT_WORDS[value - 1] if question.kind == "count" else value


def _index_of(text: str, events: list[Event]) -> int:
    """Which event a question names, as in "the second bell"."""
    (name,) = {event.sound for event in events if f" {event.sound} " in f"{text} "}
    same = [k for k, event in enumerate(events) if event.sound == name]
    ordinals = [k for k, ordinal in enumerate(language.ORDINALS) if f"the {ordinal} {name}" in text]
    assert bool(ordinals) == (len(same) > 1)
    return same[ordinals[0]] if ordinals else same[0]


def test_the_tokenizer_knows_every_word(tokenizer):
    unknown = tokenizer.token_to_id(language.UNKNOWN)
    texts = [language.CAPTION_PROMPT, *map(language.describe, EVERY_EVENT)]
    for seed, events in SCENES.items():
        texts.append(caption(events))
        for question in questions(events, seed, 6, draw=1):
            texts += [question.text, question.answer, *question.options]
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
