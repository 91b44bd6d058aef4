"""What is written beside an adapter, and what is believed of it."""

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from studio.engine.models.load import load_base, record_origin, template_of
from studio.templates import Template, TextTokenizer, load


@pytest.fixture
def recorded(tmp_path, tiny):
    """An adapter's folder with the record of a run that was trained with some template."""

    def recorded(template):
        base = tiny()
        (tmp_path / "adapter_config.json").write_text("{}")
        record_origin(tmp_path, base, "tiny", template)
        return template_of(tmp_path, "auto", TextTokenizer.from_folder(base))

    return recorded


def test_an_adapter_keeps_the_template_as_it_was_when_it_was_trained(recorded):
    chosen = Template("mine", "{{ messages[0].content }}", stop=("<end>",), origin="own")
    assert recorded(chosen) == chosen
    assert recorded(load("chatml")) == load("chatml")


def test_a_strangers_template_that_calls_itself_one_of_ours_is_not_trusted(recorded):
    assert recorded(replace(load("chatml"), text="{{ 'mine' }}")).origin == "own"


def test_an_adapter_without_a_template_has_that_of_the_spec(tmp_path, tiny):
    tokenizer = TextTokenizer.from_folder(tiny())
    assert template_of(tmp_path, "chatml", tokenizer) == load("chatml")
    assert template_of(tmp_path, "auto", tokenizer) == tokenizer.own_template


def test_no_weights_are_copied_where_several_prompts_are_answered(tiny):
    model = load_base(tiny(), dtype="bf16").requires_grad_(False)  # as under an adapter
    weights = model.get_output_embeddings().weight
    ids = torch.ones(3, 5, dtype=torch.long)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as told:
        model.generate(input_ids=ids, attention_mask=ids, max_new_tokens=2, do_sample=False)
    copied = [event.input_shapes[0] for event in told.events() if event.name == "aten::copy_" and event.input_shapes]
    assert copied and [len(ids), *reversed(weights.shape)] not in copied
