"""A dataset with one of everything that an audit finds without a model, and its audit as a finished job. No test."""

import json
from pathlib import Path

from studio.data import registry
from studio.data.audit import audit
from studio.events import Ended, Started
from studio.jobs import folder as folders
from studio.jobs.folder import JobFolder
from studio.jobs.journal import Journal
from studio.specs import AuditSpec

LONG = "This sentence has many more words than the other ones have, so that changing a single one of them"


def rows() -> list[str]:
    """Row 2 repeats row 1, row 4 answers otherwise than row 3, row 6 nearly repeats row 5, row 7 is faulty."""
    pairs = [
        ("same", "again"), ("same", "again"), ("what is it", "this"), ("what is it", "that"),
        ("near", f"{LONG} matters little."), ("near!", f"{LONG} matters little."),
        *((f"question {n}", f"answer {n}") for n in range(30)),
    ]  # fmt: skip
    lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in pairs]
    return [*lines[:6], '{"prompt": "lonely"}', *lines[6:]]


def register(folder: Path, name: str = "flawed") -> registry.Dataset:
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(rows()), encoding="utf-8")
    return registry.add(path, name)


def audited(dataset: str, **settings: object) -> JobFolder:
    """A finished audit."""
    spec = AuditSpec(dataset=dataset, **settings)
    folder = folders.create("audit", spec, f"audit-{dataset}")
    done = audit(
        spec, tokenizer=None, report=folder.report, findings=folder.findings, emit=lambda _: None,
        stopping=lambda: False,
    )  # fmt: skip
    folder.started.touch()
    journal = Journal(folder.events, 1)
    journal.append(Started(pid=0, host="here"))
    journal.append(Ended(state="finished", path=str(done)))
    journal.close()
    return folder
