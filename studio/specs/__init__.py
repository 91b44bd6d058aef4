"""What a user can ask for: the specs of a training run, an evaluation, an export and an audit, and how they are read.

    sections   the classes: every field, default, limit and help text, once
    reading    YAML and overrides, in and out
    faults     what is wrong, in words

The page's form, the command line, YAML files and the Python API all build these.
"""

from studio.specs.reading import changes, dump, load, parse, read_yaml, with_overrides, yaml_value
from studio.specs.sections import (
    BUNDLED_MODEL,
    FRONT,
    KINDS,
    AuditSpec,
    DataSpec,
    EvaluateSpec,
    EvaluationSpec,
    ExportSpec,
    LoraMethod,
    Method,
    ModelSpec,
    OutputSpec,
    Precision,
    QuantizationSpec,
    Sampling,
    Section,
    SftStage,
    Spec,
    Stage,
    TemplateSpec,
    TrainingSpec,
    TrainSpec,
)

__all__ = [
    "BUNDLED_MODEL",
    "FRONT",
    "KINDS",
    "AuditSpec",
    "DataSpec",
    "EvaluateSpec",
    "EvaluationSpec",
    "ExportSpec",
    "LoraMethod",
    "Method",
    "ModelSpec",
    "OutputSpec",
    "Precision",
    "QuantizationSpec",
    "Sampling",
    "Section",
    "SftStage",
    "Spec",
    "Stage",
    "TemplateSpec",
    "TrainSpec",
    "TrainingSpec",
    "changes",
    "dump",
    "load",
    "parse",
    "read_yaml",
    "with_overrides",
    "yaml_value",
]
