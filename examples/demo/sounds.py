"""The classes of sound that the demo knows, and what can be said of one of them in a scene."""

from dataclasses import dataclass, field

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPOKEN = "digits"  # the class of spoken digits, beside SOUNDS
MAX_COUNT = 3  # strokes of a counted sound
DURATIONS = ("brief", "long")  # of sustained sounds

SAMPLES = "debian/usr/share/sonic-pi/samples"
MUSIC = "debian/usr/share/asterisk/moh"
VOICE = "debian/usr/share/asterisk/sounds/en_US_f_Allison/digits"

Range = tuple[float, float]  # least and greatest value of a uniform draw
Stretch = tuple[float, float]  # first and last second


@dataclass(frozen=True)
class Sound:
    """One class of sound: counted ones are cut into single strokes, sustained ones last."""

    name: str  # as questions and metrics call it
    stroke_s: Range | None = None  # seconds of one stroke; None: a sustained sound
    esc10: str | None = None  # folder in esc10
    package: str | None = None  # folder of a package's files
    files: tuple[str, ...] = ()  # the beginnings of their names

    @property
    def counted(self) -> bool:
        return self.stroke_s is not None


SOUNDS = {
    sound.name: sound
    for sound in (
        Sound("dog", (0.08, 0.60), esc10="dog_bark"),
        Sound("rooster", (0.40, 2.40), esc10="rooster"),
        Sound("sneeze", (0.15, 1.60), esc10="person_sneeze"),
        Sound("baby", esc10="baby_cry"),
        Sound("chainsaw", esc10="chainsaw"),
        Sound("clock", esc10="clock_tick"),
        Sound("fire", esc10="fire_crackling"),
        Sound("helicopter", esc10="helicopter"),
        Sound("rain", esc10="rain"),
        Sound("sea", esc10="sea_waves"),
        Sound(
            "drum",
            (0.10, 0.90),
            package=SAMPLES,
            files=("bd_", "drum_bass", "drum_heavy", "drum_tom", "tabla_"),
        ),
        Sound("cymbal", (0.20, 1.20), package=SAMPLES, files=("drum_cymbal", "drum_splash", "elec_cymbal")),
        Sound(
            "bell",
            (0.20, 1.20),
            package=SAMPLES,
            files=(
                "perc_bell",
                "elec_bell",
                "elec_bong",
                "elec_chime",
                "elec_triangle",
                "elec_ping",
                "drum_cowbell",
            ),
        ),
        Sound("music", package=MUSIC, files=("",)),
    )
}


@dataclass(frozen=True)
class Event:
    """One sound of a scene; two are equal if they are described alike, whenever they sound."""

    sound: str  # a key of SOUNDS, or SPOKEN
    count: int | None = None  # 1..MAX_COUNT, of counted sounds
    duration: str | None = None  # of DURATIONS, of sustained sounds
    digits: tuple[str, ...] | None = None  # of spoken strings
    strokes: tuple[Stretch, ...] = field(
        default=(), compare=False
    )  # seconds of each stroke or digit, or of all

    @property
    def start_s(self) -> float:
        return self.strokes[0][0]

    @property
    def end_s(self) -> float:
        return self.strokes[-1][1]
