"""Training stages: spec, model and rows in, a trl trainer out. One file each, one name each below."""

from studio.engine.stages.sft import sft_trainer

STAGES = {"sft": sft_trainer}
