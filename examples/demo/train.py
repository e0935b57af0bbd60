"""Trains a small Qwen2-Audio on scenes mixed from recordings:
`python -m ltbm.demo.train --recordings DIR --whisper DIR --out DIR`.

The encoder is a pretrained Whisper's, frozen: each scene is encoded once, and its tokens are cached. A
classifier on the language model's states over the audio says what each token is in; it warms the model up,
stays as an auxiliary loss, and is dropped on saving. Nothing is compressed in training.

Needs a checkout of ltbm: `pip install -e ".[parity,report]"` there, or its folder `.typing` on PYTHONPATH.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch.nn.functional import cross_entropy, dropout
from torch.optim.lr_scheduler import LambdaLR
from transformers import Qwen2AudioForConditionalGeneration

from . import data
from .encoder import AudioEncoder
from .model import WIDTH, make_model, save_model
from .muon import Muon
from .recordings import Pool, read_pool
from .scenes import make_scene


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run is made of."""

    steps: int = 5200  # of the whole model
    warmup_steps: int = 150  # of the token classifier's loss alone, before
    scenes: int = 4500  # each mixed and encoded once, and cached
    batch: int = 10  # clips per step
    matrix_rate: float = 5e-3  # Muon's learning rate, for the layers' matrices
    other_rate: float = 1.6e-3  # AdamW's, for everything else
    rise: int = 40  # steps of learning rate warm-up
    fall: float = 0.04  # share of the steps, at the end, over which the rate falls to nothing
    weight_decay: float = 0.01
    token_loss: float = 1.0  # weight of the token classifier's loss beside the language model's
    dropout: float = 0.1  # of the encoder's tokens
    clip_norm: float = 1.0  # greatest norm of all gradients together
    seed: int = 0


def train(
    recipe: Recipe, pool: Pool, encoder: AudioEncoder, log: TextIO = sys.stderr
) -> tuple[Qwen2AudioForConditionalGeneration, list[float]]:
    """The trained model (float32) and the language model's loss at every step."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = make_model(encoder)
    classifier = torch.nn.Linear(WIDTH, data.BACKGROUND + 1)
    examples = make_examples(recipe, pool, encoder, log)
    batches = data.batches(examples, data.make_tokenizer(), recipe.batch, rng)
    progress = Progress(log)
    for _ in _steps([model, classifier], recipe, recipe.warmup_steps):
        loss = warmup_loss(model, classifier, next(batches), recipe.dropout)
        loss.backward()
        progress.step("warm-up", recipe.warmup_steps, loss)
    losses = []
    for _ in _steps([model, classifier], recipe, recipe.steps):
        answer_loss, token_loss = language_loss(model, classifier, next(batches), recipe.dropout)
        (answer_loss + recipe.token_loss * token_loss).backward()
        progress.step("training", recipe.steps, answer_loss, token_loss)
        losses.append(answer_loss.item())
    return model.eval(), losses


def make_examples(recipe: Recipe, pool: Pool, encoder: AudioEncoder, log: TextIO) -> list[data.Example]:
    """Each seed has its own scenes, so that two runs share none."""
    started = time.perf_counter()
    first = recipe.seed * recipe.scenes
    examples = []
    for seed in range(first, first + recipe.scenes):
        examples.append(data.make_example(make_scene(pool, seed, vary=True), encoder))
    print(f"{recipe.scenes} scenes in {time.perf_counter() - started:.0f} s", file=log, flush=True)
    return examples


def warmup_loss(
    model: Qwen2AudioForConditionalGeneration, classifier: torch.nn.Module, batch: data.Batch, dropped: float
) -> torch.Tensor:
    """The token classifier's loss, the dialogues left out."""
    audio_end = batch.audio_start + batch.audio.shape[1]
    return _token_loss(classifier, _states(model, batch, audio_end, dropped), batch)


def language_loss(
    model: Qwen2AudioForConditionalGeneration,
    classifier: torch.nn.Module,
    batch: data.Batch,
    dropped: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss per token of the answers, and the token classifier's loss."""
    states = _states(model, batch, batch.tokens.shape[1], dropped)
    in_answer = batch.targets.ne(data.IGNORE)
    answer_loss = cross_entropy(model.lm_head(states[in_answer]), batch.targets[in_answer])
    return answer_loss, _token_loss(classifier, states, batch)


def _states(
    model: Qwen2AudioForConditionalGeneration, batch: data.Batch, length: int, dropped: float
) -> torch.Tensor:
    """The language model's last states [B, length, H] over a batch's rows."""
    tokens = batch.tokens[:, :length]
    embeds = model.get_input_embeddings()(tokens)
    audio = model.model.multi_modal_projector(dropout(batch.audio, dropped))
    is_audio = tokens.eq(model.config.audio_token_id)[..., None]
    return model.model.language_model(
        inputs_embeds=embeds.masked_scatter(is_audio, audio),
        attention_mask=data.block_mask(batch.dialogues[:, :length]),
        position_ids=batch.positions[:, :length],
        use_cache=False,
    ).last_hidden_state


def _token_loss(classifier: torch.nn.Module, states: torch.Tensor, batch: data.Batch) -> torch.Tensor:
    """Over the states of the audio, which stands at the same place in every row."""
    heard = states[:, batch.audio_start : batch.audio_start + batch.audio.shape[1]]
    return cross_entropy(classifier(heard).flatten(0, 1), batch.labels.flatten(), ignore_index=data.IGNORE)


def _steps(parts: Sequence[torch.nn.Module], recipe: Recipe, steps: int) -> Iterator[int]:
    """Yields once per step; the caller fills in gradients, which are applied before the next one."""
    optimizers = make_optimizers(parts, recipe)
    weights = [weight for _, weight in _trainable(parts)]
    schedules = [LambdaLR(optimizer, lambda step: _rate(step, steps, recipe)) for optimizer in optimizers]
    for step in range(steps):
        yield step
        torch.nn.utils.clip_grad_norm_(weights, recipe.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
        for schedule in schedules:
            schedule.step()
        for optimizer in optimizers:
            optimizer.zero_grad()


def make_optimizers(parts: Sequence[torch.nn.Module], recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer layers, AdamW for all other weights."""
    matrices = []
    others = []
    for name, weight in _trainable(parts):
        is_matrix = weight.ndim == 2 and "layers." in name
        (matrices if is_matrix else others).append(weight)
    muon = Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay)
    adamw = torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adamw]


def _trainable(parts: Sequence[torch.nn.Module]) -> list[tuple[str, torch.nn.Parameter]]:
    """(name, weight) of everything in the parts that training changes."""
    named = []
    for part in parts:
        named += part.named_parameters()
    return [(name, weight) for name, weight in named if weight.requires_grad]


def _rate(step: int, steps: int, recipe: Recipe) -> float:
    """Share of the learning rate: up in a line, level, then down in a line to nothing."""
    falling = max(1.0, recipe.fall * steps)
    return min((step + 1) / recipe.rise, (steps - step) / falling, 1.0)


class Progress:
    """Prints a stage's mean losses and the time per step."""

    EVERY_S = 15.0  # seconds between two lines

    def __init__(self, log: TextIO) -> None:
        self.log = log
        self.printed = time.perf_counter()
        self._begin("")

    def step(self, stage: str, steps: int, *losses: torch.Tensor) -> None:
        """Count one of a stage's `steps`; a line every EVERY_S seconds and after the last one."""
        if stage != self.stage:
            self._begin(stage)
        self.done += 1
        self.recent.append([loss.item() for loss in losses])
        if time.perf_counter() - self.printed >= self.EVERY_S or self.done == steps:
            self._print(steps)

    def _begin(self, stage: str) -> None:
        self.stage = stage
        self.done = 0
        self.started = time.perf_counter()
        self.recent: list[list[float]] = []  # losses of the steps since the last line

    def _print(self, steps: int) -> None:
        self.printed = time.perf_counter()
        means = " ".join(f"{mean:.4f}" for mean in np.mean(self.recent, axis=0))
        step_s = (self.printed - self.started) / self.done
        line = f"{self.stage} {self.done}/{steps}  loss {means}  {step_s:.2f} s a step"
        print(line, file=self.log, flush=True)
        self.recent = []


def main() -> None:
    options = _parse_options()
    torch.set_num_threads(options.threads)
    recipe = Recipe(
        steps=options.steps, warmup_steps=options.warmup_steps, scenes=options.scenes, seed=options.seed
    )
    started = time.perf_counter()
    pool = read_pool(options.recordings, "train")
    model, _ = train(recipe, pool, AudioEncoder.from_whisper(options.whisper))
    save_model(model, options.out)
    print(f"{options.out} after {(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small Qwen2-Audio on recordings and save it.")
    parser.add_argument(
        "--recordings", type=Path, required=True, help="folder with esc10/, fsdd/ and debian/ (recordings.py)"
    )
    parser.add_argument(
        "--whisper", type=Path, required=True, help="folder of the checkpoint whisper-tiny.en"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="steps of the whole model")
    parser.add_argument(
        "--warmup-steps", type=int, default=Recipe.warmup_steps, help="steps of the token classifier alone"
    )
    parser.add_argument("--scenes", type=int, default=Recipe.scenes, help="training scenes")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; figures are reproducible for one number only"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    return parser.parse_args()


if __name__ == "__main__":
    main()
