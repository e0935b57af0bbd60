"""From mel frames to encoder tokens: a rule for each kind of audio tower, which a bundle's manifest names."""

from dataclasses import dataclass

CONVOLUTION_STRIDE = 2
CHUNK_TOKENS = 13  # of 100 frames, after three convolutions of stride 2


def strided(length: int, times: int = 1) -> int:
    """What is left of `length` after convolutions of stride 2 with kernel 3 and padding 1."""
    for _ in range(times):
        length = (length - 1) // CONVOLUTION_STRIDE + 1
    return length


@dataclass(frozen=True)
class TokenRule:
    """How many tokens an audio tower makes of mel frames, and which numbers of frames it takes.

    step: frames that an input shorter than a block is a multiple of
    pooled: neighbouring positions that become one token
    tail: frames after the valid ones that the tower must see
    block: frames that attend to each other; inputs beyond are a multiple of it. 0: all
    chunk: frames that are convolved on their own; 0: all, or a block
    whole: a segment is always fed whole, and its silence counts
    """

    step: int
    pooled: int
    tail: int = 0
    block: int = 0
    chunk: int = 0
    whole: bool = False

    def positions(self, frames: int) -> int:
        """Positions of the tower's transformer that `frames` frames take."""
        if not self.chunk:
            return strided(frames)
        return frames // self.chunk * CHUNK_TOKENS + strided(frames % self.chunk, 3)

    def tokens(self, frames: int) -> int:
        """Valid tokens of `frames` valid frames."""
        return self.positions(frames) // self.pooled

    def input_frames(self, frames: int, segment_frames: int) -> int:
        """Frames that the tower is given so that the valid tokens are those of the whole segment."""
        if self.whole:
            return segment_frames
        step = self.block if self.block and frames > self.block else self.step
        return min(-(-(frames + self.tail) // step) * step, segment_frames)


TOKEN_RULES = {
    "whisper-conv2-pool2": TokenRule(step=4, pooled=2, tail=2),
    "whisper-conv2-stack4": TokenRule(step=8, pooled=4, whole=True),
    "whisper-conv2-pool2-blocks200": TokenRule(step=200, pooled=2, block=200),
    "conv2d3-chunks100": TokenRule(step=100, pooled=1, chunk=100),
}
