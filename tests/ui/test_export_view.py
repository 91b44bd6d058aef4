from dataclasses import replace

import pytest

from studio import specs
from studio.jobs.monitor import JobView
from studio.ui import export_view
from tests.examples import finished_run

VIEW = JobView("x", "export", "x", 0.0)


def exported(run, **fields):
    return replace(VIEW, spec=specs.ExportSpec(run=run, **fields).model_dump(mode="json"))


@pytest.mark.parametrize("fields", [{"format": "merged"}, {"format": "adapter"}])
def test_the_snippet_is_python_of_at_most_five_lines_even_with_an_odd_path(studio_home, fields):
    path = '/models/it\'s "mine"\\'
    text = export_view.snippet(exported(finished_run().id, **fields), path)
    compile(text, "snippet", "exec")
    assert repr(path) in text
    assert len(text.splitlines()) <= 5


def test_an_adapter_is_loaded_on_its_own_base(studio_home):
    run = finished_run(sets=["model.name=owner/base"]).id
    assert "from_pretrained('owner/base')" in export_view.snippet(exported(run, format="adapter"), "/a")


def test_the_bundled_base_is_named_by_its_folder(studio_home):
    text = export_view.snippet(exported(finished_run().id, format="adapter"), "/a")
    assert str(studio_home.resolve() / "models" / specs.BUNDLED_MODEL) in text


def test_files_are_listed_with_sizes_and_escaped(tmp_path):
    (tmp_path / "a<b>.json").write_text("x" * 2048)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "z").write_text("")
    markup = export_view.files(str(tmp_path), "en")
    assert "2 files, 2.0 KiB" in markup
    assert "a&lt;b&gt;.json" in markup and "sub/z" in markup


def test_a_folder_that_was_removed_is_said_to_be_gone(tmp_path):
    assert "not there any more" in export_view.files(str(tmp_path / "gone"), "en")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (270 * 1024**2, "270.0 MiB")]
)
def test_sizes_have_units(count, text):
    assert export_view.size(count) == text
