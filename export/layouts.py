"""How checkpoints name their tensors: a table for each layout, from stored prefixes to the names here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

ENCODER_PREFIX = "audio_tower."
PROJECTOR_PREFIX = "multi_modal_projector."
DECODER_PREFIX = "language_model.model."
LM_HEAD = "language_model.lm_head.weight"
EMBEDDINGS = DECODER_PREFIX + "embed_tokens.weight"
KNOWINGLY_UNUSED = {"rotary_emb.inv_freq": "recomputed from rope_theta"}


@dataclass(frozen=True)
class Layout:
    """One way to name the tensors of a family.

    prefixes: stored prefix -> the prefix here; where several fit, the longest counts
    unused: stored prefix -> why no graph takes what begins with it
    """

    name: str
    prefixes: Mapping[str, str]
    unused: Mapping[str, str] = field(default_factory=dict)

    def name_of(self, stored: str) -> str | None:
        """The name used here; None if this layout has no such tensor. Unused tensors keep theirs."""
        if self.reason(stored):
            return stored
        fitting = [prefix for prefix in self.prefixes if stored.startswith(prefix)]
        if not fitting:
            return None
        prefix = max(fitting, key=len)
        return self.prefixes[prefix] + stored.removeprefix(prefix)

    def reason(self, stored: str) -> str | None:
        """Why a tensor is knowingly unused; None if it is used."""
        for prefix, reason in self.unused.items():
            if stored.startswith(prefix):
                return reason
        return None

    def __str__(self) -> str:
        return f"{', '.join(self.prefixes)} ({self.name})"


HUB = Layout(
    "transformers 4 and the hub",
    {name: name for name in (ENCODER_PREFIX, PROJECTOR_PREFIX, DECODER_PREFIX, "language_model.lm_head.")},
)
TRANSFORMERS_5 = Layout(
    "transformers 5",
    {
        "model.audio_tower.": ENCODER_PREFIX,
        "model.multi_modal_projector.": PROJECTOR_PREFIX,
        "model.language_model.": DECODER_PREFIX,
        "lm_head.": "language_model.lm_head.",
    },
)

THINKER_PARTS = {
    "audio_tower.": ENCODER_PREFIX,
    "audio_tower.proj.": PROJECTOR_PREFIX + "linear.",
    "model.embed_tokens.": DECODER_PREFIX + "embed_tokens.",
    "model.layers.": DECODER_PREFIX + "layers.",
    "model.norm.": DECODER_PREFIX + "norm.",
    "lm_head.": "language_model.lm_head.",
}
THINKER_UNUSED = {
    "audio_tower.audio_bos_eos_token.": "what goes around an audio are tokens of the LLM",
    "visual.": "images and videos are not read",
}


def _under(prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    return {prefix + name: value for name, value in names.items()}


OMNI = Layout(
    "Qwen2.5-Omni",
    _under("thinker.", THINKER_PARTS),
    _under("thinker.", THINKER_UNUSED)
    | dict.fromkeys(("talker.", "token2wav."), "answers are text, not speech"),
)
OMNI_THINKER = Layout("its thinker alone", THINKER_PARTS, THINKER_UNUSED)
OMNI_THINKER_5 = Layout(
    "the same in transformers 5",
    {
        "model.audio_tower.": ENCODER_PREFIX,
        "model.audio_tower.proj.": PROJECTOR_PREFIX + "linear.",
        "model.language_model.": DECODER_PREFIX,
        "lm_head.": "language_model.lm_head.",
    },
    _under("model.", THINKER_UNUSED),
)
QWEN3_ASR = Layout(
    "Qwen3-ASR's own repositories",
    {
        "thinker.audio_tower.": ENCODER_PREFIX,
        "thinker.audio_tower.proj1.": PROJECTOR_PREFIX + "linear_1.",
        "thinker.audio_tower.proj2.": PROJECTOR_PREFIX + "linear_2.",
        "thinker.model.": DECODER_PREFIX,
        "thinker.lm_head.": "language_model.lm_head.",
    },
)


def canonical_names(names: Iterable[str], layouts: tuple[Layout, ...], source: str) -> dict[str, str]:
    """Stored name -> the name used here, by the first layout that has them all.

    Without layouts names stay as they are. ValueError names the prefixes that the checkpoint has and those
    that its family is known with.
    """
    names = list(names)
    if not layouts:
        return {name: name for name in names}
    for layout in layouts:
        renamed = {name: layout.name_of(name) for name in names}
        if None not in renamed.values():
            return {name: here for name, here in renamed.items() if here is not None}
    strange = sorted({_prefix(name) for name in names})
    known = "; or ".join(map(str, layouts))
    raise ValueError(
        f"the tensors of {source} begin with {', '.join(strange)}, which is no layout of this family; "
        f"known: {known}"
    )


def unused_reasons(names: Iterable[str], layouts: tuple[Layout, ...]) -> dict[str, str]:
    """Stored name -> why it is knowingly unused, of those that are."""
    reasons = {}
    for name in names:
        for suffix, reason in KNOWINGLY_UNUSED.items():
            if name.endswith(suffix):
                reasons[name] = reason
        for layout in layouts:
            reason = layout.reason(name)
            if reason:
                reasons[name] = reason
    return reasons


def _prefix(name: str) -> str:
    """The parts of a name up to its first number, two at most."""
    parts = name.split(".")
    kept = [part for part in parts[:-1] if not part.isdigit()][:2]
    return ".".join(kept) + "."
