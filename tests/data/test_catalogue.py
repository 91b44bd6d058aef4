"""LLaMA-Factory's dataset_info.json: what its entries mean here, what stands in their way, and its faults of shape."""

import json
from pathlib import Path

import pytest

from studio.data import catalogue, formats
from studio.data.catalogue import Entry
from studio.errors import DataError
from studio.home import SHIPPED_DATA

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
published = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the published sets lie in a folder `shared` beside the checkout, which is not there"
)

ROLE_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


@pytest.fixture
def described(tmp_path):
    """Write a description of entries, and a file of rows, and read it."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.json").write_text("[]")

    def read(entries: object) -> list[Entry]:
        text = entries if isinstance(entries, str) else json.dumps(entries, ensure_ascii=False)
        (folder / "dataset_info.json").write_text(text, encoding="utf-8")
        return catalogue.read(folder)

    read.folder = folder
    return read


@pytest.fixture
def only(described):
    """The one entry of a description that has these keys beside its file."""

    def read(**keys: object) -> Entry:
        return described({"x": {"file_name": "rows.json", **keys}})[0]

    read.folder = described.folder
    return read


# --- The shipped description ---


def test_the_shipped_description_means_what_it_says():
    listing = json.loads((SHIPPED_DATA / "dataset_info.json").read_text(encoding="utf-8"))
    entries = catalogue.read(SHIPPED_DATA)
    assert [entry.name for entry in entries] == list(listing)
    for entry, values in zip(entries, listing.values(), strict=True):
        ours = dict(values["studio"])
        assert entry.format == ours.pop("format", values["formatting"])
        assert (entry.tags, entry.about) == (values.get("tags", {}), ours)
        # under our names for their parts, and with those that a layout usually has
        assert set(entry.columns.values()) >= set(values["columns"].values())
        assert entry.file == SHIPPED_DATA / values["file_name"]
        assert entry.problem == catalogue.sha1_problem(entry) == ""


def test_the_file_itself_can_be_named_instead_of_its_folder():
    assert catalogue.read(SHIPPED_DATA / "dataset_info.json") == catalogue.read(SHIPPED_DATA)


# --- What an entry means ---

MEANINGS = {
    "nothing but a file": ({}, "alpaca", {"prompt": "instruction", "query": "input", "response": "output"}),
    "some columns": (
        {"columns": {"prompt": "question", "system": "role", "history": "before"}},
        "alpaca",
        {"prompt": "question", "query": "input", "response": "output", "history": "before", "system": "role"},
    ),
    "a column of none": (
        {"columns": {"response": "answer", "query": None}},
        "alpaca",
        {"prompt": "instruction", "response": "answer"},
    ),
    "an empty column": ({"columns": {"query": ""}}, "alpaca", {"prompt": "instruction", "response": "output"}),
    "plain text": ({"columns": {"prompt": "raw_content"}}, "text", {"text": "raw_content"}),
    "a lone prompt that is none": (
        {"columns": {"prompt": "question"}},
        "alpaca",
        {"prompt": "question", "query": "input", "response": "output"},
    ),
    "turns": ({"formatting": "sharegpt"}, "sharegpt", {"messages": "conversations"}),
    "turns and tools": (
        {"formatting": "sharegpt", "columns": {"tools": "functions", "system": "rules"}},
        "sharegpt",
        {"messages": "conversations", "system": "rules", "tools": "functions"},
    ),
    "openai": ({"formatting": "openai", "columns": {"messages": "chat"}}, "openai", {"messages": "chat"}),
    "ranking": (
        {"ranking": True, "columns": {"prompt": "question"}},
        "preference",
        {"prompt": "question", "query": "input", "chosen": "chosen", "rejected": "rejected"},
    ),
    "ranking of turns": (
        {"ranking": True, "formatting": "sharegpt", "columns": {"chosen": "better", "rejected": "worse"}},
        "preference",
        {"messages": "conversations", "chosen": "better", "rejected": "worse"},
    ),
    "ranking of nothing named": (
        {"ranking": True},
        "preference",
        {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
    ),
    "verdicts": (
        {"columns": {"kto_tag": "good"}},
        "kto",
        {"prompt": "instruction", "query": "input", "response": "output", "label": "good"},
    ),
    "verdicts on turns": (
        {"formatting": "sharegpt", "columns": {"messages": "messages", "kto_tag": "label"}},
        "kto",
        {"messages": "messages", "label": "label"},
    ),
    "our own format": (
        {"columns": {"prompt": "review", "response": "stars"}, "studio": {"format": "classification"}},
        "classification",
        {"text": "review", "label": "stars"},
    ),
    "not ranking": ({"ranking": False, "subset": None}, "alpaca", catalogue.PROMPT_COLUMNS),
}


@pytest.mark.parametrize("case", MEANINGS)
def test_an_entry_means_one_of_our_formats_and_the_documented_defaults_hold(only, case):
    keys, meaning, columns = MEANINGS[case]
    entry = only(**keys)
    assert (entry.format, entry.columns, entry.problem) == (meaning, columns, "")
    assert set(columns) <= set(formats.get(meaning).columns)


def test_the_stated_tags_are_kept_and_the_format_has_the_others(only):
    assert only(formatting="sharegpt", tags={"user_tag": "Q", "system_tag": None}).tags == {"user_tag": "Q"}
    assert only(formatting="sharegpt").tags == {}
    assert only(formatting="sharegpt", tags={"role_tag": ""}).tags == {"role_tag": ""}


def test_partial_tags_of_preferences_are_made_whole_since_their_format_has_no_usual_words(only):
    tags = only(formatting="sharegpt", ranking=True, tags={"role_tag": "speaker"}).tags
    assert (tags["role_tag"], tags["content_tag"], tags["assistant_tag"]) == ("speaker", "value", "gpt")
    tags = only(formatting="openai", ranking=True, tags={"role_tag": "speaker"}).tags
    assert (tags["role_tag"], tags["content_tag"], tags["assistant_tag"]) == ("speaker", "content", "assistant")
    assert only(formatting="sharegpt", ranking=True).tags == {}


def test_the_other_keys_are_kept(described):
    entry = described(
        {
            "x": {
                "hf_hub_url": "who/set",
                "ms_hub_url": "else/set",
                "subset": "en",
                "split": "validation",
                "folder": "python",
                "revision": "v1",
                "num_samples": 100,
                "studio": {"title": "A set", "licence": "MIT"},
            }
        }
    )[0]
    assert (entry.hub, entry.file, entry.problem) == ("who/set", None, "")
    assert (entry.subset, entry.split, entry.folder, entry.revision) == ("en", "validation", "python", "v1")
    assert (entry.num_samples, entry.about) == (100, {"title": "A set", "licence": "MIT"})


ROWS = {
    "alpaca": ({}, {"instruction": "Add.", "input": "1 1", "output": "2"}),
    "text": ({"columns": {"prompt": "text"}}, {"text": "Once upon a time"}),
    "sharegpt": (
        {"formatting": "sharegpt", "columns": {"tools": "tools"}, "tags": {"user_tag": "Q", "assistant_tag": "A"}},
        {"conversations": [{"from": "Q", "value": "Hi"}, {"from": "A", "value": "Hello"}], "tools": ""},
    ),
    "openai in sharegpt's words": (
        {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": ROLE_TAGS},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    ),
    "preference": (
        {"formatting": "sharegpt", "ranking": True, "tags": {"user_tag": "Q", "assistant_tag": "A"}},
        {
            "conversations": [{"from": "Q", "value": "Hi"}],
            "chosen": {"from": "A", "value": "Hello"},
            "rejected": {"from": "A", "value": "What?"},
        },
    ),
    "alpaca preference": ({"ranking": True}, {"instruction": "Hi", "chosen": "Hello", "rejected": "What?"}),
    "kto": (
        {"formatting": "sharegpt", "columns": {"messages": "talk", "kto_tag": "good"}, "tags": ROLE_TAGS},
        {"talk": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "good": True},
    ),
    "alpaca kto": ({"columns": {"kto_tag": "kto_tag"}}, {"instruction": "Hi", "output": "Hello", "kto_tag": False}),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_as_documented_becomes_an_example_by_its_entry(only, case):
    keys, row = ROWS[case]
    entry = only(**keys)
    assert formats.get(entry.format).convert(row, entry.columns, entry.tags).answer


@published
def test_published_sets_are_read_by_the_entries_they_are_published_with(tmp_path):
    sets = {
        "identity.json": ({}, 91),
        "glaive_toolcall_en_demo.json": ({"formatting": "sharegpt", "columns": {"tools": "tools"}}, 300),
        "dpo_zh_demo.json": ({"formatting": "sharegpt", "ranking": True}, 300),
        "kto_en_demo.json": (
            {
                "formatting": "sharegpt",
                "columns": {"messages": "messages", "kto_tag": "label"},
                "tags": ROLE_TAGS,
            },
            300,
        ),
    }
    for name in sets:
        (tmp_path / name).write_bytes(next(SHARED.rglob(name)).read_bytes())
    listing = {name: {"file_name": name, **keys} for name, (keys, _) in sets.items()}
    (tmp_path / "dataset_info.json").write_text(json.dumps(listing))
    for entry in catalogue.read(tmp_path):
        rows = json.loads(entry.file.read_text(encoding="utf-8"))
        convert = formats.get(entry.format).convert
        assert len([convert(row, entry.columns, entry.tags) for row in rows]) == sets[entry.name][1]


# --- What stands in the way of an entry ---


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"script_url": "belle"}, "needs a loading script, which is code, and is refused"),
        ({"file_name": "rows.json", "script_url": "belle"}, "needs a loading script"),
        ({"ms_hub_url": "who/set"}, "lies on ModelScope, which is not read here. Download it"),
        ({"om_hub_url": "who/set"}, "lies on Modelers"),
        ({"cloud_file_name": "s3://bucket/rows.jsonl"}, "lies in cloud storage"),
        ({"hf_hub_url": "https://huggingface.co/datasets/a/b"}, "is no id on the hub. Write it as owner/name."),
        (
            {"file_name": "rows.json", "media_dir": "m", "columns": {"images": "i", "audios": "a"}},
            "has images and audios, and only",
        ),
        ({"hf_hub_url": "a/b", "formatting": "sharegpt", "columns": {"videos": "v"}}, "has videos, and only text"),
        ({"file_name": "rows.json", "ranking": True, "columns": {"kto_tag": "l"}}, "has both 'ranking' and 'kto_tag'"),
        ({"file_name": "rows.json", "columns": {"chosen": "a"}}, 'Add "ranking": true, or remove them.'),
        (
            {"file_name": "rows.json", "columns": {"messages": "talk"}},
            "names 'messages', which formatting 'alpaca' does not read. Add \"formatting\": \"sharegpt\"",
        ),
        ({"file_name": "rows.json", "tags": {"user_tag": "Q"}}, "names 'tags', which formatting 'alpaca'"),
        (
            {"file_name": "rows.json", "formatting": "sharegpt", "columns": {"prompt": "a", "response": "b"}},
            "names 'prompt', 'response', which formatting 'sharegpt' does not read",
        ),
    ],
)
def test_what_cannot_be_used_here_says_why_and_the_others_can(described, keys, said):
    refused, fine = described({"refused": keys, "fine": {"file_name": "rows.json"}})
    assert said in refused.problem
    assert fine.problem == ""


def test_a_misspelt_file_is_told_with_the_nearest_one(only):
    entry = only(file_name="row.json")
    assert entry.problem == "has the file_name 'row.json', which does not exist. Did you mean 'rows.json'?"
    assert entry.file is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd", "leads out of the folder"),
        ("../rows.json", "leads out of the folder"),
        ("sub/../../rows.json", "leads out of the folder"),
        ("sub\\..\\..\\rows.json", "leads out of the folder"),
        ("C:\\rows.json", "leads out of the folder"),
        ("http://127.0.0.1/rows.json", "is no name of a file"),
        ("zip://a.json::rows.zip", "is no name of a file"),
        ("file:///etc/passwd", "is no name of a file"),
        ("", "is no name of a file"),
        ("rows\n.json", "is no name of a file"),
        (".", "names the whole folder as its file"),
        ("a" * 300, "which cannot be read|which does not exist"),
    ],
)
def test_f23_a_file_outside_of_the_folder_is_refused(only, name, said):
    entry = only(file_name=name)
    assert entry.file is None
    assert any(each in entry.problem for each in said.split("|"))


def test_f23_a_link_out_of_the_folder_is_refused_and_one_inside_of_it_is_not(only, tmp_path):
    (tmp_path / "secret.json").write_text("[]")
    (only.folder / "link.json").symlink_to(tmp_path / "secret.json")
    (only.folder / "inner.json").symlink_to("rows.json")
    (only.folder / "loop.json").symlink_to("loop.json")
    entry = only(file_name="link.json")
    assert "a link that leads out of the folder" in entry.problem
    assert entry.file is None
    assert only(file_name="inner.json").file == only.folder / "rows.json"
    assert only(file_name="loop.json").problem


def test_a_folder_of_one_kind_is_a_source_and_one_of_several_kinds_is_not(only):
    (only.folder / "parts").mkdir()
    assert "with no file of rows. It must hold files of one kind." in only(file_name="parts").problem
    for name in ("a.jsonl", "b.jsonl.gz", "c.json", "README.md", ".hidden.csv"):
        (only.folder / "parts" / name).write_text("")
    entry = only(file_name="parts")
    assert (entry.file, entry.problem) == (only.folder / "parts", "")
    (only.folder / "parts" / "d.csv").write_text("")
    assert "with .csv and .json. It must hold files of one kind." in only(file_name="parts").problem


def test_a_stated_sha1_is_compared(only):
    right = "97d170e1550eee4afc0af065b78cda302a97674c"
    assert catalogue.sha1_problem(only(file_sha1=right.upper())) == ""
    assert catalogue.sha1_problem(only()) == ""
    told = catalogue.sha1_problem(only(file_sha1="0" * 40))
    assert told.startswith(f"rows.json has the SHA-1 {right}, but dataset 'x' states 000")


# --- Faults of shape ---


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"file_nme": "a.json"}, "Unknown key 'file_nme' of dataset 'x'. Did you mean 'file_name'?"),
        ({"columns": {"promt": "a"}}, "Unknown key 'promt' of columns of dataset 'x'. Did you mean 'prompt'?"),
        ({"tags": {"user": "a"}}, "Unknown key 'user' of tags of dataset 'x'. Did you mean 'user_tag'?"),
        ({"studio": {"titel": "a"}}, "Unknown key 'titel' of studio of dataset 'x'. Did you mean 'title'?"),
        ({"file_name": 3}, "'file_name' of dataset 'x' must be text, but is a whole number: 3."),
        ({"file_name": ["a.json"]}, "'file_name' of dataset 'x' must be text, but is a list"),
        ({"columns": ["prompt"]}, "'columns' of dataset 'x' must be an object, but is a list"),
        ({"columns": {"prompt": 1}}, "'columns.prompt' of dataset 'x' must be text, but is a whole number: 1."),
        ({"tags": {"role_tag": True}}, "'tags.role_tag' of dataset 'x' must be text, but is true or false"),
        ({"ranking": "yes"}, "'ranking' of dataset 'x' must be true or false, but is text"),
        ({"num_samples": 1.5}, "'num_samples' of dataset 'x' must be a whole number, but is a number: 1.5."),
        ({"num_samples": True}, "'num_samples' of dataset 'x' must be a whole number, but is true or false"),
        ({"num_samples": 0}, "'num_samples' of dataset 'x' is 0. Give a number from 1 on"),
        ({"formatting": "sharegtp"}, "Unknown formatting 'sharegtp' of dataset 'x'. Did you mean 'sharegpt'?"),
        ({"file_sha1": "abc"}, "'file_sha1' of dataset 'x' is \"abc\", but a SHA-1 has 40 digits"),
        ({"studio": {"format": "alpacca"}}, "Unknown studio.format 'alpacca' of dataset 'x'. Did you mean 'alpaca'?"),
        ({"split": "train"}, "Dataset 'x' has no source. Name its file with 'file_name'"),
        ("rows.json", "Dataset 'x' must be an object with keys such as file_name, but is text."),
        (None, "Dataset 'x' must be an object"),
    ],
)
def test_a_fault_of_shape_names_the_dataset_the_key_and_the_remedy(described, entry, said):
    with pytest.raises(DataError) as caught:
        described({"x": entry})
    assert said in str(caught.value)


def test_all_faults_of_a_file_are_told_together(described):
    with pytest.raises(DataError) as caught:
        described(
            {"a": {"file_nme": "x"}, "b": {"file_name": 1, "ranking": 2}, "c": {"file_name": "rows.json"}, "": {}}
        )
    assert str(caught.value).splitlines() == [
        "dataset_info.json cannot be used as it is.",
        "Unknown key 'file_nme' of dataset 'a'. Did you mean 'file_name'?",
        "Dataset 'a' has no source. Name its file with 'file_name', or its hub id with 'hf_hub_url'.",
        "'file_name' of dataset 'b' must be text, but is a whole number: 1.",
        "'ranking' of dataset 'b' must be true or false, but is a whole number: 2.",
        "The name '' cannot be a dataset's name.",
        "Dataset '' has no source. Name its file with 'file_name', or its hub id with 'hf_hub_url'.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[]", "must hold an object of datasets by name, but holds a list."),
        ('{"a": {"file_name": "x"}, "a": {"file_name": "y"}}', "has the key 'a' twice"),
        ("[" * 5000, "is nested too deeply"),
        ('{"features": {}, "splits": {}}', "was written by the datasets library and describes one saved dataset"),
    ],
)
def test_a_file_that_is_no_description_is_one_clear_line(described, text, said):
    with pytest.raises(DataError, match=said) as caught:
        described(text)
    assert "\n" not in str(caught.value)


def test_a_missing_or_unreadable_description_is_told(tmp_path):
    with pytest.raises(DataError, match="dataset_info.json cannot be read: No such file"):
        catalogue.read(tmp_path)
    (tmp_path / "dataset_info.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(DataError, match="is not UTF-8 text"):
        catalogue.read(tmp_path)


def test_a_byte_order_mark_is_passed_over_and_no_entry_is_fine(described):
    assert described('\ufeff{"x": {"file_name": "rows.json"}}')[0].problem == ""
    assert described({}) == []
