"""Scores a checkpoint in PyTorch, at any level: `python -m ltbm.demo.evaluate DIR --recordings DIR`.

Every recording that is heard belongs to the split that training leaves out. `--against DIR` says how many
scenes have the same caption and answers in a folder that `ltbm eval demo` wrote. Needs a checkout of ltbm, as
training does.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import DynamicCache, Qwen2AudioForConditionalGeneration

from ltbm.plugins.merge import apply_plan, plan_merge
from ltbm.profiles.quality.demo import scene_id
from ltbm.profiles.quality.predict import ANSWERS, read_answers
from ltbm.profiles.quality.variants import DEFAULT_MODE, Variant
from ltbm.runtime.levels import NAMED_RATIOS, Level, parse_level
from ltbm.runtime.stages.layout import TokenCounts, lay_out
from ltbm.runtime.stages.merge import MergedAudio
from ltbm.runtime.stages.splice import Prefix, splice

from . import data, language, metrics
from .encoder import AudioEncoder
from .model import load_model
from .recordings import SHIPPED, read_pool
from .scenes import held_out_scene

MAX_NEW_TOKENS = 48
CLIPS_PER_BATCH = 25
NO_COMPRESSION = parse_level("full")


@torch.inference_mode()
def answer_examples(
    model: Qwen2AudioForConditionalGeneration,
    examples: Sequence[data.Example],
    level: Level = NO_COMPRESSION,
) -> list[list[str]]:
    """For each scene its caption, then the answers to its questions; greedy, with audio merged to `level`."""
    answerer = Answerer(model, data.make_tokenizer(), level)
    texts = []
    for first in range(0, len(examples), CLIPS_PER_BATCH):
        texts += answerer.answer_batch(examples[first : first + CLIPS_PER_BATCH])
    return texts


@dataclass(frozen=True)
class Answerer:
    """A model in PyTorch with the merge as LTBM's numpy reference does it."""

    model: Qwen2AudioForConditionalGeneration
    tokenizer: Tokenizer
    level: Level

    def answer_batch(self, examples: Sequence[data.Example]) -> list[list[str]]:
        """For each scene the answers to its prompts, all decoded together."""
        counts = []
        prefixes = []
        for example in examples:
            audio = self.merged_audio(example.audio.astype(np.float32))
            prompts = [prompt for prompt, _ in data.dialogues(example.events, example.seed, draw=0)]
            counts.append(len(prompts))
            prefixes += [self.prefix(prompt, audio) for prompt in prompts]
        token_ids = greedy(self.model, prefixes, data.token_id(self.tokenizer, language.TURN_END))
        texts = iter([self.tokenizer.decode(ids) for ids in token_ids])
        return [list(islice(texts, count)) for count in counts]

    def merged_audio(self, tokens: np.ndarray) -> MergedAudio:
        """One clip's tokens [T, D] through the merge and the stock projector."""
        plan = plan_merge(tokens, self.level.target(len(tokens)), self.level.merge_window)
        merged = self.model.model.multi_modal_projector(torch.from_numpy(apply_plan(plan, tokens)))
        return MergedAudio.of_plans(merged.numpy(), [plan])

    def prefix(self, prompt: str, audio: MergedAudio) -> Prefix:
        text = data.PREFIX + language.AUDIO_TOKEN + data.DIALOGUE.format(prompt=prompt)
        prompt_ids = self.tokenizer.encode(text).ids
        counts = [[TokenCounts(audio.tokens_in, audio.tokens_out)]]
        layout = lay_out(prompt_ids, counts, self.model.config.audio_token_id, self.level)
        embeddings = self.model.model.language_model.embed_tokens.weight
        return splice(layout, [audio], embeddings.numpy())


def greedy(
    model: Qwen2AudioForConditionalGeneration, prefixes: Sequence[Prefix], end: int
) -> list[list[int]]:
    """Greedy tokens of every row until `end`; rows are padded on the left and masks are 4-D."""
    longest = max(len(prefix) for prefix in prefixes)
    embeds = _left_padded([prefix.inputs_embeds for prefix in prefixes], longest)
    positions = _left_padded([prefix.position_ids for prefix in prefixes], longest)
    key_bias = _left_padded([prefix.key_bias for prefix in prefixes], longest)
    pads = torch.tensor([longest - len(prefix) for prefix in prefixes])
    mask = _left_padded_mask(pads, longest) + key_bias[:, None, None]
    cache = DynamicCache()
    running = torch.ones(len(prefixes), dtype=torch.bool)
    next_positions = torch.tensor([[prefix.next_position] for prefix in prefixes])
    steps: list[torch.Tensor] = []
    while running.any() and len(steps) < MAX_NEW_TOKENS:
        output = model.model.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        tokens = model.lm_head(output.last_hidden_state[:, -1]).argmax(dim=-1)
        embeds = model.get_input_embeddings()(tokens)[:, None]
        positions = next_positions + len(steps)
        mask = torch.nn.functional.pad(mask[:, :, -1:], (0, 1))
        steps.append(torch.where(running, tokens, end))
        running &= tokens.ne(end)
    rows = torch.stack(steps, dim=1).tolist()
    return [[token for token in row if token != end] for row in rows]


def _left_padded(rows: Sequence, length: int) -> torch.Tensor:
    """Arrays [S, ...] of different lengths as the last of [rows, length, ...], zeros before."""
    padded = []
    for row in rows:
        values = torch.from_numpy(row)
        pad = values.new_zeros(length - len(values), *values.shape[1:])
        padded.append(torch.cat([pad, values]))
    return torch.stack(padded)


def _left_padded_mask(pads: torch.Tensor, length: int) -> torch.Tensor:
    """Additive causal mask [B, 1, S, S] that hides each row's first `pads` keys; padding sees itself."""
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None]
    is_token = torch.arange(length) >= pads[:, None]
    visible = causal & is_token[:, None]
    visible |= torch.eye(length, dtype=torch.bool)
    return data.additive(visible)[:, None]


def score(examples: Sequence[data.Example], texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Every metric over scenes and what `answer_examples` gave for them."""
    clips = []
    for example, (caption, *answers) in zip(examples, texts, strict=True):
        right = [question.answer for question in language.questions(example.events, example.seed)]
        clips.append(metrics.score_clip(example.events, caption, right, answers))
    return metrics.summarise(clips)


def same_share(out: Path, level: str, numbers: Sequence[int], texts: Sequence[Sequence[str]]) -> float:
    """Share of the scenes that the engines' answers in `out` say the same about, in the default mode."""
    answers, _ = read_answers(out / ANSWERS)
    variant = Variant(level, "ltbm", *DEFAULT_MODE)
    same = 0
    for number, said in zip(numbers, texts, strict=True):
        same += answers[scene_id(number), variant]["text"].split("\n") == list(said)
    return same / len(numbers)


def main() -> None:
    options = _parse_options()
    torch.set_num_threads(options.threads)
    model = load_model(options.checkpoint)
    encoder = AudioEncoder(model.model.audio_tower)
    pool = read_pool(options.recordings, "test")
    numbers = range(options.seed, options.seed + options.scenes)
    examples = [data.make_example(held_out_scene(pool, number), encoder) for number in numbers]
    texts = answer_examples(model, examples, parse_level(options.level))
    figures = {name: round(value, 4) for name, value in score(examples, texts).items()}
    if options.against:
        figures["same_as_engines"] = same_share(options.against, options.level, numbers, texts)
    print(json.dumps({"scenes": len(numbers), **figures}, indent=2))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Score a checkpoint of the demo model in PyTorch.")
    parser.add_argument("checkpoint", type=Path, help="folder that the trainer wrote")
    parser.add_argument(
        "--recordings",
        type=Path,
        default=SHIPPED,
        help="folder with esc10/, fsdd/ or debian/",
    )
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="the first scene")
    parser.add_argument("--against", type=Path, help="folder of `ltbm eval demo` about the same scenes")
    parser.add_argument("--level", choices=tuple(NAMED_RATIOS), default="full")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
