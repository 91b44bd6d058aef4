import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio.engine.models import resolve
from studio.errors import ModelError

CONFIG = {"model_type": "llama", "hidden_size": 8, "_name_or_path": "a", "transformers_version": "5.23.0"}


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {f"model.layers.{n}.weight": draw.standard_normal((64, 64), dtype=np.float32) for n in range(16)}


def make_model(folder: Path, *, seed: int = 0, config: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    save_file(weights(seed), folder / "model.safetensors")
    return folder


def ask(name, **seams) -> Path:
    return resolve.resolve(str(name), progress=lambda *_: None, **seams)


def test_a_whole_folder_is_accepted(tmp_path):
    folder = make_model(tmp_path / "m")
    assert ask(folder) == folder
    assert resolve.peek(str(folder)) == resolve.Peek(True, str(folder), "folder")


def test_a_relative_path_is_a_folder(tmp_path, monkeypatch):
    folder = make_model(tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    assert ask("models/mine") == ask("./models/mine") == folder


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"There is no model folder .*nowhere"):
        ask(tmp_path / "nowhere")
    assert resolve.peek(str(tmp_path / "nowhere")) == resolve.Peek(False, "", "folder")


def test_all_faults_of_a_folder_come_together(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(ModelError) as caught:
        ask(tmp_path / "m")
    for word in ("config.json is missing", "tokenizer.json is missing", "no model.safetensors"):
        assert word in str(caught.value)


def test_pickled_weights_are_refused_with_the_way_out(tmp_path):
    folder = make_model(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickle files \(pytorch_model\.bin\).*save_pretrained"):
        ask(folder)


def shard(folder: Path) -> None:
    """Split the weights over two files with an index."""
    (folder / "model.safetensors").unlink()
    names = sorted(weights())
    files = {"a.safetensors": names[:8], "b.safetensors": names[8:]}
    for file, chosen in files.items():
        save_file({name: weights()[name] for name in chosen}, folder / file)
    places = {name: file for file, chosen in files.items() for name in chosen}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_a_missing_shard_is_named(tmp_path):
    folder = make_model(tmp_path / "m")
    shard(folder)
    assert ask(folder) == folder
    (folder / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"index\.json are missing: b\.safetensors"):
        ask(folder)


def test_an_index_that_points_out_of_the_folder_is_refused(tmp_path):
    folder = make_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../other/model.safetensors"}}')
    with pytest.raises(ModelError, match="no usable weight_map"):
        ask(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_weights_that_are_cut_short_are_named(tmp_path, kept):
    folder = make_model(tmp_path / "m")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged or cut short"):
        ask(folder)


def test_a_model_with_its_own_code_is_refused(tmp_path):
    own = {"model_type": "my_very_own", "auto_map": {"AutoConfig": "configuration.Mine"}}
    with pytest.raises(ModelError, match=r"auto_map.*'my_very_own'"):
        ask(make_model(tmp_path / "m", config=own))


def test_own_code_that_transformers_does_not_need_is_left_aside(tmp_path):
    known = {"model_type": "llama", "auto_map": {"AutoConfig": "configuration.Mine"}}
    folder = make_model(tmp_path / "m", config=known)
    assert ask(folder) == folder


def test_an_adapter_is_no_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter, not a base model"):
        ask(tmp_path)


def test_a_near_miss_of_the_bundled_name_is_told():
    with pytest.raises(ModelError, match="Did you mean 'smollm2-135m-instruct'"):
        ask("smollm2-135m-instuct")


def test_a_folder_named_without_a_slash_is_hinted_at(tmp_path, monkeypatch):
    make_model(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"write \./mine"):
        ask("mine")


def test_a_hub_id_is_downloaded_and_then_checked(tmp_path):
    folder = make_model(tmp_path / "snapshot")
    assert ask("owner/name", download=lambda name, revision, progress: str(folder)) == folder
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"The model owner/name cannot be used.*tokenizer\.json is missing"):
        ask("owner/name", download=lambda name, revision, progress: str(folder))


def test_identity_ignores_where_a_base_came_from(tmp_path):
    moved = CONFIG | {"_name_or_path": "elsewhere", "transformers_version": "6.0"}
    first, second = make_model(tmp_path / "a"), make_model(tmp_path / "b", config=moved)
    assert resolve.identity(first) == resolve.identity(second)


def test_identity_differs_for_another_base_of_the_same_shape(tmp_path):
    assert resolve.identity(make_model(tmp_path / "a")) != resolve.identity(make_model(tmp_path / "b", seed=1))


def test_identity_differs_when_the_last_tensor_alone_differs(tmp_path):
    first, second = make_model(tmp_path / "a"), make_model(tmp_path / "b")
    tensors = weights()
    tensors[max(tensors)] += 1
    save_file(tensors, second / "model.safetensors")
    assert resolve.identity(first) != resolve.identity(second)


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download asks for: one open model, one gated, none else."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        commit = "0" * 40
        path = self.path.split("?")[0]
        type(self).asked.append(path)
        if "/who/open" in path and "/revision/" in path:
            names = [{"rfilename": name} for name in FILES]
            return self._send(200, json.dumps({"id": "who/open", "sha": commit, "siblings": names}).encode(), body)
        if "/who/open/tree" in path:
            tree = [{"type": "file", "path": name, "size": len(text), "oid": "1"} for name, text in FILES.items()]
            return self._send(200, json.dumps(tree).encode(), body)
        if "/who/open/resolve" in path:
            text = FILES[path.split(f"/{commit}/")[1]]
            return self._send(200, text, body, {"ETag": '"abc"', "X-Repo-Commit": commit})
        code = "GatedRepo" if "/who/gated" in path else "RepoNotFound"
        return self._send(403 if code == "GatedRepo" else 404, b"{}", body, {"X-Error-Code": code})

    def _send(self, status: int, text: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (
            {"Content-Length": str(len(text)), "Content-Type": "application/json"} | (headers or {})
        ).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(text)

    def log_message(self, *_):
        pass


FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": b"w" * 5000,
    "pytorch_model.bin": b"pickle",
    "modeling_mine.py": b"print()",
    "onnx/model.safetensors": b"other layout",
}


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_download_takes_no_pickle_no_code_and_nothing_twice(hub, tmp_path):
    told = []
    folder = resolve._snapshot(
        "who/open", None, lambda *progress: told.append(progress), endpoint=hub, cache_dir=str(tmp_path)
    )
    names = {path.name for path in Path(folder).rglob("*") if path.is_file()}
    assert names == {"config.json", "tokenizer.json", "model.safetensors"}
    assert not any("onnx" in path for path in Hub.asked)
    assert told and told[-1][0] == "download"


@pytest.mark.parametrize(("name", "said"), [("who/gated", "is gated"), ("who/none", "The hub has no model who/none")])
def test_what_the_hub_refuses_is_said_with_the_bundled_model_as_the_way_out(hub, tmp_path, name, said):
    with pytest.raises(ModelError, match=f"{said}.*smollm2-135m-instruct needs no hub"):
        resolve._snapshot(name, None, lambda *_: None, endpoint=hub, cache_dir=str(tmp_path))


def test_an_unreachable_hub_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match="the hub cannot be reached") as caught:
        resolve._snapshot("who/open", None, lambda *_: None, endpoint="http://127.0.0.1:9", cache_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_offline_by_choice_is_said_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="not in the cache, and HF_HUB_OFFLINE forbids a download"):
        resolve._snapshot("who/open", None, lambda *_: None, cache_dir=str(tmp_path))
