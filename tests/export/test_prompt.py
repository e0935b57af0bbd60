"""The checkpoint's own chat template and tokenizer, wherever it keeps them."""

import json
import shutil

import pytest
from transformers import AutoTokenizer, Qwen2AudioProcessor, Qwen2Tokenizer, WhisperFeatureExtractor

from ltbm.export.families import FAMILIES
from ltbm.export.prompt import chat_template
from ltbm.export.tokenizer import read_tokenizer
from ltbm.runtime.template import compile_template

OWN = "own: {{ messages }}"
NAMED = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": OWN}]
TEXTS = ["What do you hear?", "  two  spaces, 1234 ümläut 汉字 don't\n\n", "a\u0301 <|im_start|>x<|im_end|>"]


@pytest.fixture
def copy(qwen, tmp_path):
    copy = shutil.copytree(qwen[0], tmp_path / "checkpoint")
    (copy / "chat_template.jinja").unlink()
    return copy


def edit(path, **values):
    raw = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(raw | values))


@pytest.mark.parametrize("name", ["chat_template.json", "tokenizer_config.json", "processor_config.json"])
@pytest.mark.parametrize("value", [OWN, NAMED, {"default": OWN}, {"only": OWN}])
def test_a_template_anywhere_is_found(copy, name, value):
    edit(copy / name, chat_template=value)
    assert chat_template(copy) == OWN


def test_the_jinja_file_counts_before_the_others(copy):
    edit(copy / "tokenizer_config.json", chat_template="other")
    (copy / "chat_template.jinja").write_text(OWN)
    assert chat_template(copy) == OWN


def test_several_templates_without_a_default(copy):
    edit(copy / "tokenizer_config.json", chat_template=[dict(name=name, template="x") for name in ("a", "b")])
    with pytest.raises(ValueError, match="chat templates a, b and none named 'default'; save the one"):
        chat_template(copy)


def test_qwen2_audio_s_own_template_is_that_of_its_processor(copy):
    """For checkpoints without one; held against what transformers keeps for them."""
    processor = Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=128), AutoTokenizer.from_pretrained(copy)
    )
    audio = [{"type": "audio", "audio_url": "x"}]
    talk = [
        {"role": "user", "content": [*audio, *audio, {"type": "text", "text": "hm?"}]},
        {"role": "assistant", "content": "well"},
        {"role": "user", "content": [{"type": "text", "text": "and"}]},
    ]
    ours = FAMILIES["qwen2_audio"].prompt.template
    for messages in (talk[:1], talk, [{"role": "system", "content": "be brief"}, *talk]):
        rendered = [
            compile_template(template, "x")(messages=messages, add_generation_prompt=True)
            for template in (ours, processor.default_chat_template)
        ]
        assert rendered[0] == rendered[1]


def test_tokens_are_those_of_transformers(qwen):
    ours = read_tokenizer(qwen[0], "x")
    theirs = AutoTokenizer.from_pretrained(qwen[0])
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_a_tokenizer_of_vocabulary_and_merges(tmp_path):
    """Qwen2's files without tokenizer.json; a token beyond the vocabulary comes from the configuration."""
    letters = sorted(set(" abdehnortuwy?W") | set("ĠĊ"))
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    merges = ["Ġ y", "Ġy o", "h e", "e a"]
    for merge in merges:
        vocabulary[merge.replace(" ", "")] = len(vocabulary)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    entry = dict(content="<|im_end|>", special=True, lstrip=False, rstrip=False, normalized=False)
    added = {str(len(vocabulary)): entry | dict(single_word=False)}
    edit(tmp_path / "tokenizer_config.json", added_tokens_decoder=added, tokenizer_class="Qwen2Tokenizer")
    ours = read_tokenizer(tmp_path, "x")
    theirs = Qwen2Tokenizer.from_pretrained(tmp_path)
    for text in ("What do you hear?<|im_end|>\n\nyou you", "  heear  you"):
        assert ours.encode(text, add_special_tokens=False).ids == theirs(text)["input_ids"]


def test_a_token_that_stands_elsewhere(copy):
    entry = dict(content="<|im_end|>", special=True)
    edit(copy / "tokenizer_config.json", added_tokens_decoder={"3": entry})
    with pytest.raises(ValueError, match="puts '<|im_end|>' at 3, the tokenizer at"):
        read_tokenizer(copy, "x")


def test_no_tokenizer(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="x has no tokenizer.json"):
        read_tokenizer(copy, "x")
