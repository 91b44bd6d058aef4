"""Datasets of the hub, against a stand-in on this machine that speaks as much of the hub's API as is needed."""

import io
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from studio.data import hub
from studio.data.example import Row
from studio.errors import DataError

COMMIT = "a" * 40
LINE = b'{"text": "hello"}\n'


class Hub(BaseHTTPRequestHandler):
    """repos: id -> its files. renamed: an old name -> the id.

    Owners called `gated` refuse without a token, and there is only one revision.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    repos: dict[str, dict[str, bytes]] = {}  # noqa: RUF012
    renamed: dict[str, str] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012
    tokens: set[str] = set()  # noqa: RUF012

    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def do_POST(self):
        self._answer(body=True, posted=self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, *, body: bool, posted: bytes = b""):
        path, _, query = self.path.partition("?")
        Hub.asked.append(path)
        path = next(
            (path.replace(f"/{old}", f"/{new}") for old, new in self.renamed.items() if f"/{old}" in path), path
        )
        Hub.tokens.add(self.headers.get("Authorization", ""))
        if path == "/api/datasets":
            owner = parse_qs(query)["author"][0]
            return self._json([{"id": name} for name in self.repos if name.startswith(f"{owner}/")])
        name = next((each for each in self.repos if f"/{each}/" in f"{path}/"), None)
        if name is None:
            return self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        if name.startswith("gated/") and "Authorization" not in self.headers:
            return self._send(401, b"{}", body, {"X-Error-Code": "GatedRepo"})
        files, rest = self.repos[name], path.partition(f"/{name}")[2]
        kind, _, rest = rest.lstrip("/").partition("/")
        revision, _, inner = rest.partition("/")
        if kind and revision not in ("main", COMMIT):
            return self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
        if kind == "tree":
            return self._json(_listing(files, inner))
        if kind == "paths-info":
            paths = parse_qs(posted.decode())["paths"]
            return self._json([each for path in paths for each in _listing(files, path, itself=True)])
        if kind == "resolve":
            return self._file(files.get(inner), body)
        siblings = [{"rfilename": each, "size": len(data)} for each, data in files.items()]
        return self._json({"id": name, "sha": COMMIT, "siblings": siblings})

    def _file(self, data: bytes | None, body: bool):
        if data is None:
            return self._send(404, b"{}", body, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hash(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if not body or "Range" not in self.headers:
            return self._send(200, data, body, headers)
        start, end = (int(each) for each in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = data[start : end + 1]
        return self._send(
            206, part, body, headers | {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(data)}"}
        )

    def _json(self, value: object):
        self._send(200, json.dumps(value).encode(), True)

    def _send(self, status: int, data: bytes, body: bool, headers: dict[str, str] | None = None):
        self.send_response(status)
        for key, value in (
            {"Content-Length": str(len(data)), "Content-Type": "application/json"} | (headers or {})
        ).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def _listing(files: dict[str, bytes], folder: str, *, itself: bool = False) -> list[dict[str, object]]:
    """The files and folders in a folder, or the one at a path."""
    found: dict[str, dict[str, object]] = {}
    for name, data in files.items():
        if itself and name == folder:
            found[name] = {"type": "file", "path": name, "size": len(data), "oid": "1"}
        elif itself and name.startswith(f"{folder}/"):
            found[folder] = {"type": "directory", "path": folder, "size": 0, "oid": "2"}
        elif not itself and (not folder or name.startswith(f"{folder}/")):
            head, _, more = name[len(folder) + 1 if folder else 0 :].partition("/")
            path = f"{folder}/{head}" if folder else head
            found[path] = {"type": "directory" if more else "file", "path": path, "size": len(data), "oid": path}
    return list(found.values())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The stand-in, with the libraries pointed at it, and at an empty cache."""
    import datasets  # noqa: F401
    from huggingface_hub import HfFileSystem

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address, cache = f"http://127.0.0.1:{server.server_port}", tmp_path_factory.mktemp("cache")
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_TOKEN", raising=False)
        patch.setattr("huggingface_hub.constants.ENDPOINT", address)
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        patch.setattr("datasets.config.HF_ENDPOINT", address)
        patch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
        HfFileSystem.clear_instance_cache()
        yield server
    HfFileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()


Publish = Callable[..., str]
NUMBERS = itertools.count()


@pytest.fixture
def publish(server) -> Publish:
    """Put files on the hub, and return the id of the dataset that they are."""

    def put(files: dict[str, bytes], owner: str = "who") -> str:
        repo = f"{owner}/set{next(NUMBERS)}"
        Hub.repos[repo] = files
        return repo

    Hub.asked.clear()
    Hub.tokens.clear()
    return put


def card(configs: str) -> bytes:
    return f"---\nlicense: mit\nconfigs:\n{configs}\n---\n# About\n".encode()


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def values(repo: str, **how: str) -> list[object]:
    return [row.values for row in hub.rows(repo, **how)]


SUBSETS = {
    "README.md": card(
        "- config_name: en\n  data_files: en/*.jsonl\n- config_name: zh\n  data_files:\n"
        "  - split: train\n    path: zh/a.jsonl\n  - split: test\n    path: zh/b.jsonl"
    ),
    "en/a.jsonl": LINE,
    "zh/a.jsonl": '{"text": "你好"}\n'.encode() * 2,
    "zh/b.jsonl": LINE * 3,
}


# --- Names ---


@pytest.mark.parametrize("name", ["tatsu-lab/alpaca", "wiki_qa", "a/b", "Open-Orca/OpenOrca", "x.y/z_1.2"])
def test_an_owner_and_a_name_or_a_bare_name_is_a_hub_id(name):
    assert hub.checked_id(name) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("https://huggingface.co/datasets/a/b", "is an address. Give the hub id alone"),
        ("hf://datasets/a/b", "is an address"),
        ("huggingface.co/a", "is an address"),
        ("../a", "is a path, not a hub id"),
        ("/etc/passwd", "is a path"),
        ("~/data", "is a path"),
        ("a/b/c", "is a path"),
        ("a\\b", "is a path"),
        ("a/..", "cannot be a hub id"),
        ("a b", "cannot be a hub id"),
        ("a/b;rm", "cannot be a hub id"),
        ("a/b@main", "cannot be a hub id"),
        ("", "cannot be a hub id"),
        ("a/b\n", "cannot be a hub id"),
        ("数据/集", "cannot be a hub id"),
    ],
)
def test_an_address_or_a_path_is_no_hub_id(name, said):
    with pytest.raises(DataError, match=said):
        hub.checked_id(name)


def test_nothing_is_asked_of_the_hub_for_a_name_that_is_refused(publish):
    with pytest.raises(DataError, match="is a path"):
        hub.rows("../../secret")
    with pytest.raises(DataError, match="cannot be a revision"):
        hub.pinned("who/set", "../main")
    assert Hub.asked == []


def test_the_module_loads_without_the_libraries():
    code = "import sys, studio.data.hub; print({'datasets', 'huggingface_hub', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- Rows ---


def test_the_rows_of_a_split_come_in_order_and_numbered(publish):
    repo = publish(
        {"train.jsonl": b"".join(b'{"n": %d, "text": "row"}\n' % n for n in range(200)), "test.jsonl": b'{"n": 7}\n'}
    )
    rows = list(hub.rows(repo))
    assert [row.number for row in rows] == list(range(1, 201))
    assert rows[199] == Row(200, {"n": 199, "text": "row"})
    assert values(repo, split="test") == [{"n": 7, "text": None}]


def test_pinned_is_the_commit_that_rows_then_come_from(publish):
    repo = publish({"train.jsonl": LINE})
    assert hub.pinned(repo) == COMMIT
    assert values(repo, revision=COMMIT) == [{"text": "hello"}]
    files = [path for path in Hub.asked if path.endswith("train.jsonl")]
    assert files and all(COMMIT in path for path in files)


def test_csv_text_and_json_arrays_are_read_too(publish):
    assert values(publish({"train.csv": b"text,label\na,1\n"})) == [{"text": "a", "label": 1}]
    assert values(publish({"train.txt": b"one\ntwo\n"})) == [{"text": "one"}, {"text": "two"}]
    assert values(publish({"train.json": b'[{"a": 1}, {"a": 2}]'})) == [{"a": 1}, {"a": 2}]


def test_dates_and_decimals_become_text_and_bytes_and_missing_numbers_null(publish):
    table = pa.table(
        {
            "day": [date(2026, 1, 2)],
            "at": [datetime(2026, 1, 2, 3, 4)],
            "price": [Decimal("1.50")],
            "took": [timedelta(seconds=5)],
            "blob": [b"x"],
            "score": [float("nan")],
            "nested": [{"days": [date(2026, 1, 3)]}],
        }
    )
    assert values(publish({"train.parquet": parquet(table)})) == [
        {
            "day": "2026-01-02",
            "at": "2026-01-02T03:04:00",
            "price": "1.50",
            "took": "0:00:05",
            "blob": None,
            "score": None,
            "nested": {"days": ["2026-01-03"]},
        }
    ]


def test_class_numbers_become_names_and_pictures_are_never_opened(publish):
    from datasets import ClassLabel, Features, Image, List, Value

    features = Features(
        {
            "text": Value("string"),
            "label": ClassLabel(names=["ham", "spam"]),
            "many": List({"img": Image()}),
            "img": Image(),
        }
    )
    picture = {"bytes": None, "path": "http://127.0.0.1:9/never.png"}
    rows = {"text": ["a", "b"], "label": [1, -1], "many": [[{"img": picture}], []], "img": [picture, None]}
    repo = publish({"train.parquet": parquet(pa.table(rows, schema=features.arrow_schema))})
    assert values(repo) == [
        {"text": "a", "label": "spam", "many": [{"img": None}], "img": None},
        {"text": "b", "label": None, "many": [], "img": None},
    ]


def test_turns_of_mixed_shapes_come_as_they_are_written(publish):
    turns = [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": ["x", 1]}],
        [{"role": "user", "content": "a", "tool_calls": [{"name": {"b": 1}}]}],
    ]
    lines = "".join(json.dumps({"messages": each}) + "\n" for each in turns)
    assert values(publish({"train.jsonl": lines.encode()})) == [{"messages": each} for each in turns]


def test_a_nul_is_a_fault_of_its_row_and_the_others_are_read(publish):
    rows = list(hub.rows(publish({"train.jsonl": b'{"text": "x\\u0000y"}\n' + LINE})))
    assert rows == [Row(1, None, "holds a NUL character. Remove it."), Row(2, {"text": "hello"})]


# --- Subsets, splits, folders ---


def test_several_subsets_with_none_chosen_are_listed(publish):
    with pytest.raises(DataError, match="has several subsets. Choose one of 'en', 'zh'."):
        hub.rows(publish(SUBSETS))


def test_a_chosen_subset_and_split_are_read(publish):
    repo = publish(SUBSETS)
    assert values(repo, subset="en") == [{"text": "hello"}]
    assert values(repo, subset="zh") == [{"text": "你好"}] * 2
    assert values(repo, subset="zh", split="test") == [{"text": "hello"}] * 3


def test_a_subset_marked_as_default_needs_no_choice(publish):
    text = card("- config_name: en\n  data_files: en/*\n- config_name: zh\n  data_files: zh/*\n  default: true")
    assert len(values(publish({**SUBSETS, "README.md": text}))) == 5


def test_a_folder_is_read_in_place_of_a_subset(publish):
    assert len(values(publish(SUBSETS), folder="zh")) == 5


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"subset": "eng"}, "Unknown subset 'eng' of who/set.*Did you mean 'en'?"),
        ({"subset": "zh", "split": "validation"}, "has no split 'validation'. Choose one of 'train', 'test'."),
        ({"subset": "zh", "split": "train[:1]"}, "has no split 'train.:1.'"),
        ({"folder": "../other"}, "'../other' cannot be a folder of"),
        ({"folder": "fr"}, "cannot be read: The directory at .*fr doesn't contain any data files"),
        ({"revision": "v9"}, "has no revision 'v9'. Leave the revision empty for the newest."),
    ],
)
def test_what_is_not_there_is_named_with_what_is(publish, how, said):
    with pytest.raises(DataError, match=said):
        hub.rows(publish(SUBSETS), **how)


def test_a_subset_of_a_dataset_without_any_is_said_to_be_none(publish):
    with pytest.raises(DataError, match="has no subsets, so there is no 'en'. Leave the subset empty."):
        hub.rows(publish({"train.jsonl": LINE}), subset="en")


# --- What is refused ---


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"data.pkl": b"x", "model.bin": b"x"}, r"holds only pickle files and the like \(data.pkl, model.bin\)"),
        (
            {"set.py": b"print()", "dataset_infos.json": b"{}"},
            r"needs a loading script \(set.py\), which is code, and is refused",
        ),
        ({"README.md": b"# Nothing"}, "holds no file of rows. Read here are: .json, .jsonl"),
        ({"train.tar": b"x" * 1024, "note.txt": b"x"}, "would be read as webdataset, which is not read here"),
        ({"train/a.png": b"x", "metadata.jsonl": b'{"file_name": "train/a.png"}\n'}, "would be read as imagefolder"),
        ({"README.md": b"---\na: [b: c\n---\n", "a.jsonl": LINE}, "README.md of .* has a head that is not valid YAML"),
    ],
)
def test_what_is_not_rows_is_refused_by_name(publish, files, said):
    with pytest.raises(DataError, match=said):
        hub.rows(publish(files))


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.1:9/secret.jsonl",
        "/etc/passwd",
        "../../other/set/resolve/main/a.jsonl",
        "zip://a.jsonl::http://127.0.0.1:9/a.zip",
        "~/secret.txt",
        "C:/secret.txt",
    ],
)
@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
def test_f23_a_card_that_takes_rows_from_elsewhere_is_refused(publish, name, place):
    text = f"configs:\n- config_name: a\n  data_files:\n  - split: train\n    path: [a.txt, '{place}']"
    files = {name: f"---\n{text}\n---\n".encode() if name == "README.md" else text.encode(), "a.txt": b"x\n"}
    with pytest.raises(DataError, match="takes rows from outside of it: '.*'. This is refused."):
        hub.rows(publish(files))


def test_f20_rows_that_unfold_to_far_more_than_the_files_hold_are_refused(publish, monkeypatch):
    monkeypatch.setattr(hub, "MIN_UNFOLDED_BYTES", 1_000_000)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array(["x" * 50_000]))
    data = parquet(pa.table({"text": column}))
    assert len(data) < 5000
    rows = hub.rows(publish({"train.parquet": data}))
    with pytest.raises(DataError, match="unfolds to more than 0 MiB, far more than its files hold. It is refused."):
        list(rows)


def test_rows_before_a_broken_file_are_given_and_then_it_is_said(publish):
    good = parquet(pa.table({"a": ["x"] * hub.BATCH_ROWS}))
    repo = publish({"train-0.parquet": good, "train-1.parquet": b"PAR1" + b"x" * 50})
    rows = hub.rows(repo)
    assert [next(rows).values for _ in range(hub.BATCH_ROWS)] == [{"a": "x"}] * hub.BATCH_ROWS
    with pytest.raises(DataError, match=f"{repo} cannot be read beyond row {hub.BATCH_ROWS}: .*Download its files"):
        next(rows)


def test_a_file_with_other_columns_says_which_columns_differ(publish):
    tables = [pa.table({"a": ["x"]}), pa.table({"b": [1]})]
    repo = publish({f"train-{n}.parquet": parquet(table) for n, table in enumerate(tables)})
    with pytest.raises(DataError, match="cannot be read beyond row 0: Couldn't cast b: int64 to .*column names"):
        list(hub.rows(repo))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "A file of it is empty: 0 rows."),
        (b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}\n", "A row of it is nested too deeply."),
        (b'{"text": "a"\n' + LINE, "cannot be read beyond row 0: JSON parse error"),
    ],
)
def test_files_that_make_the_library_stumble_are_one_clear_line(publish, data, said):
    with pytest.raises(DataError, match=said) as caught:
        list(hub.rows(publish({"train.jsonl": data})))
    assert "\n" not in str(caught.value)


# --- The hub itself ---


def test_a_misspelt_name_is_told_with_the_nearest_of_its_owner(publish):
    repo = publish({"train.jsonl": LINE}, owner="someone")
    with pytest.raises(DataError, match=f"has no dataset someone/st.* or it is private. Did you mean '{repo}'?"):
        hub.rows(repo.replace("set", "st"))


def test_a_gated_dataset_says_to_set_a_token_and_the_environment_is_the_only_place_of_it(publish, monkeypatch):
    repo = publish({"train.jsonl": LINE}, owner="gated")
    with pytest.raises(DataError, match="is gated: accept its terms on the hub, set HF_TOKEN in the environment"):
        hub.pinned(repo)
    assert Hub.tokens == {""}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert values(repo) == [{"text": "hello"}]
    assert "Bearer hf_secret" in Hub.tokens


def test_a_folder_here_of_the_same_name_is_not_taken_for_the_dataset(publish, tmp_path, monkeypatch):
    repo = publish({"train.jsonl": LINE})
    (tmp_path / repo).mkdir(parents=True)
    (tmp_path / repo / "train.jsonl").write_text('{"text": "mine"}\n')
    monkeypatch.chdir(tmp_path)
    assert values(repo) == [{"text": "hello"}]


def test_a_bare_name_without_an_owner_does_not_read_the_files_here(server, tmp_path, monkeypatch):
    monkeypatch.setitem(Hub.repos, "json", {"train.jsonl": LINE})
    (tmp_path / "train.jsonl").write_text('{"text": "mine"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="'json' names no owner. Give the id of the dataset as owner/name."):
        hub.rows("json")


def test_an_old_name_leads_to_the_new_one(publish, monkeypatch):
    repo = publish({"train.jsonl": LINE})
    monkeypatch.setitem(Hub.renamed, "old_set", repo)
    assert hub.pinned("old_set") == COMMIT
    assert values("old_set") == [{"text": "hello"}]


def test_offline_by_choice_is_said_as_such(publish, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set. Unset it, or choose files of this machine."):
        hub.rows("who/set")


def test_an_unreachable_hub_is_one_clear_line(publish, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="who/set cannot be fetched: the hub cannot be reached") as caught:
        hub.rows("who/set")
    assert "\n" not in str(caught.value)
