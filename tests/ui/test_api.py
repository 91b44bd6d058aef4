import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from studio.jobs.executors.replay import Replay
from studio.ui import app
from tests.ui.recorded import recorded


@pytest.fixture
def client(studio_home):
    served = app.serve(port=0, executor=Replay(recorded(2000), speed=10))
    yield Client(served.url, verbose=False, download_files=str(studio_home))
    served.close()


def test_a_script_can_start_watch_and_stop_a_run(client):
    started = client.predict("data: {datasets: [identity-en]}", api_name="/start_training")
    assert started["kind"] == "train"
    assert [job["id"] for job in client.predict(api_name="/list_jobs")] == [started["id"]]
    details = client.predict(started["id"], api_name="/job")
    assert details["spec"]["data"]["datasets"] == ["identity-en"]
    assert client.predict(started["id"], api_name="/stop_job")["id"] == started["id"]


def test_a_wrong_spec_is_told_with_its_path(client):
    with pytest.raises(AppError, match=r"training\.learning_rate: must be above"):
        client.predict("training: {learning_rate: -1}", api_name="/start_training")


def test_an_unknown_job_is_told(client):
    with pytest.raises(AppError, match="Unknown job"):
        client.predict("nothing-here", api_name="/job")


def test_the_shipped_datasets_are_listed(client):
    assert "identity-en" in {dataset["name"] for dataset in client.predict(api_name="/list_datasets")}
