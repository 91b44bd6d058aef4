import pytest

from studio import hardware
from studio.jobs import folder as folders
from studio.jobs import queue
from studio.jobs.executors.replay import Replay
from studio.ui import app
from tests.browser.choosing import choose
from tests.examples import finished_run
from tests.ui.recorded import recorded


@pytest.fixture
def served(studio_home, request):
    served = app.serve(port=0, executor=Replay(recorded(getattr(request, "param", 400)), speed=6))
    yield served
    served.close()


@pytest.fixture
def train(page, served):
    page.goto(f"{served.url}/?tab=train")
    page.wait_for_selector("#train-start", timeout=30_000)
    page.wait_for_function("document.querySelector('#train-machine').innerText.length > 20")
    return page


def state_is(page, state):
    page.wait_for_selector(f"#train-status [data-state={state}]", timeout=20_000)


def points_above(page, count):
    page.wait_for_function(f"Number(document.querySelector('.live-chart').dataset.points ?? 0) > {count}")
    return int(page.locator(".live-chart").get_attribute("data-points"))


def runs():
    return [folder.id for folder in folders.every()]


def command_has(page, words):
    page.wait_for_function(f"document.querySelector('#train-command textarea').value.includes('{words}')")


def choose_dataset(page, name):
    choose(page, "#spec-data-datasets", name, exact=False)
    page.keyboard.press("Escape")


@pytest.mark.parametrize("served", [4000], indirect=True)  # long enough to live through a reload on a busy machine
def test_a_run_grows_survives_a_reload_stops_and_resumes(train):
    train.locator("#train-try").click()
    first = points_above(train, 5)
    assert points_above(train, first) > first
    (run,) = runs()
    assert f"run={run}" in train.url
    train.reload()
    state_is(train, "running")
    assert points_above(train, 5) > 5
    train.locator("#train-stop").click()
    state_is(train, "stopped")
    train.locator("#train-resume").click()
    state_is(train, "running")
    assert runs() == [run]
    train.locator("#train-stop").click()
    state_is(train, "stopped")


def test_a_double_click_on_start_makes_one_run(train):
    choose_dataset(train, "identity-en")
    train.locator("#train-start").dblclick()
    state_is(train, "running")
    train.wait_for_timeout(1000)
    assert len(runs()) == 1


def test_a_wrong_learning_rate_is_named_while_it_is_typed_and_at_start(train):
    choose_dataset(train, "identity-en")
    train.locator("#spec-training-learning_rate input").fill("-1")
    said = "Learning rate (training.learning_rate): must be above"
    train.wait_for_function(f"document.querySelector('#train-problem').innerText.startsWith('{said}')")
    train.locator("#train-start").click()
    toast = train.locator(".toast-body")
    toast.wait_for()
    assert said in toast.inner_text()
    assert runs() == []


def test_starting_without_a_dataset_says_so(train):
    train.locator("#train-start").click()
    train.wait_for_function("document.querySelector('#train-problem').innerText.includes('Choose at least one')")


def test_yaml_fills_the_form_and_the_form_fills_yaml_and_command(train):
    train.locator("#train-yaml-fold > button").click()
    train.locator("#train-yaml textarea").fill(
        "training: {max_steps: 7}\ndata: {datasets: [identity-zh]}\nevaluation: {prompts: [folded]}"
    )
    train.locator("#train-load-yaml").click()
    command_has(train, "max_steps=7")
    command_has(train, "folded")
    assert train.locator("#spec-training-max_steps :is(textarea, input)").input_value() == "7"
    train.locator("#spec-training-batch_size input").fill("2")
    command_has(train, "batch_size=2")
    assert "identity-zh" in train.locator("#train-yaml textarea").input_value()


def count_says(page, words):
    page.wait_for_function(f"document.querySelector('#train-count').innerText.includes('{words}')")


def test_a_method_and_a_stage_bring_their_own_fields_and_the_count_follows(train):
    train.locator("#train-yaml-fold > button").click()
    count_says(train, "4.88 M of 139 M parameters train (3.5 %), 19.5 MB on disk")
    choose(train, "#spec-method-kind", "Full fine-tuning")
    count_says(train, "100 %")
    assert train.locator("#spec-method-rank").count() == 0
    assert train.locator("#spec-quantization-kind input").input_value() == "none"
    assert "Quantisation was set to none for it." in train.locator("#train-method").inner_text()
    choose(train, "#spec-method-kind", "VeRA")
    train.wait_for_selector("#spec-method-rank")
    assert train.locator("#spec-method-rank input").input_value() == "256"
    train.wait_for_function("document.querySelector('#spec-quantization-kind input').value === 'nf4'")
    choose(train, "#spec-stage-kind", "Preferences (DPO)")
    train.wait_for_selector("#spec-stage-loss")
    train.locator("#spec-stage-beta input").fill("0.3")
    command_has(train, "stage.beta=0.3")
    command_has(train, "method.kind=vera")
    assert "Direct preference optimisation" in train.locator("#train-stage").inner_text()


def test_zoom_is_kept_while_the_curve_grows(train):
    train.locator("#train-try").click()
    before = points_above(train, 5)
    train.evaluate("Plotly.relayout(document.querySelector('.live-chart'), {'xaxis.range': [2, 9]})")
    points_above(train, before + 10)
    assert train.evaluate("document.querySelector('.live-chart').layout.xaxis.range") == [2, 9]
    train.select_option(".chart-bar select", label="Perplexity")
    train.wait_for_selector(".live-chart[data-figure=perplexity]")
    assert train.evaluate("document.querySelector('.live-chart').layout.xaxis.range") == [2, 9]


def test_text_from_a_run_is_shown_and_never_run(train):
    train.locator("#train-try").click()
    train.wait_for_function("document.querySelector('#train-samples').innerText.includes('<img src=x')")
    assert "**bold**" in train.locator("#train-notes").inner_text()
    assert train.title() == "Finetune Studio"
    assert train.locator("#train-samples img, #train-notes img").count() == 0
    train.select_option("#train-samples select", label="Step 100", timeout=20_000)
    shown = "[...document.querySelectorAll('#train-samples tr[data-step]:not([hidden])')].map(row => row.dataset.step)"
    assert train.evaluate(shown) == ["100"]
    train.wait_for_selector("#train-samples option[value='300']", state="attached", timeout=20_000)
    assert train.evaluate(shown) == ["100"]
    train.get_by_role("button", name="Later").click()
    assert train.evaluate(shown) == ["200"]


@pytest.mark.parametrize("served", [4000], indirect=True)
def test_a_second_run_waits_is_moved_up_and_taken_out(train):
    train.locator("#train-try").click()
    state_is(train, "running")
    for size in (2, 3):  # another spec is another run
        known = runs()
        train.locator("#spec-training-batch_size input").fill(str(size))
        train.keyboard.press("Tab")
        train.locator("#train-start").click()
        train.wait_for_function("(known) => !known.includes(new URL(location).searchParams.get('run'))", arg=known)
        state_is(train, "queued")
    doing = train.locator("#train-status .doing")
    assert "Place 2 in the queue" in doing.inner_text()
    train.locator("#train-sooner").click()
    train.wait_for_function("document.querySelector('#train-status .doing').innerText.includes('Place 1')")
    assert not train.locator("#train-sooner").is_visible()
    train.locator("#train-stop").click()
    state_is(train, "stopped")
    assert len(queue.waiting()) == 1


def test_the_run_of_the_address_is_shown_though_a_newer_one_exists(page, studio_home):
    older, newer = finished_run("older"), finished_run("newer")
    served = app.serve(port=0)
    page.goto(f"{served.url}/?tab=train&run={older.id}")
    page.wait_for_function(f"document.querySelector('.live-chart')?.dataset.run === '{older.id}'")
    page.wait_for_timeout(1000)  # longer than the other answers take that come while the page opens
    assert page.locator(".live-chart").get_attribute("data-run") == older.id != newer.id
    served.close()


def test_runs_are_compared_in_one_chart(train):
    train.locator("#train-try").click()
    points_above(train, 5)
    train.locator("#train-compare-fold > button").click()
    choose(train, "#train-compare", runs()[0], exact=False)
    train.wait_for_selector("#train-comparison .still-chart[data-traces]", timeout=10_000)


@pytest.fixture
def roomy(monkeypatch):
    """A machine with 8 GiB of free memory, whatever else runs on it."""
    monkeypatch.setattr(hardware, "free_bytes", lambda machine: 8 * hardware.GIB)


def test_what_a_run_needs_follows_the_form_and_a_change_makes_it_fit(roomy, train):
    verdict = "document.querySelector('#train-fit [data-verdict]')?.dataset.verdict"
    train.locator("#train-yaml-fold > button").click()
    # noise on embeddings takes trl's step, whose memory grows with the batch
    train.locator("#train-yaml textarea").fill(
        "stage: {neftune_noise_alpha: 5}\ntraining: {batch_size: 1, accumulation: 2}\ndata: {max_length: 256}"
    )
    train.locator("#train-load-yaml").click()
    command_has(train, "neftune_noise_alpha=5")
    train.wait_for_function(f"{verdict} === 'fits'")
    assert not train.locator("#train-fit-apply").is_visible()
    top = train.locator("#train-start").bounding_box()["height"]
    train.locator("#spec-training-batch_size input").fill("4096")
    train.wait_for_function(f"{verdict} === 'does_not_fit'")
    assert "Batch size to" in train.locator("#train-fit-advice").inner_text()
    assert train.locator("#train-start").bounding_box()["height"] == top
    train.locator("#train-fit-apply").click()
    train.wait_for_function(f"{verdict} === 'fits'")
    size = int(train.locator("#spec-training-batch_size input").input_value())
    assert size * int(train.locator("#spec-training-accumulation input").input_value()) == 4096 * 2
