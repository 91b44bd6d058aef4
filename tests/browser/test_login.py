"""The form before a page that others can reach, in a browser."""

import pytest
from playwright.sync_api import expect

from studio.jobs.executors.replay import Replay
from studio.ui import app


@pytest.fixture
def served(studio_home, monkeypatch):
    monkeypatch.setenv("STUDIO_PASSWORD", "a good one")
    served = app.serve(port=0, executor=Replay([]))
    yield served
    served.close()


def test_the_password_opens_the_page_and_logging_out_closes_it(page, served):
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(served.url)
    page.get_by_label("Password").fill("a bad one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("This password is wrong")
    page.get_by_label("Password").fill("a good one")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(page.locator("#spec-model-name textarea, #spec-model-name input").first).to_be_visible()
    assert all("401" in each for each in wrong), wrong  # the two answers with the form
    page.get_by_role("link", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(served.url)
    expect(page.get_by_label("Password")).to_be_visible()
