"""The documentation: links resolve, commands parse, the README is short."""

import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest

from ltbm.runtime.cli import build_parser

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
README_WORDS = (500, 750)


def commands(page: Path) -> list[str]:
    """Every `ltbm ...` line of the page's code blocks, comments and continuations resolved."""
    found = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                command = part.split(" #")[0].split(" > ")[0].split(" | ")[-1].strip()
                if command.startswith("ltbm ") and "..." not in command:
                    found.append(command)
    return found


CASES = [(page.name, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page,command", CASES)
def test_commands_parse(page, command):
    """A command that does not raises UsageError."""
    words = shlex.split(command)[1:]
    with suppress(SystemExit):  # of --version and --help
        build_parser().parse_args(words)


def test_there_are_commands_to_check():
    assert len(CASES) > 15


def test_the_readme_is_short():
    words = len((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert README_WORDS[0] < words < README_WORDS[1]


def test_the_pictures_are_what_their_scripts_draw():
    from docs.pictures import draw, word_errors

    assert draw.OUT.read_text(encoding="utf-8") == draw.draw()
    assert word_errors.OUT.read_text(encoding="utf-8") == word_errors.draw()
