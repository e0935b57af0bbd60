"""Trains the demo model on synthetic scenes and saves it: `python -m ltbm.demo.train --seed 0 --out DIR`.

A frame classifier on the encoder's output warms the encoder up and stays as an auxiliary loss; it is dropped on saving.
Nothing is compressed in training.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from . import data
from .model import WIDTH, encode_audio, make_model, save_model
from .scenes import make_scene, split_seeds


@dataclass(frozen=True)
class Recipe:
    """Everything a training run is made of."""

    steps: int = 1500  # of the whole model
    warmup_steps: int = 250  # of encoder and frame classifier alone, before
    scenes: int = 12_000  # of the training split, each drawn once and cached
    batch: int = 16  # clips per step
    matrix_rate: float = 6e-3  # Muon's learning rate, for the layers' matrices
    other_rate: float = 2e-3  # AdamW's, for everything else
    rise: int = 40  # steps of learning rate warm-up
    weight_decay: float = 0.01
    frame_loss: float = 1.0  # weight of the frame classifier's loss beside the language model's
    clip_norm: float = 1.0
    seed: int = 0


def train(recipe: Recipe, log=sys.stderr) -> tuple[torch.nn.Module, list[float]]:
    """The trained model (8 s window, float32) and the language model's loss at every step."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = make_model()
    classifier = torch.nn.Linear(WIDTH, data.BACKGROUND + 1)
    batches = data.batches(make_examples(recipe, log), data.make_tokenizer(), recipe.batch, rng)
    progress = Progress(log)
    parts = [model.model.audio_tower, classifier]
    for _ in _steps(parts, recipe, recipe.warmup_steps):
        loss = frame_loss(model, classifier, next(batches))
        loss.backward()
        progress.step("warm-up", recipe.warmup_steps, loss)
    losses = []
    for _ in _steps([model, classifier], recipe, recipe.steps):
        spoken, framed = language_loss(model, classifier, next(batches))
        (spoken + recipe.frame_loss * framed).backward()
        progress.step("training", recipe.steps, spoken, framed)
        losses.append(spoken.item())
    return model.eval(), losses


def make_examples(recipe: Recipe, log) -> list[data.Example]:
    """Each seed has its own scenes of the training split, so that two runs share none."""
    started, examples = time.perf_counter(), []
    for seed in split_seeds("train", recipe.scenes, first=recipe.seed * recipe.scenes):
        examples.append(data.make_example(make_scene(seed)))
    print(f"{recipe.scenes} scenes in {time.perf_counter() - started:.0f} s", file=log, flush=True)
    return examples


def frame_loss(model: torch.nn.Module, classifier: torch.nn.Module, batch: data.Batch) -> torch.Tensor:
    tokens = encode_audio(model, batch.features, batch.frames)
    return _class_loss(classifier, tokens, batch)


def language_loss(
    model: torch.nn.Module, classifier: torch.nn.Module, batch: data.Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss per token of the answers, and the frame classifier's loss."""
    audio = encode_audio(model, batch.features, batch.frames)
    embeds = model.get_input_embeddings()(batch.tokens)
    is_audio = (batch.tokens == model.config.audio_token_id)[..., None]
    embeds = embeds.masked_scatter(is_audio, model.model.multi_modal_projector(audio))
    hidden = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=data.block_mask(batch.segment),
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    spoken = batch.targets != data.IGNORE
    return cross_entropy(model.lm_head(hidden[spoken]), batch.targets[spoken]), _class_loss(
        classifier, audio, batch
    )


def _class_loss(classifier: torch.nn.Module, tokens: torch.Tensor, batch: data.Batch) -> torch.Tensor:
    return cross_entropy(classifier(tokens).flatten(0, 1), batch.labels.flatten(), ignore_index=data.IGNORE)


def _steps(parts: list[torch.nn.Module], recipe: Recipe, steps: int) -> Iterator[int]:
    """Yields once per step; the caller fills in gradients, which are applied before the next one."""
    weights = [w for part in parts for w in part.parameters() if w.requires_grad]
    optimizers = make_optimizers(parts, recipe)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda k: _rate(k, steps, recipe.rise)) for o in optimizers
    ]
    for step in range(steps):
        yield step
        torch.nn.utils.clip_grad_norm_(weights, recipe.clip_norm)
        for changing in itertools.chain(optimizers, schedules):
            changing.step()
        for optimizer in optimizers:
            optimizer.zero_grad()


def make_optimizers(parts: list[torch.nn.Module], recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer layers, AdamW for all other weights."""
    named = [(name, w) for part in parts for name, w in part.named_parameters() if w.requires_grad]
    matrices = [w for name, w in named if w.ndim == 2 and "layers." in name]
    others = [w for name, w in named if not (w.ndim == 2 and "layers." in name)]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _rate(step: int, steps: int, rise: int) -> float:
    """Share of the learning rate: up in a line over `rise` steps, then down in a line to nothing."""
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise), 1.0)


class Progress:
    """Prints a stage's mean losses and the time per step."""

    EVERY_S = 15.0  # seconds between two lines

    def __init__(self, log) -> None:
        self.log, self.stage, self.shown = log, None, time.perf_counter()

    def step(self, stage: str, steps: int, *losses: torch.Tensor) -> None:
        if stage != self.stage:
            self.stage, self.done, self.started, self.recent = stage, 0, time.perf_counter(), []
        self.done += 1
        self.recent.append([loss.item() for loss in losses])
        now = time.perf_counter()
        if now - self.shown < self.EVERY_S and self.done < steps:
            return
        means = " ".join(f"{mean:.4f}" for mean in np.mean(self.recent, axis=0))
        each = (now - self.started) / self.done
        print(f"{stage} {self.done}/{steps}  loss {means}  {each:.2f} s a step", file=self.log, flush=True)
        self.shown, self.recent = now, []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = Recipe(
        steps=options.steps, warmup_steps=options.warmup_steps, scenes=options.scenes, seed=options.seed
    )
    started = time.perf_counter()
    model, _ = train(recipe)
    save_model(model, options.out)
    print(f"{options.out} after {(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)


if __name__ == "__main__":
    main()
