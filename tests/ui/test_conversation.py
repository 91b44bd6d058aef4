import json

from studio.serving.client import Delta
from studio.ui.conversation import Column, loading
from studio.ui.texts import table


def test_an_answer_grows_piece_by_piece():
    column = Column().asked("Hi").heard(Delta(0, "I am", tokens=2)).heard(Delta(0, " Miro.", tokens=3, seconds=1.0))
    assert column.turns == ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I am Miro."})
    assert column.tokens == 3


def test_a_question_without_an_answer_is_dropped_before_the_next_one():
    column = Column().asked("one").asked("two")
    assert [turn["content"] for turn in column.turns] == ["two"]


def test_a_stopped_answer_stays_in_the_conversation():
    column = Column().asked("one").heard(Delta(0, "half")).asked("two")
    assert [turn["content"] for turn in column.turns] == ["one", "half", "two"]


def test_the_system_text_comes_first_and_only_if_there_is_one():
    column = Column().asked("Hi")
    assert [turn["role"] for turn in column.messages("Be brief.")] == ["system", "user"]
    assert [turn["role"] for turn in column.messages(None)] == ["user"]


def test_what_is_shown_keeps_indentation_and_tags():
    text = "    <b>x</b>\n"
    shown = json.loads(Column().asked("Hi").heard(Delta(0, text)).shown())
    assert shown[1] == {"role": "assistant", "content": text}


def test_figures_carry_units_and_a_fault_is_escaped():
    delta = Delta(0, "x", tokens=11, seconds=2.0, first_token_s=1.0)
    assert "Tokens: 11 · 10.0 tokens/s · first token after 1.00 s" in Column().asked("Hi").heard(delta).figures("en")
    faulty = Column().asked("Hi").heard(Delta(0, done=True, error="<script>"))
    assert "&lt;script&gt;" in faulty.figures("en")


def test_a_new_question_forgets_the_fault_of_the_last_answer():
    assert Column().asked("Hi").heard(Delta(0, error="gone")).asked("again").fault == ""


def test_an_unknown_phase_of_the_server_is_shown_escaped():
    assert "&lt;b&gt;… 3 s" in loading("<b>", 3.2, table("en"))
