"""A run on trl's own path that runs out of memory goes on with fewer rows at a time."""

import pytest

from studio.engine.stages import sft
from studio.errors import StudioError
from tests.engine.fast.conftest import mixed_lengths, run, spec_of  # noqa: F401


@pytest.fixture
def ceiling(monkeypatch):
    """ceiling(tokens, from_step): batches with more tokens run out of memory from this step on."""

    def build(tokens, from_step=0):
        usual = sft._WholeLogits.compute_loss

        def compute_loss(self, model, inputs, *args, **options):
            if self.state.global_step >= from_step and inputs["input_ids"].numel() > tokens:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
            return usual(self, model, inputs, *args, **options)

        monkeypatch.setattr(sft._WholeLogits, "compute_loss", compute_loss)

    return build


def spec(tiny, dataset, **training):
    stage = {"kind": "sft", "label_smoothing": 0.05}  # which the fast path leaves to trl
    return spec_of(tiny("llama"), dataset, stage=stage, training={"batch_size": 4, "accumulation": 1, **training})


@pytest.mark.parametrize("from_step", [0, 2])
def test_the_rows_of_each_step_stay_the_same(from_step, tiny, mixed_lengths, run, ceiling):  # noqa: F811
    unforced = run(spec(tiny, mixed_lengths))
    ceiling(80, from_step)
    forced = run(spec(tiny, mixed_lengths))
    assert unforced.plan.path == "trl" and len(forced.losses) == len(unforced.losses) == 3
    assert forced.losses == pytest.approx(unforced.losses, rel=1e-4)
    assert any("at a time" in note and "the rows of a step stay the same" in note for note in forced.notes)


def test_where_nothing_is_left_to_divide_the_run_says_what_helps(tiny, mixed_lengths, run, ceiling):  # noqa: F811
    ceiling(5)
    with pytest.raises(StudioError, match="single row at a time. Lower data.max_length"):
        run(spec(tiny, mixed_lengths))
