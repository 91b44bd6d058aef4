"""Decoding many prompts at once equals decoding each alone, and transformers' own `generate`."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.generation import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from studio.engine.generate import BASE, Request, complete, decode, sample
from studio.specs import Sampling

PROMPTS = [[5, 9, 300], [17, 4000, 23, 8, 99, 1200, 7], [42]]


@pytest.fixture(scope="module")
def model(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32).eval()


def with_adapters(folder, **options):
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **options)
    torch.manual_seed(1)
    both = get_peft_model(base, config, adapter_name="one")
    both.add_adapter("two", config)
    return both.eval()


def greedy(length=12):
    return Sampling(max_tokens=length)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_a_batch_of_unlike_prompts_answers_as_generate_does_one_by_one(tiny, kind):
    model = AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32).eval()
    answers = complete(model, [Request(prompt, sampling=greedy()) for prompt in PROMPTS])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=-1)
        assert answer == expected[0, len(prompt) :].tolist()


def test_rows_that_finish_early_leave_and_change_nothing_for_the_others(model):
    alone = [complete(model, [Request(prompt, sampling=greedy(20))])[0] for prompt in PROMPTS]
    lengths = [3, 20, 9]
    together = complete(
        model, [Request(prompt, sampling=greedy(n)) for prompt, n in zip(PROMPTS, lengths, strict=True)]
    )
    assert together == [answer[:n] for answer, n in zip(alone, lengths, strict=True)]


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(model):
    whole = complete(model, [Request(PROMPTS[0], sampling=greedy())])[0]
    stop = whole[4]
    cut = complete(model, [Request(PROMPTS[0], sampling=greedy(), stop=frozenset({stop}))])[0]
    assert cut == whole[: whole.index(stop)]


def test_a_cancelled_request_leaves_the_batch_at_once(model):
    steps = []

    def cancelled():
        return len(steps) >= 3

    requests = [Request(PROMPTS[0], sampling=greedy(10), cancelled=cancelled), Request(PROMPTS[1], sampling=greedy(10))]
    for tokens in decode(model, requests):
        steps.append([(token.request, token.finish) for token in tokens])
    assert steps[3] == [(0, "cancelled"), (1, None)] and len(steps) == 10 and steps[-1] == [(1, "length")]


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_base_and_two_adapters_in_one_batch_answer_as_each_alone(tiny, options):
    model = with_adapters(tiny("llama"), **options)
    names = [BASE, "one", "two", "one"]
    prompts = [PROMPTS[1], PROMPTS[1], PROMPTS[1], PROMPTS[0]]
    mixed = complete(model, [Request(p, n, greedy()) for p, n in zip(prompts, names, strict=True)])
    alone = [complete(model, [Request(p, n, greedy())])[0] for p, n in zip(prompts, names, strict=True)]
    assert mixed == alone
    assert mixed[0] != mixed[1] != mixed[2], "random adapters must change the answer"
    plain = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32).eval()
    assert mixed[0] == complete(plain, [Request(prompts[0], sampling=greedy())])[0]


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(model):
    def ask(seed):
        sampling = Sampling(temperature=1.5, seed=seed, max_tokens=30)
        return complete(model, [Request(PROMPTS[0], sampling=sampling)])[0]

    assert ask(1) == ask(1) != ask(2)


def distribution(sampling, logits, said, draws=4000):
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros_like(logits)
    for _ in range(draws):
        counts[sample(logits, sampling, said, generator)] += 1
    return counts / draws


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(temperature=1.3, top_k=3),
        Sampling(temperature=1.0, top_p=0.6),
        Sampling(temperature=0.9, top_k=6, top_p=0.8, repetition_penalty=1.7),
    ],
)
def test_sampling_follows_the_distribution_of_transformers_warpers(sampling):
    logits = torch.tensor([2.0, -1.0, 0.5, 1.9, -3.0, 0.0, 1.0, 0.7])
    said = [0, 1, 6]
    expected = logits[None]
    if sampling.repetition_penalty != 1.0:
        expected = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(torch.tensor([said]), expected)
    expected = TemperatureLogitsWarper(sampling.temperature)(None, expected)
    if sampling.top_k:
        expected = TopKLogitsWarper(sampling.top_k)(None, expected)
    if sampling.top_p < 1:
        expected = TopPLogitsWarper(sampling.top_p)(None, expected)
    expected = expected.softmax(-1)[0]
    found = distribution(sampling, logits, said)
    assert torch.all((found > 0) <= (expected > 0)), "a token outside the kept set was drawn"
    assert (found - expected).abs().max() < 0.03


def test_temperature_zero_takes_the_likeliest_token():
    assert sample(torch.tensor([0.1, 3.0, 2.9]), Sampling(), [], None) == 1


@pytest.mark.parametrize("temperature", [1e-45, 1e-30, 1e-4])
def test_the_smallest_temperatures_are_greedy(temperature):
    logits = torch.tensor([0.1, 3.0, 2.0, -40.0])
    assert sample(logits, Sampling(temperature=temperature), [], torch.Generator().manual_seed(0)) == 1
