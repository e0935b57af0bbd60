"""Answers of a built bundle beside those of the same bundle on ONNX Runtime."""

from collections.abc import Iterator

from ltbm.runtime.answer import Answer
from ltbm.runtime.levels import NAMED_RATIOS
from ltbm.runtime.session import Session

PROMPTS = ("What do you hear?", "And how often is it heard?")


def answers_of_both(path, clips, backend: str, levels=NAMED_RATIOS) -> Iterator[tuple[Answer, Answer]]:
    """(ONNX Runtime's, the backend's) at each level, to two questions in a row, in sessions that reuse."""
    with Session.open(path) as expected, Session.open(path, backend=backend) as session:
        for level in levels:
            for prompt in PROMPTS:
                wanted = expected.generate(clips, prompt, level, max_new_tokens=6)
                got = session.generate(clips, prompt, level, max_new_tokens=6)
                assert got.token_ids == wanted.token_ids and got.tokens_out == wanted.tokens_out
                assert got.prompt_token_ids == wanted.prompt_token_ids
                yield wanted, got
