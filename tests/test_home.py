"""Names and places on disk."""

import os

import pytest

from studio.errors import StudioError, unknown
from studio.home import CHECKOUT, checked_name, home


def test_the_home_is_workspace_in_the_checkout_unless_it_is_set(monkeypatch, tmp_path):
    monkeypatch.delenv("STUDIO_HOME", raising=False)
    assert home().path == CHECKOUT / "workspace"
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "mine"))
    assert home().jobs == tmp_path / "mine" / "jobs" and home().jobs.is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_f54_a_read_only_home_says_what_to_set(monkeypatch, tmp_path):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "mine"))
    with pytest.raises(StudioError, match="Set STUDIO_HOME"):
        _ = home().jobs


def test_a_home_that_is_a_file_says_what_to_set(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "file"))
    with pytest.raises(StudioError, match="Set STUDIO_HOME"):
        _ = home().jobs


@pytest.mark.parametrize("name", ["a", "Run-1", "x.y_z", "0" * 64])
def test_names_that_are_safe_everywhere_are_kept(name):
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["../x", "a;rm -rf", "-x", "CON", "con.txt", "LPT1", "0" * 65, "", ".", "a.", "名字", "a\u202eb", "a b", None],
)
def test_f22_names_that_are_not_are_refused(name):
    with pytest.raises(StudioError, match="letters, digits"):
        checked_name(name)


def test_the_nearest_name_is_suggested():
    assert unknown("template", "alpacca", ["alpaca", "chatml"]) == "Unknown template 'alpacca'. Did you mean 'alpaca'?"
    assert "Known: alpaca, chatml." in unknown("template", "zzz", ["chatml", "alpaca"])
    assert "Known: none." in unknown("job", "x", [])
