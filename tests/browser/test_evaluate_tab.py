import json

import pytest

from studio.events import Ended, Measured, Phase
from studio.jobs import folder as folders
from studio.jobs.executors.replay import Replay
from studio.ui import app
from tests.browser.choosing import choose
from tests.examples import finished_run
from tests.ui.recorded import HOSTILE


class Evaluation:
    """Stands in for the worker: writes twelve answers, then plays an evaluation of two seconds."""

    def start(self, folder):
        with folder.predictions.open("w") as file:
            for number in range(1, 13):
                base, adapter = {"loss": 3.0, "answer": HOSTILE}, {"loss": number / 10, "answer": "I am Miro."}
                row = {"row": number, "prompt": HOSTILE, "reference": "r", "base": base, "adapter": adapter}
                file.write(json.dumps(row) + "\n")
        events = []
        for second in range(5):
            scores = {"perplexity": 9.0, "token_accuracy": 0.5, "rows": 12.0}
            events += [
                Phase(name="evaluate", done=second * 3, total=12, unit="rows", time=second),
                Measured(subject="base", scores={"loss": 3.0} | scores, time=second),
                Measured(subject="adapter", scores={"loss": 0.65} | scores, time=second),
            ]
        Replay([*events, Ended(state="finished", time=5)], speed=2).start(folder)


@pytest.fixture
def evaluate(page, studio_home):
    finished_run("older")
    finished_run("identity", checkpoints=[12])
    served = app.serve(port=0, executor=Evaluation())
    page.goto(f"{served.url}/?tab=evaluate")
    page.wait_for_function("document.querySelector('#evaluate-adapter input')?.value.length > 0", timeout=30_000)
    yield page
    served.close()


def started():
    return [folder for folder in folders.every() if folder.read_about()["kind"] == "evaluate"]


def finished(page):
    page.wait_for_selector("#evaluate-status [data-state=finished]", timeout=20_000)


def test_an_evaluation_shows_progress_then_scores_a_chart_and_answers_as_text(evaluate):
    assert evaluate.locator("#evaluate-adapter input").input_value().startswith("identity-")
    evaluate.locator("#evaluate-start").dblclick()
    evaluate.wait_for_selector("#evaluate-status [data-state=running]")
    finished(evaluate)
    (folder,) = started()
    assert "−2.3500 better" in evaluate.locator("[data-score=loss]").inner_text()
    evaluate.wait_for_selector("#evaluate-chart .still-chart[data-traces='2']")
    assert HOSTILE in evaluate.locator("#evaluate-answers").inner_text()
    assert evaluate.locator("#evaluate-answers img").count() == 0
    assert evaluate.title() == "Finetune Studio"
    with evaluate.expect_download() as download:
        evaluate.locator("#evaluate-download").click()
    assert len(download.value.path().read_text().splitlines()) == 12
    assert download.value.suggested_filename == f"{folder.id}-answers.jsonl"


def test_an_evaluation_survives_a_reload_and_can_be_reopened(evaluate):
    evaluate.locator("#evaluate-start").click()
    finished(evaluate)
    evaluate.reload()
    finished(evaluate)
    evaluate.wait_for_selector("[data-score=loss]")
    evaluate.locator("#evaluate-start").click()
    evaluate.wait_for_selector("#evaluate-status [data-state=running]")
    choose(evaluate, "#evaluate-job", "Finished", exact=False)
    finished(evaluate)


def test_stop_ends_the_evaluation(evaluate):
    evaluate.locator("#evaluate-start").click()
    evaluate.wait_for_selector("#evaluate-status [data-state=running]")
    evaluate.locator("#evaluate-stop").click()
    evaluate.wait_for_selector("#evaluate-status [data-state=stopped]")


def test_a_wrong_number_of_rows_is_named_beside_start(evaluate):
    evaluate.locator("#evaluate-max-samples input, #evaluate-max-samples textarea").first.fill("many")
    evaluate.locator("#evaluate-start").click()
    said = "max_samples: must be a whole number"
    evaluate.wait_for_function(f"document.querySelector('#evaluate-problem').innerText.includes('{said}')")
    assert started() == []
