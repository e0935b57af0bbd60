"""What the demo model reads and says: captions, questions, and the words it knows.

A caption is a pure function of a scene's events and `parse_caption` is its inverse, so an answer can be scored event by
event. Every text is words and punctuation between blanks, as the word-level tokenizer sees it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .scenes import DURATIONS, MAX_COUNT, PITCHES, SOUNDS, Event, Scene

CAPTION_PROMPT = "what do you hear ?"
QUESTIONS_PER_SCENE = 3
OPTIONS = 3  # of a question with more than two possible answers
QUESTION_STREAM = 7  # keeps the draws of questions apart from those of sounds

PHRASES = {  # sound -> (noun phrase, verb); {pitch} stands where the class has one
    "beep": ("a {pitch} beep", "sounds"),
    "bell": ("a {pitch} bell", "rings"),
    "horn": ("a {pitch} horn", "honks"),
    "knock": ("someone", "knocks"),
    "drum": ("a {pitch} drum", "beats"),
    "click": ("a switch", "clicks"),
    "clap": ("someone", "claps"),
    "rising whistle": ("a {pitch} whistle", "rises"),
    "falling whistle": ("a {pitch} whistle", "falls"),
    "bird": ("a bird", "chirps"),
    "siren": ("a siren", "wails"),
    "alarm": ("an alarm", "blares"),
    "static": ("static", "crackles"),
    "rain": ("rain", "patters"),
    "engine": ("a {pitch} engine", "runs"),
    "voice": ("a {pitch} voice", "speaks"),
}
COUNT_WORDS = ("once", "twice", "three times")
DURATION_WORDS = {"brief": "briefly", "long": "for long"}
ORDINALS = ("first", "second", "third", "fourth")
NUMBERS = ("one", "two", "three", "four")
JOIN, END = " , then ", " ."

AUDIO_TOKEN, AUDIO_BOS_TOKEN, AUDIO_EOS_TOKEN = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
END_OF_TEXT, TURN_START, TURN_END, UNKNOWN = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unknown|>"
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


@dataclass(frozen=True)
class Question:
    """A question with its options in the text, and the right one."""

    kind: str  # order, after, count, pitch, duration or number
    text: str
    options: tuple[str, ...]
    answer: str


def caption(events: Sequence[Event]) -> str:
    """ "a low bell rings twice , then a siren wails briefly ." """
    return JOIN.join(describe(event) for event in events) + END


def describe(event: Event) -> str:
    """The clause of one event: "a low bell rings twice"."""
    noun, verb = PHRASES[event.sound]
    extent = COUNT_WORDS[event.count - 1] if event.count else DURATION_WORDS[event.duration]
    return f"{noun.format(pitch=event.pitch)} {verb} {extent}"


def parse_caption(text: str) -> list[Event]:
    """The events a caption tells of, in order; clauses that no event could have given are left out."""
    clauses = re.split(r",\s*then\b", text.strip().removesuffix(END.strip()))
    return [CLAUSES[clause] for clause in map(_normal, clauses) if clause in CLAUSES]


def questions(scene: Scene, number: int = QUESTIONS_PER_SCENE, draw: int = 0) -> list[Question]:
    """`number` questions on a scene; the same seed and `draw` give the same ones."""
    rng = np.random.default_rng([scene.seed, QUESTION_STREAM, draw])
    askable = _askable(scene.events)
    kinds = rng.permutation(sorted(askable))
    picked = [kinds[k % len(kinds)] for k in range(number)]
    return [_ASK[kind](rng, scene.events, int(rng.choice(askable[kind]))) for kind in picked]


def _normal(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _every_event() -> list[Event]:
    """One event of every class with every attribute."""
    return [
        Event(name, count, pitch, duration)
        for name, sound in SOUNDS.items()
        for count in (range(1, MAX_COUNT + 1) if sound.counted else (None,))
        for pitch in (PITCHES if sound.pitched else (None,))
        for duration in ((None,) if sound.counted else DURATIONS)
    ]


CLAUSES = {describe(event): event for event in _every_event()}


def _askable(events: Sequence[Event]) -> dict[str, list[int]]:
    """The events [indices] that each kind of question can be asked about; kinds with none are left out."""
    every = range(len(events))
    found = {
        "order": list(every),
        "after": list(every[:-1]),
        "count": [k for k in every if events[k].count],
        "pitch": [k for k in every if events[k].pitch],
        "duration": [k for k in every if events[k].duration],
        "number": [0],
    }
    return {kind: indices for kind, indices in found.items() if indices}


def _named(events: Sequence[Event], index: int) -> str:
    """The event's name, with its ordinal among its class where the class repeats: "the second bell"."""
    name = events[index].sound
    same = [k for k, event in enumerate(events) if event.sound == name]
    return f"the {ORDINALS[same.index(index)]} {name}" if len(same) > 1 else f"the {name}"


def _ask_order(rng: np.random.Generator, events: Sequence[Event], index: int) -> Question:
    return _multiple("order", rng, f"which sound comes {ORDINALS[index]}", _sound_options(rng, events, index))


def _ask_after(rng: np.random.Generator, events: Sequence[Event], index: int) -> Question:
    stem = f"which sound comes after {_named(events, index)}"
    return _multiple("after", rng, stem, _sound_options(rng, events, index + 1))


def _ask_count(rng: np.random.Generator, events: Sequence[Event], index: int) -> Question:
    options = _ordered_options(rng, COUNT_WORDS, events[index].count - 1)
    return Question(
        "count", *_options_text(f"how often does {_named(events, index)} sound", options[0]), options[1]
    )


def _ask_pitch(rng: np.random.Generator, events: Sequence[Event], index: int) -> Question:
    return Question("pitch", f"is {_named(events, index)} low or high ?", PITCHES, events[index].pitch)


def _ask_duration(rng: np.random.Generator, events: Sequence[Event], index: int) -> Question:
    return Question(
        "duration", f"is {_named(events, index)} brief or long ?", DURATIONS, events[index].duration
    )


def _ask_number(rng: np.random.Generator, events: Sequence[Event], index: int) -> Question:
    options = _ordered_options(rng, NUMBERS, len(events) - 1)
    return Question("number", *_options_text("how many sounds are there", options[0]), options[1])


_ASK = {
    "order": _ask_order,
    "after": _ask_after,
    "count": _ask_count,
    "pitch": _ask_pitch,
    "duration": _ask_duration,
    "number": _ask_number,
}


def _sound_options(rng: np.random.Generator, events: Sequence[Event], index: int) -> list[str]:
    """The right sound first, then wrong ones: those of the scene before any other."""
    right = events[index].sound
    heard = sorted({event.sound for event in events} - {right})
    others = sorted(set(SOUNDS) - {right} - set(heard))
    return [right, *rng.permutation(heard), *rng.permutation(others)][:OPTIONS]


def _multiple(kind: str, rng: np.random.Generator, stem: str, options: list[str]) -> Question:
    shuffled = [str(option) for option in rng.permutation(options)]
    return Question(kind, *_options_text(stem, shuffled), options[0])


def _ordered_options(rng: np.random.Generator, words: Sequence[str], right: int) -> tuple[list[str], str]:
    """OPTIONS of the words in their own order, the right one among them, and the right one."""
    wrong = rng.permutation([k for k in range(len(words)) if k != right])[: OPTIONS - 1]
    return [words[k] for k in sorted([right, *wrong])], words[right]


def _options_text(stem: str, options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    return f"{stem} : {' , '.join(options[:-1])} or {options[-1]} ?", tuple(options)


def vocabulary() -> list[str]:
    """Every token, special ones first; a token's place is its id."""
    texts = [
        CAPTION_PROMPT,
        "user assistant system",
        "Audio 1 2 3 4 :",
        JOIN + END,
        *CLAUSES,
        *SOUNDS,
        *ORDINALS,
    ]
    texts += [*NUMBERS, *COUNT_WORDS, *DURATIONS, *PITCHES, "which sound comes after the first or last : , ?"]
    texts += ["how often does the sound", "how many sounds are there", "is the low or high brief or long"]
    return [*SPECIAL_TOKENS, *sorted({word for text in texts for word in text.split()})]


def write_tokenizer(path: Path) -> None:
    """Writes tokenizer.json: one token for a word or a sign, words between blanks."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    ids = {token: k for k, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.save(str(path))
