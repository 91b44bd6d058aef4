import pytest

from studio.events import Ended, Note, Phase
from studio.jobs import folder as folders
from studio.jobs.executors.replay import Replay
from studio.ui import app
from tests.examples import finished_run


class Export:
    """Stands in for the worker: makes a small folder and tells an export of a second."""

    def start(self, folder):
        target = folders.export_target(folder.read_spec())
        target.mkdir(parents=True)
        (target / "model.safetensors").write_bytes(bytes(3 * 1024**2))
        events = [Phase(name=name, time=when) for when, name in enumerate(("load", "merge", "write", "check"))]
        note = Note(text="Merged into the full-precision base.", time=4)
        Replay([*events, note, Ended(state="finished", path=str(target), time=4)], speed=2).start(folder)


@pytest.fixture
def export(page, studio_home):
    finished_run("identity", checkpoints=[12])
    served = app.serve(port=0, executor=Export())
    page.goto(f"{served.url}/?tab=export")
    page.wait_for_function("document.querySelector('#export-adapter input')?.value.length > 0", timeout=30_000)
    yield page
    served.close()


def finished(page):
    page.wait_for_selector("#export-status [data-state=finished]", timeout=20_000)


def test_an_export_ends_with_its_folder_its_files_and_how_to_load_it(export, studio_home):
    default = export.locator("#export-out textarea, #export-out input").first.get_attribute("placeholder")
    assert default.startswith(str(studio_home.resolve() / "exports" / "identity-")) and default.endswith("-merged-bf16")
    export.locator("#export-start").click()
    export.wait_for_selector("#export-status [data-state=running]")
    finished(export)
    assert export.locator("#export-folder textarea, #export-folder input").first.input_value() == default
    assert default in export.locator("#export-snippet textarea").input_value()
    assert "model.safetensors" in export.locator("#export-files").inner_text()
    assert "3.0 MiB" in export.locator("#export-files").inner_text()
    assert "full-precision base" in export.locator("#export-status").inner_text()


def test_a_target_that_exists_is_refused_beside_start(export):
    export.locator("#export-start").click()
    finished(export)
    export.locator("#export-start").click()
    export.wait_for_function("document.querySelector('#export-problem').innerText.includes('exists already')")


def test_the_precision_matters_only_to_merged_weights(export):
    assert export.locator("#export-dtype").is_visible()
    export.get_by_label("adapter", exact=True).check()
    export.wait_for_selector("#export-dtype", state="hidden")
    export.wait_for_function(
        "[...document.querySelectorAll('#export-out textarea, #export-out input')][0].placeholder.endsWith('-adapter')"
    )
