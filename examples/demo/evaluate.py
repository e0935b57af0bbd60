"""Scores a checkpoint in PyTorch, at any level: `python -m ltbm.demo.evaluate DIR --scenes 400`."""

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from transformers import DynamicCache, Qwen2AudioForConditionalGeneration

from ltbm.plugins.merge import apply_plan, plan_merge
from ltbm.runtime.levels import NAMED_RATIOS, Level, parse_level
from ltbm.runtime.stages.layout import TokenCounts, lay_out
from ltbm.runtime.stages.merge import MergedAudio
from ltbm.runtime.stages.splice import Prefix, splice

from . import data, language, metrics
from .model import encode_audio, token_count
from .scenes import SPLITS, Scene, held_out_scene, make_scene, split_seeds

MAX_NEW_TOKENS = 48
CLIPS_PER_BATCH = 25
NO_COMPRESSION = parse_level("full")


def load_model(folder: Path) -> Qwen2AudioForConditionalGeneration:
    """A saved checkpoint, its float16 weights computed in float32."""
    return Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def hear(
    model: Qwen2AudioForConditionalGeneration, scenes: Sequence[Scene], level: Level = NO_COMPRESSION
) -> list[list[str]]:
    """For each scene its caption, then the answers to its questions; greedily decoded, audio merged to `level`."""
    tokenizer = data.make_tokenizer()
    texts = []
    for first in range(0, len(scenes), CLIPS_PER_BATCH):
        texts += _answer_batch(model, tokenizer, scenes[first : first + CLIPS_PER_BATCH], level)
    return texts


def _answer_batch(model, tokenizer, scenes: Sequence[Scene], level: Level) -> list[list[str]]:
    """For each scene the answers to its prompts."""
    counts, prefixes = [], []
    for scene in scenes:
        audio = _merged_audio(model, data.make_example(scene), level)
        prompts = [prompt for prompt, _ in data.dialogues(scene, draw=0)]
        counts.append(len(prompts))
        prefixes += [_prefix(model, tokenizer, prompt, audio, level) for prompt in prompts]
    token_ids = _decode(model, prefixes, tokenizer.token_to_id(language.TURN_END))
    texts = iter([tokenizer.decode(ids) for ids in token_ids])
    return [list(islice(texts, count)) for count in counts]


def _prefix(model, tokenizer, prompt: str, audio: MergedAudio, level: Level) -> Prefix:
    counts = [TokenCounts(audio.tokens_in, audio.tokens_out)]
    layout = lay_out(_prompt_ids(tokenizer, prompt), counts, model.config.audio_token_id, level)
    return splice(layout, [audio], model.get_input_embeddings().weight.numpy())


def _prompt_ids(tokenizer, prompt: str) -> list[int]:
    return tokenizer.encode(data.PREFIX + language.AUDIO_TOKEN + data.SEGMENT.format(prompt=prompt)).ids


def _merged_audio(model, example: data.Example, level: Level) -> MergedAudio:
    """One clip through the stock encoder, the merge as LTBM's numpy reference does it, and the stock projector."""
    features = torch.from_numpy(example.features).float()[None]
    tokens = encode_audio(model, features, torch.tensor([example.frames]))[0, : token_count(example.frames)]
    plan = plan_merge(tokens.numpy(), level.target(len(tokens)), level.merge_window)
    merged = model.model.multi_modal_projector(torch.from_numpy(apply_plan(plan, tokens.numpy())))
    return MergedAudio.of_plans(merged.numpy(), [plan])


def _decode(model, prefixes: list[Prefix], end: int) -> list[list[int]]:
    """Greedy tokens of every row until `end`. Rows are padded on the left; masks are 4-D, so positions may be any."""
    longest = max(len(prefix.token_ids) for prefix in prefixes)
    embeds, positions, bias = (
        torch.stack([_left_padded(torch.from_numpy(getattr(prefix, name)), longest) for prefix in prefixes])
        for name in ("inputs_embeds", "position_ids", "key_bias")
    )
    pads = torch.tensor([longest - len(prefix.token_ids) for prefix in prefixes])
    mask = _left_padded_mask(pads, longest) + bias[:, None, None]
    cache, said = DynamicCache(), []
    running = torch.ones(len(prefixes), dtype=torch.bool)
    following = torch.tensor([[prefix.next_position] for prefix in prefixes])
    while running.any() and len(said) < MAX_NEW_TOKENS:
        output = model.model.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        token = model.lm_head(output.last_hidden_state[:, -1]).argmax(dim=-1)
        said.append(torch.where(running, token, end))
        running &= token != end
        embeds, positions = model.get_input_embeddings()(token)[:, None], following + len(said) - 1
        mask = torch.nn.functional.pad(mask[:, :, -1:], (0, 1))
    return [[int(t) for t in row if t != end] for row in torch.stack(said, dim=1)]


def _left_padded(values: torch.Tensor, length: int) -> torch.Tensor:
    """values [S, ...] as the last of [length, ...], zeros before."""
    return torch.cat([values.new_zeros(length - len(values), *values.shape[1:]), values])


def _left_padded_mask(pads: torch.Tensor, length: int) -> torch.Tensor:
    """Additive causal mask [B, 1, S, S] whose first `pads` keys are hidden; padding queries see themselves."""
    seen = (
        torch.ones(length, length, dtype=torch.bool).tril()[None]
        & (torch.arange(length) >= pads[:, None])[:, None]
    )
    seen |= torch.eye(length, dtype=torch.bool)
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def score(scenes: Sequence[Scene], texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Every metric over scenes and what `hear` gave for them."""
    clips = [
        metrics.score_clip(scene.events, heard[0], language.questions(scene), heard[1:])
        for scene, heard in zip(scenes, texts, strict=True)
    ]
    return metrics.summarise(clips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument(
        "--split", choices=sorted(SPLITS), default="test", help="test: every second scene recurs"
    )
    parser.add_argument("--level", choices=tuple(NAMED_RATIOS), default="full")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draw = held_out_scene if options.split == "test" else make_scene
    scenes = [draw(seed) for seed in split_seeds(options.split, options.scenes)]
    figures = score(scenes, hear(load_model(options.checkpoint), scenes, parse_level(options.level)))
    print(
        json.dumps(
            {"scenes": len(scenes), **{name: round(value, 4) for name, value in figures.items()}}, indent=2
        )
    )


if __name__ == "__main__":
    main()
