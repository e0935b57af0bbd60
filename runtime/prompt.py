"""Text in and out without transformers: chat template, tokenizer, pieces of a streamed answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .bundle import Bundle
from .files import is_unicode, read_text, refuse_lfs_pointers
from .template import compile_template
from .transcript import Transcript, answer_beginning

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROMPTS_KEPT = 64  # whose token ids are kept: an evaluation asks the same of every clip


@dataclass(frozen=True)
class Turn:
    """One side's part of a conversation; `audios` of them come before the text.

    The assistant's as the last one is the beginning of the answer.
    """

    role: str  # system, user or assistant
    text: str
    audios: int = 0


def load_tokenizer(path: Path, advice: str) -> "Tokenizer":
    """The tokenizer in a tokenizer.json; ValueError names a file that is none, with the advice."""
    from tokenizers import Tokenizer

    refuse_lfs_pointers([path])
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path} is no tokenizer ({error}); {advice}") from None


class Prompter:
    """Renders conversations with the checkpoint's own chat template and tokenizes them."""

    def __init__(self, bundle: Bundle):
        self.spec = bundle.manifest.prompt
        self.tokenizer = load_tokenizer(bundle.file("tokenizer.json"), "run `ltbm export` again")
        template = bundle.file("chat_template.jinja")
        self._render = compile_template(read_text(template), str(template))
        self._cached_ids = lru_cache(maxsize=PROMPTS_KEPT)(self._conversation_ids)

    def prompt_ids(self, prompt: str, audios: int) -> list[int]:
        """Token ids of one user turn with `audios` audios before the text, one placeholder each."""
        return self.conversation_ids([Turn("user", prompt, audios)])

    def conversation_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of a conversation up to where the next answer begins, one placeholder per audio."""
        return list(self._cached_ids(tuple(turns)))

    def _conversation_ids(self, turns: tuple[Turn, ...]) -> list[int]:
        for turn in turns:
            if not is_unicode(turn.text):
                raise ValueError("the prompt holds bytes that are no UTF-8 text: convert it")
            if self.spec.audio_token in turn.text:
                raise ValueError(
                    f"the prompt contains {self.spec.audio_token!r}, which stands for audio; "
                    "leave it out, it is inserted for you"
                )
        text = self._text(turns)
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        audios = sum(turn.audios for turn in turns)
        if (placeholders := ids.count(self.spec.audio_token_id)) != audios:
            raise ValueError(
                f"the chat template made {placeholders} audio placeholders for {audios} audios; "
                "the bundle's template does not fit its tokenizer"
            )
        return self._surrounded(ids)

    def _text(self, turns: Sequence[Turn]) -> str:
        """The conversation up to where the answer goes on."""
        beginning = ""
        if turns[-1].role == "assistant":
            beginning = turns[-1].text
            turns = turns[:-1]
        if self.spec.transcript:
            turns = _with_context(turns)
        return self.render([_message(turn) for turn in turns]) + beginning

    def beginning(self, language: str) -> list[Turn]:
        """The turn with which an answer in `language` begins, none for an empty one; ValueError where the
        model takes none."""
        if not language:
            return []
        if self.spec.transcript is None:
            raise ValueError(f"this model takes no language {language!r}: write it into the prompt")
        return [Turn("assistant", answer_beginning(self.spec.transcript, language))]

    def transcript(self, turns: Sequence[Turn]) -> Transcript:
        """What takes the language off the answer to `turns`."""
        last = turns[-1]
        return Transcript(self.spec.transcript, last.text if last.role == "assistant" else "")

    def answer_text(self, token_ids: list[int]) -> str:
        """The whole text of an answer, without its language."""
        transcript = Transcript(self.spec.transcript)
        return transcript.push(self.decode(token_ids)) + transcript.finish()

    def _surrounded(self, ids: list[int]) -> list[int]:
        """The ids with what the family puts around each audio."""
        before, after = self.spec.audio_prefix_ids, self.spec.audio_suffix_ids
        if not before and not after:
            return ids
        surrounded: list[int] = []
        for token in ids:
            audio = token == self.spec.audio_token_id
            surrounded += (*before, token, *after) if audio else (token,)
        return surrounded

    def render(self, messages: list[dict]) -> str:
        special = {
            "bos_token": self.spec.bos_token or "",
            "eos_token": self.spec.eos_token or "",
            "pad_token": self.spec.pad_token or "",
        }
        return self._render(messages=messages, add_generation_prompt=True, **special)

    def decode(self, token_ids: list[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)


class TextStream:
    """Turns token ids into text pieces as they come; a piece is empty while a character is incomplete.

    The pieces, `finish` included, join to what `Prompter.decode` gives for all the ids.
    """

    def __init__(self, prompter: Prompter):
        from tokenizers.decoders import DecodeStream

        self._prompter = prompter
        self._stream = DecodeStream(skip_special_tokens=True)
        self._length = 0  # characters given out

    def push(self, token_id: int) -> str:
        piece = self._stream.step(self._prompter.tokenizer, token_id) or ""
        self._length += len(piece)
        return piece

    def finish(self, text: str) -> str:
        """What `text`, the whole answer, has beyond the pieces given out: an incomplete last character."""
        return text[self._length :]


def _with_context(turns: Sequence[Turn]) -> list[Turn]:
    """What is written to a model that only transcribes, in the system's turn, where it reads context."""
    *before, question = turns
    if question.role != "user" or any(turn.role != "system" for turn in before):
        raise ValueError("this model transcribes and holds no conversation: give the sound in one question")
    context = [Turn("system", question.text)] if question.text else []
    return [*before, *context, replace(question, text="")]


def _message(turn: Turn) -> dict:
    audios = [{"type": "audio", "audio_url": "audio"}] * turn.audios
    return {"role": turn.role, "content": audios + [{"type": "text", "text": turn.text}]}
