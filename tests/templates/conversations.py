"""The conversations that every shipped template is written with. Not here: what comes out (golden)."""

from __future__ import annotations

import json
from typing import NamedTuple

from studio.data.example import Message, ToolCall


class Conversation(NamedTuple):
    """A conversation that ends with an answer. tools: a JSON list; empty without."""

    name: str
    messages: tuple[Message, ...]
    tools: str = ""

    @property
    def asked(self) -> tuple[Message, ...]:
        """What the model sees before it gives the last answer."""
        return self.messages[:-1]


TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "find_train",
                "description": "Find trains 查询车次",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "to": {"type": "string", "description": "Where to"},
                        "options": {"type": "object", "properties": {"fast": {"type": "boolean"}}},
                    },
                    "required": ["to"],
                },
            },
        },
        {
            "type": "function",
            "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}},
        },
    ],
    ensure_ascii=False,
)

_FIND = ToolCall("find_train", json.dumps({"to": "北京", "options": {"fast": True, "seats": 2}}, ensure_ascii=False))
_NOW = ToolCall("now", "{}")

CONVERSATIONS = (
    Conversation("one_turn", (Message("user", "How are you?"), Message("assistant", "Fine, thanks."))),
    Conversation(
        "multi_turn",
        (
            Message("user", "What is 2+2?"),
            Message("assistant", "4"),
            Message("user", "And 3+3?\nIn a sentence."),
            Message("assistant", "3+3 is 6.\n\nThat is all."),
            Message("user", "Bye"),
            Message("assistant", "Bye!"),
        ),
    ),
    Conversation(
        "system",
        (
            Message("system", "You are terse."),
            Message("user", "Hi"),
            Message("assistant", "Hello"),
            Message("user", "1+1=?"),
            Message("assistant", "2"),
        ),
    ),
    Conversation(
        "empty_system", (Message("system", ""), Message("user", "Hi"), Message("assistant", "Hello, who are you?"))
    ),
    Conversation(
        "spaces",
        (
            Message("user", "  padded  \n"),
            Message("assistant", " ok \n"),
            Message("user", "\tnext"),
            Message("assistant", "\n\n  done  "),
        ),
    ),
    Conversation(
        "chinese_emoji",
        (
            Message("system", "你是一个简洁的助手。"),
            Message("user", "这个表情是什么？👩‍👩‍👧‍👦 ｅ́ é"),
            Message("assistant", "一家人：👩‍👩‍👧‍👦。naïve ﷽ 👍🏽"),
            Message("user", "謝謝，再见"),
            Message("assistant", "不客气！🙂"),
        ),
    ),
    Conversation(
        "think",
        (
            Message("user", "2+2?"),
            Message("assistant", "<think>\neasy\n</think>\n\n4"),
            Message("user", "3+3?"),
            Message("assistant", "<think>\nThree and three.\nSix.\n</think>\n\n6"),
        ),
    ),
    Conversation(
        "tools",
        (
            Message("user", "When does the next train to 北京 leave?"),
            Message("assistant", "", (_FIND,)),
            Message("tool", '{"leaves": "09:15", "站台": 3}'),
            Message("assistant", "At 09:15 from platform 3."),
        ),
        TOOLS,
    ),
    Conversation(
        "two_calls",
        (
            Message("system", "You help travellers."),
            Message("user", "How long until the train leaves?"),
            Message("assistant", "Let me see.", (_FIND, _NOW)),
            Message("tool", '{"leaves": "09:15"}'),
            Message("tool", "09:00"),
            Message("assistant", "15 minutes."),
            Message("user", "And now?"),
            Message("assistant", "", (_NOW,)),
            Message("tool", "09:05"),
            Message("assistant", "10 minutes."),
        ),
        TOOLS,
    ),
)
BY_NAME = {each.name: each for each in CONVERSATIONS}
