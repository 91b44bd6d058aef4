"""What is wrong with a dataset before a single step is trained on it.

    story      one audit, top to bottom
    content    equal rows, and answers that contradict each other
    near       rows that are nearly equal
    leakage    rows that a model is measured on
    lengths    tokens, and how many of them are learned
    findings   where each thing was found, on disk
    report     the figures, and the findings by row

Not here: new datasets without what was found (studio.data.derive), and the job around an audit (studio.jobs).
"""

from studio.data.audit.report import Report
from studio.data.audit.story import audit

__all__ = ["Report", "audit"]
