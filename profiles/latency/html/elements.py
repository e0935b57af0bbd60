"""The few HTML elements that the page is made of."""

from collections.abc import Iterable, Sequence
from html import escape


def section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def grid(*sections: str) -> str:
    """Side by side where there is room."""
    return f'<div class="grid-of-charts">{"".join(sections)}</div>'


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def bullets(texts: Iterable[str]) -> str:
    return f'<ul class="remarks">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def facts(pairs: dict[str, object]) -> str:
    """A list of names and values; what is empty is left out."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in pairs.items() if value
    )
    return f"<dl>{items}</dl>"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """A table that scrolls sideways where it is too wide; the first `names` columns are text."""
    body = "".join(f"<tr>{_cells('td', row, names)}</tr>" for row in rows)
    return (
        '<div class="scroll" tabindex="0" role="group" '
        f'aria-label="{escape(title)}"><table><thead><tr>{_cells("th", head, names)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(tag: str, values: Sequence[str], names: int) -> str:
    kinds = (' class="name"' if place < names else "" for place in range(len(values)))
    return "".join(f"<{tag}{kind}>{escape(value)}</{tag}>" for kind, value in zip(kinds, values))
