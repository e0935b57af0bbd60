"""How a request's tokens are drawn, and where its answer stops."""

from dataclasses import replace

from ..numbers import LARGEST_SEED, MOST
from ..sampling import REPETITION_PENALTIES, SMALLEST_TEMPERATURE, Sampling
from .errors import invalid
from .fields import Fields

SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "repetition_penalty", "seed", "stop")
MOST_STOP_STRINGS = 4
LONGEST_STOP_STRING = 256  # characters


def read_sampling(fields: Fields, default: Sampling) -> Sampling:
    """The request's own fields over the server's."""
    values = {
        "temperature": fields.number("temperature", 0, 2),
        "top_k": fields.integer("top_k", 0, MOST),
        "top_p": fields.number("top_p", 0, 1),
        "repetition_penalty": fields.number("repetition_penalty", *REPETITION_PENALTIES),
        "seed": fields.integer("seed", 0, LARGEST_SEED),
    }
    if values["temperature"] and values["temperature"] < SMALLEST_TEMPERATURE:
        raise fields.wrong("temperature", f"0, which is greedy, or at least {SMALLEST_TEMPERATURE:g}")
    if values["top_p"] == 0:
        raise fields.wrong("top_p", "above 0")
    return replace(default, **{name: value for name, value in values.items() if value is not None})


def read_stop(fields: Fields) -> tuple[str, ...]:
    """Strings that end the answer: one, or a list of up to four."""
    stop = fields.get("stop")
    if stop is None:
        return ()
    strings = [stop] if isinstance(stop, str) else stop
    if not isinstance(strings, list) or len(strings) > MOST_STOP_STRINGS:
        raise fields.wrong("stop", f"a string, or a list of at most {MOST_STOP_STRINGS}")
    for string in strings:
        if not isinstance(string, str) or not 1 <= len(string) <= LONGEST_STOP_STRING:
            message = f"stop has a value that is not a string of 1 to {LONGEST_STOP_STRING} characters"
            raise invalid(fields.param("stop"), message)
    return tuple(strings)
