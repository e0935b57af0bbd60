"""report.html: one page that needs nothing beside itself, for a desk and a phone, in light and dark."""

from html import escape
from pathlib import Path

from ..records import Profile, measured
from ..remarks import remarks
from ..table import COLUMNS, explanation, table_rows
from . import panels, tables
from .elements import bullets, grid, note, section, table

STYLE = Path(__file__).with_name("style.css")


def page(profile: Profile, quality: dict | None = None) -> str:
    """The whole page; `quality` is a results.json of `ltbm eval`."""
    title = f"{profile.bundle.name}: what every level costs"
    body = "".join(
        [
            f'<h1>{escape(title)}</h1><p class="dim">{escape(_subtitle(profile))}</p>',
            *_sections(profile, quality),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body><main>{body}</main></body></html>\n"
    )


def _sections(profile: Profile, quality: dict | None) -> list[str]:
    rows, fidelity = measured(profile), profile.fidelity
    parts = [
        section("In words", bullets(remarks(profile))),
        section("Levels", table("Levels", COLUMNS, table_rows(profile), names=2), note(explanation(profile))),
    ]
    charts = (
        [panels.latency(rows), panels.memory(rows), panels.tokens_and_ttft(rows, len(profile.clips))]
        if rows
        else []
    )
    charts += [panels.quality(rows, quality)] if rows and quality else []
    parts += [
        grid(*charts, *([panels.error(fidelity)] if any(row.error for row in fidelity.rows) else [])),
        panels.groups(fidelity, profile.clips[0].name),
        tables.groups(fidelity),
    ]
    parts += [tables.floors(rows), tables.percentiles(rows)] if rows else []
    return [*parts, tables.circumstances(profile)]


def _subtitle(profile: Profile) -> str:
    options, machine = profile.options, profile.machine
    gpu = machine.gpu["name"] if machine.gpu else options.device
    device = machine.cpu if options.device == "cpu" else gpu
    return f"{device}, {options.backend} {options.device}, {profile.created.replace('T', ' ')}"
