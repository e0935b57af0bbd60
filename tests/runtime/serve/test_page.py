"""The page at /, in a real browser."""

import time

import pytest

from ltbm.runtime.serve.settings import Settings
from tests.support.chromium import CHROMIUM, Browser
from tests.support.serving import QUESTION, question, serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser, live):
    browser.errors.clear()
    browser.call("Page.navigate", url=f"{live.url}/")
    browser.wait_for("document.querySelectorAll('#level option').length == 7")
    browser.evaluate(f"document.querySelector('#question').value = {QUESTION!r}")
    yield browser
    assert browser.errors == []


def press(page, selector):
    page.mouse("mousePressed", selector)
    page.mouse("mouseReleased", selector)


def text_of(page, name):
    return page.evaluate(f"document.getElementById('{name}').textContent")


def test_a_file_is_asked_about_at_a_level(page, client, clips):
    page.choose_file("#file", clips[0])
    page.wait_for("!document.querySelector('#ask').disabled")
    page.evaluate("document.querySelector('#level').value = 'ltbm:keep25'")
    press(page, "#ask")
    figures = page.wait_for("document.querySelector('#figures').textContent")
    assert figures.startswith("keep25: 119 audio tokens, 30 read") and "first token after" in figures
    expected = client.chat.completions.create(model="ltbm:keep25", messages=question(clips[0]))
    assert text_of(page, "answer") == expected.choices[0].message.content
    assert text_of(page, "error") == ""


def test_the_button_records_while_it_is_held(page):
    page.mouse("mousePressed", "#record")
    page.wait_for("document.querySelector('#record').classList.contains('on')")
    time.sleep(1)
    page.mouse("mouseReleased", "#record")
    page.wait_for("!document.querySelector('#ask').disabled")
    press(page, "#ask")
    assert page.wait_for("document.querySelector('#figures').textContent").startswith("keep50: ")


def test_what_is_not_sound_says_so(page, tmp_path):
    (tmp_path / "a.txt").write_text("no sound")
    page.choose_file("#file", tmp_path / "a.txt")
    assert "cannot be read" in page.wait_for("document.querySelector('#error').textContent")


def test_it_fits_a_phone(page):
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=2, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.querySelector('#record').getBoundingClientRect().height") >= 48
    page.call("Emulation.clearDeviceMetricsOverride")


def test_a_key_is_asked_for(browser, demo):
    with serving(demo, Settings(api_key="secret")) as server:
        browser.call("Page.navigate", url=f"{server.url}/")
        browser.wait_for("!document.querySelector('#key-line').hidden")
        browser.evaluate(
            "document.querySelector('#key').value = 'secret';"
            "document.querySelector('#key').dispatchEvent(new Event('change'))"
        )
        browser.wait_for("document.querySelectorAll('#level option').length == 7")
