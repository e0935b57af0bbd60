"""What a worker process is told to measure. A job is sent as its fields and, under `job`, its kind."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MachineJob:
    """Facts about the machine, and its rates."""

    threads: int


@dataclass(frozen=True, kw_only=True)
class BundleJob:
    """What every job on a bundle takes."""

    bundle: str  # absolute path
    clips: tuple[str, ...]  # absolute paths
    backend: str
    device: str
    threads: int | None
    low_memory: bool
    kv_cache: str | None
    packed: bool = True
    native_products: bool = True
    long_audio: str


@dataclass(frozen=True, kw_only=True)
class LevelJob(BundleJob):
    """Requests at one level."""

    level: str
    window: str
    positions: str
    attention: str
    prompt: str
    max_new_tokens: int
    repeats: int
    warmup: int


@dataclass(frozen=True, kw_only=True)
class FidelityJob(BundleJob):
    """Every method at every level on the clips' tokens."""

    levels: tuple[str, ...]
    methods: tuple[str, ...]
    window: str


@dataclass(frozen=True, kw_only=True)
class ListenJob(BundleJob):
    """One pass through the clips, joined, with a question at every end.

    approach: a key of `listening.options.APPROACHES`
    start: second of the joined clips at which the sound begins
    ends: seconds of sound before each end, in order
    real_time: sound comes as from a microphone
    """

    approach: str
    level: str
    window: int | None
    positions: str
    attention: str
    prompt: str
    max_new_tokens: int
    start: float
    ends: tuple[float, ...]
    real_time: bool


Job = MachineJob | LevelJob | FidelityJob | ListenJob
KINDS: dict[str, type[MachineJob] | type[LevelJob] | type[FidelityJob] | type[ListenJob]] = {
    "machine": MachineJob,
    "level": LevelJob,
    "fidelity": FidelityJob,
    "listen": ListenJob,
}


def kind(job: Job) -> str:
    return next(name for name, record in KINDS.items() if type(job) is record)
