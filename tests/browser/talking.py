"""Talking on the Chat tab, as its tests and the whole click path do. Not here: any test."""

from playwright.sync_api import TimeoutError as PlaywrightTimeout


def whole(page):
    """Wait until both answers are."""
    page.wait_for_function(
        "['left', 'right'].every(side => document.querySelector(`#chat-${side}-figures [data-answer=done]`))"
    )


def until_sent(page, questions, press):
    """Press until the question is there: while the last handler is still ending, a press is passed over."""
    for _ in range(10):
        press()
        try:
            page.wait_for_function(
                f"document.querySelectorAll('#chat-right .user').length === {questions}", timeout=2000
            )
            return
        except PlaywrightTimeout:
            continue
    raise AssertionError("the question was never sent")
