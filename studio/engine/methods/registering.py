"""Makes a method of ours known to PEFT, so that its adapters are saved and loaded as PEFT's own are.

Not here: any one method.
"""

from __future__ import annotations

from peft.utils import PeftType, register_peft_method


def register(name: str, config: type, model: type) -> None:
    """Register under a new member of PeftType, which peft 0.21 wants and has no way to add."""
    word = name.upper()
    if word not in PeftType.__members__:
        member = str.__new__(PeftType, word)
        member._name_ = member._value_ = word
        type.__setattr__(PeftType, word, member)
        PeftType._member_map_[word] = member
        PeftType._member_names_.append(word)
        PeftType._value2member_map_[word] = member
        register_peft_method(name=name, config_cls=config, model_cls=model)
