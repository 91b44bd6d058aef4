import pytest

from studio.jobs.executors.replay import Replay
from studio.ui import app
from tests.ui.recorded import recorded


@pytest.fixture
def served(studio_home):
    served = app.serve(port=0, executor=Replay(recorded(40), speed=6))
    yield served
    served.close()


def opened(page, address):
    page.goto(address)
    page.wait_for_selector("[role=tab]", timeout=30_000)
    return page


def selected(page, name):
    page.wait_for_selector(f"[role=tab][data-tab-id={name}][aria-selected=true]", timeout=10_000)


def test_the_address_opens_a_tab_and_follows_the_user(page, served):
    opened(page, f"{served.url}/?tab=export")
    selected(page, "export")
    page.get_by_role("tab", name="Train", exact=True).click()
    selected(page, "train")
    assert "tab=train" in page.url
    page.go_back()
    selected(page, "export")


@pytest.mark.parametrize(
    ("locale", "query", "start"),
    [
        ("zh-CN", "", "开始训练"),
        ("zh-TW", "", "开始训练"),
        ("en-US", "&lang=zh", "开始训练"),
        ("fr-FR", "", "Start training"),
    ],
)
def test_the_page_speaks_the_language_of_the_browser_or_of_the_address(browser, served, locale, query, start):
    context = browser.new_context(locale=locale)
    page = opened(context.new_page(), f"{served.url}/?tab=train{query}")
    page.get_by_role("button", name=start, exact=True).wait_for()
    context.close()


def test_the_language_link_keeps_the_tab(page, served):
    opened(page, f"{served.url}/?tab=train")
    page.get_by_role("link", name="中文").click()
    page.get_by_role("button", name="开始训练", exact=True).wait_for()
    assert "tab=train" in page.url


def test_no_marker_of_a_text_is_left_untranslated(page, served):
    opened(page, f"{served.url}/?tab=train")
    for tab in page.locator("[role=tab]").all():
        tab.click()
        page.wait_for_timeout(300)
        body = page.locator("body").inner_text()
        assert "studio." not in body.replace("studio.git", "")
        assert "__i18n__" not in body


def test_every_request_stays_on_this_machine(page, served):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page, f"{served.url}/?tab=train")
    page.locator("#train-try").click()
    page.wait_for_selector(".live-chart[data-points]")
    assert [url for url in asked if not url.startswith((served.url, "data:", "blob:"))] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_scrolls_sideways_on_a_phone(browser, served, theme):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = opened(context.new_page(), f"{served.url}/?tab=train&__theme={theme}")
    page.locator("#train-try").click()
    page.wait_for_selector(".live-chart[data-points]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("[...document.querySelectorAll('.tabitem')].every((tab) => tab.scrollWidth <= 390)")
    context.close()


def test_the_browser_reports_no_error(page, served):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened(page, f"{served.url}/?tab=train")
    page.locator("#train-try").click()
    page.wait_for_selector("#train-status [data-state=finished]", timeout=20_000)
    assert problems == []
