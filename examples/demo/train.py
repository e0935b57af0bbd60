"""Trains the demo model on synthetic scenes and saves it: `python -m ltbm.demo.train --seed 0 --out DIR`.

A frame classifier on the encoder's output warms the encoder up and stays as an auxiliary loss; it is dropped
on saving. Nothing is compressed in training.

Needs a checkout of ltbm: `pip install -e ".[parity,report]"` there, or its folder `.typing` on PYTHONPATH. An
installed wheel has the trained model and not its trainer.
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
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import Qwen2AudioForConditionalGeneration

from . import data
from .model import WIDTH, encode_audio, make_model, save_model
from .scenes import make_scene, split_seeds


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run is made of."""

    steps: int = 1500  # of the whole model
    warmup_steps: int = 250  # of encoder and frame classifier alone, before
    scenes: int = 12_000  # of the training split, each drawn once and cached
    batch: int = 16  # clips per step
    matrix_rate: float = 6e-3  # Muon's learning rate, for the layers' matrices
    other_rate: float = 2e-3  # AdamW's, for everything else
    rise: int = 40  # steps of learning rate warm-up
    weight_decay: float = 0.01
    frame_loss: float = 1.0  # weight of the frame classifier's loss beside the language model's
    clip_norm: float = 1.0  # greatest norm of all gradients together
    seed: int = 0


def train(recipe: Recipe, log: TextIO = sys.stderr) -> tuple[Qwen2AudioForConditionalGeneration, list[float]]:
    """The trained model (8 s segment, float32) and the language model's loss at every step."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = make_model()
    classifier = torch.nn.Linear(WIDTH, data.BACKGROUND + 1)
    batches = data.batches(make_examples(recipe, log), data.make_tokenizer(), recipe.batch, rng)
    progress = Progress(log)
    for _ in _steps([model.model.audio_tower, classifier], recipe, recipe.warmup_steps):
        loss = frame_loss(model, classifier, next(batches))
        loss.backward()
        progress.step("warm-up", recipe.warmup_steps, loss)
    losses = []
    for _ in _steps([model, classifier], recipe, recipe.steps):
        answer_loss, class_loss = language_loss(model, classifier, next(batches))
        (answer_loss + recipe.frame_loss * class_loss).backward()
        progress.step("training", recipe.steps, answer_loss, class_loss)
        losses.append(answer_loss.item())
    return model.eval(), losses


def make_examples(recipe: Recipe, log: TextIO) -> list[data.Example]:
    """Each seed has its own scenes of the training split, so that two runs share none."""
    started = time.perf_counter()
    seeds = split_seeds("train", recipe.scenes, first=recipe.seed * recipe.scenes)
    examples = [data.make_example(make_scene(seed)) for seed in seeds]
    print(f"{recipe.scenes} scenes in {time.perf_counter() - started:.0f} s", file=log, flush=True)
    return examples


def frame_loss(
    model: Qwen2AudioForConditionalGeneration, classifier: torch.nn.Module, batch: data.Batch
) -> torch.Tensor:
    tokens = encode_audio(model, batch.features, batch.frames)
    return _class_loss(classifier, tokens, batch)


def language_loss(
    model: Qwen2AudioForConditionalGeneration, classifier: torch.nn.Module, batch: data.Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss per token of the answers, and the frame classifier's loss."""
    audio = encode_audio(model, batch.features, batch.frames)
    embeds = model.get_input_embeddings()(batch.tokens)
    is_audio = batch.tokens.eq(model.config.audio_token_id)[..., None]
    embeds = embeds.masked_scatter(is_audio, model.model.multi_modal_projector(audio))
    hidden = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=data.block_mask(batch.dialogues),
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    in_answer = batch.targets.ne(data.IGNORE)
    answer_loss = cross_entropy(model.lm_head(hidden[in_answer]), batch.targets[in_answer])
    return answer_loss, _class_loss(classifier, audio, batch)


def _class_loss(classifier: torch.nn.Module, tokens: torch.Tensor, batch: data.Batch) -> torch.Tensor:
    return cross_entropy(classifier(tokens).flatten(0, 1), batch.labels.flatten(), ignore_index=data.IGNORE)


def _steps(parts: Sequence[torch.nn.Module], recipe: Recipe, steps: int) -> Iterator[int]:
    """Yields once per step; the caller fills in gradients, which are applied before the next one."""
    optimizers = make_optimizers(parts, recipe)
    weights = [weight for _, weight in _trainable(parts)]
    schedules = [
        LambdaLR(optimizer, lambda step: _rate(step, steps, recipe.rise)) for optimizer in optimizers
    ]
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
    muon = torch.optim.Muon(
        matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adamw]


def _trainable(parts: Sequence[torch.nn.Module]) -> list[tuple[str, torch.nn.Parameter]]:
    """(name, weight) of everything in the parts that training changes."""
    named = []
    for part in parts:
        named += part.named_parameters()
    return [(name, weight) for name, weight in named if weight.requires_grad]


def _rate(step: int, steps: int, rise: int) -> float:
    """Share of the learning rate: up in a line over `rise` steps, then down in a line to nothing."""
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise), 1.0)


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
    model, _ = train(recipe)
    save_model(model, options.out)
    print(f"{options.out} after {(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo model on synthetic scenes and save it.")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="steps of the whole model")
    parser.add_argument(
        "--warmup-steps", type=int, default=Recipe.warmup_steps, help="steps of the encoder alone"
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
