"""Mistral's tokenizer and prompts, made from tekken.json, against mistral-common."""

import json

import numpy as np
import pytest

pytest.importorskip("mistral_common", reason="the judge of tekken.json: pip install mistral-common")

from mistral_common.protocol.instruct.chunk import AudioChunk, TextChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.transcription.request import TranscriptionRequest
from mistral_common.tokens.tokenizers.audio import Audio
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from ltbm.export.tokenizer import read_tokenizer
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.prompt import Prompter, Turn
from tests.support.tiny_tekken import VOCABULARY, write_tekken

TEXTS = ["What do you hear?", "  two  spaces, 1234 ümläut 汉字 don't\n\n  x", "", "LANG lang:en languages"]
CLIP = np.zeros(16_000, np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tekken")
    write_tekken(folder)
    return folder


def test_every_text_has_mistral_s_tokens(folder):
    theirs = Tekkenizer.from_file(folder / "tekken.json")
    ours = read_tokenizer(folder, "x")
    assert ours.get_vocab_size() == theirs.n_words == VOCABULARY
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text, bos=False, eos=False)
        assert ours.decode(ids, skip_special_tokens=True) == text == theirs.decode(ids)


def test_a_file_without_special_tokens(folder, tmp_path):
    raw = json.loads((folder / "tekken.json").read_text())
    (tmp_path / "tekken.json").write_text(json.dumps(raw | {"special_tokens": None}))
    with pytest.raises(ValueError, match="lists no special_tokens: a tokenizer older than version 7"):
        read_tokenizer(tmp_path, "x")


@pytest.fixture(scope="module")
def prompter(make_bundle):
    return Prompter(Bundle.open(make_bundle("voxtral")[1]))


@pytest.fixture(scope="module")
def mistral(folder):
    return MistralTokenizer.from_file(str(folder / "tekken.json"))


def audio() -> Audio:
    return Audio(CLIP, 16_000, "wav")


def without_repeats(ids: list[int], token: int) -> list[int]:
    """One placeholder an audio."""
    return [one for one, before in zip(ids, [None, *ids]) if one != token or before != token]


def test_a_conversation_has_mistral_s_tokens(prompter, mistral):
    turns = [
        Turn("user", "What do you hear?", 2),
        Turn("assistant", "a horn"),
        Turn("user", "and then?"),
    ]
    chunks = [AudioChunk(input_audio=audio().to_base64("wav"))] * 2
    request = ChatCompletionRequest(
        messages=[
            UserMessage(content=[*chunks, TextChunk(text=turns[0].text)]),
            AssistantMessage(content=turns[1].text),
            UserMessage(content=turns[2].text),
        ]
    )
    theirs = mistral.encode_chat_completion(request).tokens
    assert prompter.conversation_ids(turns) == without_repeats(theirs, prompter.spec.audio_token_id)


@pytest.mark.parametrize("language", [None, "en"])
def test_words_that_ask_for_a_transcript(prompter, mistral, language):
    request = TranscriptionRequest(model="x", audio=audio().to_base64("wav"), language=language)
    theirs = mistral.encode_transcription(request).tokens
    words = f"lang:{language}" if language else ""
    assert prompter.prompt_ids(words, 1) == without_repeats(theirs, prompter.spec.audio_token_id)
