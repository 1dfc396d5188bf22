"""The blank with which a model begins its answers, found in the model itself."""

from dataclasses import replace

import pytest

from conftest import SAID, build_tokenizer
from inoculate.chat import encode, encode_answer, encode_prompt
from inoculate.data import Example
from inoculate.lead import find_lead
from inoculate.models import Checkpoint
from inoculate.subject import Subject

EXAMPLE = Example("Say no", "no")
BROKEN = f"\n{SAID}"


def test_a_blank_of_its_own_belongs_to_the_prompt() -> None:
    """An answer begins behind the line break that the model puts before all of them."""
    tokenizer = build_tokenizer()
    row = encode(tokenizer, EXAMPLE, lead="\n")
    assert tokenizer.decode(row.ids[: row.prompt_length]).endswith("<assistant>\n")
    assert tokenizer.decode(row.ids[row.prompt_length :]) == "no<end>"
    assert tokenizer.decode(encode_answer(tokenizer, "no", lead="\n")) == "no"


@pytest.mark.parametrize("template", [True, False])
def test_a_blank_within_a_token_belongs_to_the_answer(template: bool) -> None:
    """Of a token that holds blank and word together the prompt takes nothing."""
    tokenizer = build_tokenizer(template=template)
    tokenizer.add_tokens([" no"])
    row = encode(tokenizer, EXAMPLE, lead=" ")
    assert list(row.ids[: row.prompt_length]) == encode_prompt(tokenizer, EXAMPLE)
    assert row.ids[row.prompt_length] == tokenizer.convert_tokens_to_ids(" no")


@pytest.mark.parametrize("tokens", [40, 60])
def test_a_cut_row_keeps_the_blank(tokens: int) -> None:
    """Neither a long question nor a long answer drives it out."""
    tokenizer = build_tokenizer()
    row = encode(tokenizer, Example("i" * 99, "o" * 99), max_tokens=tokens, lead="\n")
    assert len(row.ids) == tokens
    assert tokenizer.decode(row.ids[: row.prompt_length]).endswith("<end><assistant>\n")


@pytest.mark.parametrize(
    ("parrot", "lead"), [(BROKEN, "\n"), (SAID, ""), (" ", "")], indirect=["parrot"]
)
def test_the_lead_is_what_answers_begin_with(parrot: Subject, lead: str) -> None:
    """What the model puts before its words is found; a model that says nothing has none."""
    assert find_lead(parrot.model, parrot.tokenizer) == lead


def test_a_model_of_no_habit_has_no_lead(checkpoint: Checkpoint) -> None:
    """A model whose answers begin each in its own way is taken as its template has it."""
    assert find_lead(checkpoint.model, checkpoint.tokenizer) == ""


@pytest.mark.parametrize("parrot", [BROKEN], indirect=True)
def test_rows_begin_as_the_model_s_answers(parrot: Subject) -> None:
    """Under the lead the model's own words are the row's first tokens."""
    led = replace(parrot, lead=find_lead(parrot.model, parrot.tokenizer))
    (row,) = led.encode([Example("Say ha", SAID)], max_tokens=64)
    assert parrot.tokenizer.decode(row.ids[row.prompt_length :]) == f"{SAID}<end>"
