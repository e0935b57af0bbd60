import numpy as np
import pytest

from ltbm.profiles.quality.encoder_store import WindowTokens, read_window, write_window
from ltbm.profiles.quality.items import Item
from ltbm.profiles.quality.merge_reach import main, reach
from ltbm.profiles.quality.predict import Settings, begin, items_hash
from ltbm.profiles.quality.variants import Variant

LEVELS = ("full", "keep25", "keep50")
TOKENS = 80


@pytest.fixture
def folder(tmp_path):
    """Answers for two clips, and their tokens: each second one of `far` has its like 40 tokens later."""
    items = [Item(name, f"{name}.wav", ("one",)) for name in ("far", "flat")]
    settings = Settings("whisper", "", 8, "error", "transformers", "cpu", items_hash(items), "")
    with begin(tmp_path, settings, items) as log:
        for item in items:
            for level in LEVELS:
                variant = vars(Variant(level, "ltbm", "original", "proportional"))
                log.append({"item": item.id, **variant, "text": "", "tokens_in": 1, "tokens_out": 1})
    random = np.random.default_rng(0)
    half = random.normal(size=(TOKENS // 2, 64)).astype(np.float32)
    ramp = np.linspace(0, 1, TOKENS, dtype=np.float32)
    flat = np.stack([np.ones(TOKENS, np.float32), ramp**2], axis=1)
    for name, tokens in (("far", np.concatenate([half, half])), ("flat", flat)):
        silence = np.zeros((5, tokens.shape[1]), np.float32)
        write_window(name, tmp_path / "encoder", _window(np.concatenate([tokens, silence])))
    return tmp_path


def _window(tokens: np.ndarray) -> WindowTokens:
    return WindowTokens(tokens, np.zeros(len(tokens), np.float32), TOKENS)


def test_tokens_are_read_back(folder):
    window = read_window("flat", folder / "encoder")
    assert window is not None and window.tokens.shape == (TOKENS + 5, 2) and window.length == TOKENS
    assert read_window("unknown", folder / "encoder") is None


def test_like_tokens_far_apart_are_merged_by_global_alone(folder, capsys):
    half, quarter = reach(folder)
    assert (half.level, quarter.level) == ("keep50", "keep25")
    assert 0.1 < half.far < 0.3  # of 160 tokens at most 40 can go to their like 40 tokens away
    assert half.same == 0.5
    main([str(folder)])
    assert f"| {folder.name} | keep50 | {100 * half.far:.1f} % | 50 % |" in capsys.readouterr().out


def test_missing_tokens_are_an_error(folder):
    (folder / "encoder").rename(folder / "moved")
    with pytest.raises(ValueError, match="no encoder tokens of 'far': run `ltbm eval whisper` again"):
        list(reach(folder))
