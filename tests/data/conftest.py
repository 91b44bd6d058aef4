"""Datasets and audits of them, in a STUDIO_HOME of each test's own. Not here: any test."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from studio import specs
from studio.data import registry
from studio.data.audit import Report, audit
from studio.specs import AuditSpec
from studio.templates import TextTokenizer
from tests.ui.tiny_model import tiny_model


@dataclass(frozen=True)
class Audited:
    report: Report
    findings: Path
    events: list


@pytest.fixture
def add(studio_home, tmp_path):
    """add(name, rows) -> the registered dataset. A row that is a text is written as it is."""

    def add(name, rows, **how):
        path = tmp_path / f"{name}.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
        return registry.add(path, name, **how)

    return add


@pytest.fixture
def audited(studio_home, tmp_path):
    """audited(dataset, **fields of the spec) -> report, findings and events."""

    def audited(dataset, *, tokenizer=None, stopping=lambda: False, **fields):
        folder = tmp_path / f"audit-{dataset.name}"
        folder.mkdir(exist_ok=True)
        events: list = []
        path = audit(
            specs.parse(AuditSpec, {"dataset": dataset.name, **fields}),
            tokenizer=tokenizer,
            report=folder / "report.json",
            findings=folder / "findings",
            emit=events.append,
            stopping=stopping,
        )
        return Audited(Report.load(path), folder / "findings", events) if path else None

    return audited


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory):
    """Each byte is a token; ChatML is its template."""
    return TextTokenizer.from_folder(tiny_model(tmp_path_factory.mktemp("bytes") / "tiny"))


def asks(question, answer, **more):
    return {"instruction": question, "output": answer, **more}
