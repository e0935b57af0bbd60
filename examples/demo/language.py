"""The model's language: captions, questions, and its vocabulary.

A caption is a pure function of a scene's events and `parse_caption` is its inverse, so an answer can be
scored event by event. Every text is words and punctuation between blanks, as the word-level tokenizer needs
it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from .sounds import DIGITS, DURATIONS, MAX_COUNT, SOUNDS, SPOKEN, Event

CAPTION_PROMPT = "what do you hear ?"
QUESTIONS_PER_SCENE = 2
OPTIONS = 3  # of a question with more than two possible answers
QUESTION_STREAM = 7  # keeps the draws of questions apart from those of sounds

PHRASES = {  # sound -> (noun phrase, verb)
    "dog": ("a dog", "barks"),
    "rooster": ("a rooster", "crows"),
    "sneeze": ("someone", "sneezes"),
    "baby": ("a baby", "cries"),
    "chainsaw": ("a chainsaw", "runs"),
    "clock": ("a clock", "ticks"),
    "fire": ("a fire", "crackles"),
    "helicopter": ("a helicopter", "flies"),
    "rain": ("rain", "falls"),
    "sea": ("the sea", "rolls"),
    "drum": ("a drum", "beats"),
    "cymbal": ("a cymbal", "crashes"),
    "bell": ("a bell", "rings"),
    "music": ("music", "plays"),
    SPOKEN: ("someone", "says"),
}
COUNT_WORDS = ("once", "twice", "three times")
DURATION_WORDS = {"brief": "briefly", "long": "for long"}
ORDINALS = ("first", "second", "third", "fourth")
NUMBERS = ("one", "two", "three", "four")
JOIN = " , then "
END = " ."

AUDIO_TOKEN = "<|AUDIO|>"
AUDIO_BOS_TOKEN = "<|audio_bos|>"
AUDIO_EOS_TOKEN = "<|audio_eos|>"
END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
UNKNOWN = "<|unknown|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, AUDIO_TOKEN, AUDIO_BOS_TOKEN, AUDIO_EOS_TOKEN, UNKNOWN)
CHAT_TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if 'audio' in content or 'audio_url' in content or content['type'] == 'audio' %}"
    "{% set audio_count.value = audio_count.value + 1 %}"
    "Audio {{ audio_count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)  # Qwen2-Audio's, without the system turn

Attribute = TypeVar("Attribute", int, str, tuple[str, ...])


@dataclass(frozen=True)
class Question:
    """A question with its options in the text, and the right one; none for digits, which are spelt out."""

    kind: str  # order, after, count, duration, number or digits
    text: str
    options: tuple[str, ...]
    answer: str


def caption(events: Sequence[Event]) -> str:
    """ "a dog barks twice , then someone says seven two , then rain falls briefly ." """
    return JOIN.join(describe(event) for event in events) + END


def describe(event: Event) -> str:
    """The clause of one event: "a dog barks twice"."""
    noun, verb = PHRASES[event.sound]
    return f"{noun} {verb} {_extent(event)}"


def _extent(event: Event) -> str:
    """How often a counted sound is repeated, how long a sustained one lasts, or the digits that are said."""
    if event.count is not None:
        return COUNT_WORDS[event.count - 1]
    if event.duration is not None:
        return DURATION_WORDS[event.duration]
    if event.digits is not None:
        return " ".join(event.digits)
    raise ValueError(f"{event} has no count, duration or digits; every sound has one of them")


def parse_caption(text: str) -> list[Event]:
    """The events that a caption names, in order; clauses that no event could have given are left out."""
    clauses = re.split(r",\s*then\b", text.strip().removesuffix(END.strip()))
    events = [_parse_clause(clause.split()) for clause in clauses]
    return [event for event in events if event is not None]


def _parse_clause(words: list[str]) -> Event | None:
    said = words[len(SAYS) :]
    if words[: len(SAYS)] == SAYS and said and set(said) <= set(DIGITS):
        return Event(SPOKEN, digits=tuple(said))
    return CLAUSES.get(" ".join(words))


def _every_event() -> list[Event]:
    """One event of every class with every count or duration."""
    events = []
    for name, sound in SOUNDS.items():
        if sound.counted:
            events += [Event(name, count=count) for count in range(1, MAX_COUNT + 1)]
        else:
            events += [Event(name, duration=duration) for duration in DURATIONS]
    return events


SAYS = " ".join(PHRASES[SPOKEN]).split()
CLAUSES = {describe(event): event for event in _every_event()}


def questions(
    events: Sequence[Event], seed: int, number: int = QUESTIONS_PER_SCENE, draw: int = 0
) -> list[Question]:
    """`number` questions on a scene; the same seed and `draw` give the same ones."""
    rng = np.random.default_rng([seed, QUESTION_STREAM, draw])
    indices = _indices_by_kind(events)
    kinds = rng.permutation(sorted(indices))
    drawn = []
    for k in range(number):
        kind = str(kinds[k % len(kinds)])
        index = int(rng.choice(indices[kind]))
        drawn.append(QUESTION_KINDS[kind](rng, events, index))
    return drawn


def _indices_by_kind(events: Sequence[Event]) -> dict[str, list[int]]:
    """For each kind of question the events [indices] that it can be about; kinds with none are left out."""
    every = list(range(len(events)))
    indices = {
        "order": every,
        "after": every[:-1],
        "count": [k for k in every if events[k].count is not None],
        "duration": [k for k in every if events[k].duration is not None],
        "number": [0],
        "digits": [k for k in every if events[k].digits is not None],
    }
    return {kind: able for kind, able in indices.items() if able}


def _name(events: Sequence[Event], index: int) -> str:
    """The event's name, with its ordinal among its class where the class repeats: "the second bell"."""
    name = events[index].sound
    same = [k for k, event in enumerate(events) if event.sound == name]
    return f"the {ORDINALS[same.index(index)]} {name}" if len(same) > 1 else f"the {name}"


def _order_question(rng: Generator, events: Sequence[Event], index: int) -> Question:
    stem = f"which sound comes {ORDINALS[index]}"
    return _sound_question("order", stem, rng, events, index)


def _after_question(rng: Generator, events: Sequence[Event], index: int) -> Question:
    stem = f"which sound comes after {_name(events, index)}"
    return _sound_question("after", stem, rng, events, index + 1)


def _count_question(rng: Generator, events: Sequence[Event], index: int) -> Question:
    stem = f"how often does {_name(events, index)} sound"
    count = _required(events[index].count)
    return _words_question("count", stem, rng, COUNT_WORDS, count - 1)


def _number_question(rng: Generator, events: Sequence[Event], index: int) -> Question:
    return _words_question("number", "how many sounds are there", rng, NUMBERS, len(events) - 1)


def _digits_question(rng: Generator, events: Sequence[Event], index: int) -> Question:
    said = [k for k, event in enumerate(events) if event.digits is not None]
    which = f" {ORDINALS[said.index(index)]}" if len(said) > 1 else ""
    digits = _required(events[index].digits)
    return Question("digits", f"which digits are said{which} ?", (), " ".join(digits))


def _duration_question(rng: Generator, events: Sequence[Event], index: int) -> Question:
    duration = _required(events[index].duration)
    return Question("duration", f"is {_name(events, index)} brief or long ?", DURATIONS, duration)


QUESTION_KINDS: dict[str, Callable[[Generator, Sequence[Event], int], Question]] = {
    "order": _order_question,
    "after": _after_question,
    "count": _count_question,
    "duration": _duration_question,
    "number": _number_question,
    "digits": _digits_question,
}


def _required(attribute: Attribute | None) -> Attribute:
    """An attribute that the event has, because its kind of question was chosen for it."""
    assert attribute is not None
    return attribute


def _sound_question(kind: str, stem: str, rng: Generator, events: Sequence[Event], index: int) -> Question:
    """Which sound event `index` is, among wrong ones: those of the scene before any other."""
    right = events[index].sound
    present = sorted({event.sound for event in events} - {right})
    absent = sorted(set(PHRASES) - {right} - set(present))
    options = [right, *rng.permutation(present), *rng.permutation(absent)][:OPTIONS]
    shuffled = [str(option) for option in rng.permutation(options)]
    return Question(kind, _with_options(stem, shuffled), tuple(shuffled), right)


def _words_question(kind: str, stem: str, rng: Generator, words: Sequence[str], right: int) -> Question:
    """OPTIONS of the words in their own order, the right one among them."""
    others = [k for k in range(len(words)) if k != right]
    wrong = rng.permutation(others)[: OPTIONS - 1]
    options = [words[k] for k in sorted([right, *wrong])]
    return Question(kind, _with_options(stem, options), tuple(options), words[right])


def _with_options(stem: str, options: Sequence[str]) -> str:
    return f"{stem} : {' , '.join(options[:-1])} or {options[-1]} ?"


def vocabulary() -> list[str]:
    """Every token, special ones first; a token's index is its id."""
    texts = [
        CAPTION_PROMPT,
        "user assistant system",
        "Audio 1 2 3 4 :",
        JOIN + END,
        *CLAUSES,
        *PHRASES,
        *SAYS,
        *DIGITS,
        *ORDINALS,
        *NUMBERS,
        *COUNT_WORDS,
        *DURATIONS,
        "which sound comes after the first or last : , ?",
        "how often does the sound",
        "how many sounds are there",
        "is the brief or long",
        "which digits are said",
    ]
    return [*SPECIAL_TOKENS, *sorted(set(" ".join(texts).split()))]


def write_tokenizer(path: Path) -> None:
    """Writes tokenizer.json: one token for a word or a sign, words between blanks."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    ids = {token: index for index, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.save(str(path))
