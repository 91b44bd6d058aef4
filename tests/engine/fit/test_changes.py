from studio.engine.fit.changes import applied, cheapest
from studio.specs import TrainSpec, parse


def spec(**values):
    return parse(
        TrainSpec, {"quantization": {"kind": "none"}, "training": {"batch_size": 4, "accumulation": 3}, **values}
    )


def needs(changed):
    """Bytes of a made-up run: half with checkpointing, and so much a row, word and bit."""
    recomputed = 0.5 if changed.training.gradient_checkpointing == "on" else 1
    bits = {"none": 2, "nf4": 1}[changed.quantization.kind]
    return int(changed.training.batch_size * changed.data.max_length * recomputed * bits)


def found(most, *, checkpointing=False, **values):
    change = cheapest(spec(**values), needs, most, checkpointing=checkpointing)
    return change and dict(change.fields)


def test_recomputing_is_offered_first():
    assert found(2048) == {"training.gradient_checkpointing": "on"}


def test_a_smaller_batch_keeps_its_effective_size():
    assert found(3072, checkpointing=True) == {"training.batch_size": 3, "training.accumulation": 4}
    assert found(1024, checkpointing=True) == {"training.batch_size": 1, "training.accumulation": 12}


def test_several_changes_are_taken_together_where_none_is_enough():
    change = found(512)
    assert change == {"training.gradient_checkpointing": "on", "training.batch_size": 1, "training.accumulation": 12}
    assert found(256) == {**change, "quantization.kind": "nf4"}
    assert found(64) == {**change, "quantization.kind": "nf4", "data.max_length": 128}


def test_nothing_is_offered_where_nothing_is_enough():
    assert found(1) is None


def test_a_method_that_cannot_train_on_a_quantised_base_is_not_offered_one():
    only = cheapest(spec(method={"kind": "full"}), needs, 300, checkpointing=True)
    assert dict(only.fields) == {"training.batch_size": 1, "training.accumulation": 12, "data.max_length": 128}


def test_a_cutoff_that_is_enough_alone_changes_nothing_else():
    only = cheapest(spec(data={"max_length": 4096}), lambda changed: changed.data.max_length, 2048, checkpointing=False)
    assert dict(only.fields) == {"data.max_length": 2048}


def test_a_change_says_what_to_set_and_what_it_then_needs():
    change = cheapest(spec(), lambda changed: 3 * 1024**3, 4 * 1024**3, checkpointing=False)
    assert str(change) == "Set training.gradient_checkpointing to on: then it needs 3.0 GiB."


def test_values_that_do_not_go_with_the_rest_are_passed_over():
    assert applied(spec(stage={"kind": "kto"}), {"training.batch_size": 1}) is None
