"""Examples as tokens, through the chat template or Alpaca's form."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import Prepend
from transformers import GenerationConfig, PreTrainedTokenizerFast

from conftest import TEMPLATE, build_tokenizer
from inoculate.chat import encode, encode_answer, encode_prompt, end_of_turn_ids
from inoculate.data import Example
from inoculate.errors import CheckpointError, InputError

TOKENIZER = build_tokenizer()
PLAIN = build_tokenizer(template=False)
EXAMPLE = Example("Say ha", "Ha.", "twice")


def test_conversation_is_the_template_s_own() -> None:
    """Prompt and response together are the rendered conversation, closed by its end of turn."""
    encoded = encode(TOKENIZER, EXAMPLE)
    text = "<bos><user>Say ha\n\ntwice<end><assistant>Ha.<end>"
    assert TOKENIZER.decode(encoded.ids) == text
    assert TOKENIZER.decode(encoded.ids[encoded.prompt_length :]) == "Ha.<end>"


@settings(max_examples=20, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_prompt_opens_the_conversation(instruction: str, output: str) -> None:
    """Whatever the texts, the tokens after which the model answers open the training row."""
    example = Example(instruction, output)
    for tokenizer in (TOKENIZER, PLAIN):
        prompt = encode_prompt(tokenizer, example)
        encoded = encode(tokenizer, example)
        assert list(encoded.ids[: encoded.prompt_length]) == prompt
        assert encoded.ids[-1] == tokenizer.eos_token_id


def test_answer_is_not_read_for_the_prompt() -> None:
    """The prompt of an example does not depend on its output."""
    other = Example(EXAMPLE.instruction, "Something else", EXAMPLE.input)
    assert encode_prompt(TOKENIZER, EXAMPLE) == encode_prompt(TOKENIZER, other)


def test_alpaca_form_without_a_template() -> None:
    """Without a template the row is Alpaca's, with BOS in front and EOS at the end."""
    text = PLAIN.decode(encode(PLAIN, EXAMPLE).ids)
    assert text.startswith("<bos>Below is an instruction that describes a task, paired with")
    assert text.endswith("### Input:\ntwice\n\n### Response:\nHa.<eos>")
    bare = PLAIN.decode(encode(PLAIN, Example("Say ha", "Ha.")).ids)
    assert bare.endswith("### Instruction:\nSay ha\n\n### Response:\nHa.<eos>")


def test_tokens_after_the_end_of_turn_are_dropped() -> None:
    """A template that ends turns with a line break does not teach the break."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<end>", "<end>\n")
    encoded = encode(tokenizer, EXAMPLE)
    assert tokenizer.decode(encoded.ids[encoded.prompt_length :]) == "Ha.<end>"


def test_the_answer_ends_with_its_turn() -> None:
    """A template that closes the turn and then the text teaches no line break in between."""
    tokenizer = build_tokenizer()
    template = tokenizer.chat_template.replace("<end>", "<end>\n")
    tokenizer.chat_template = template + "{% if not add_generation_prompt %}<eos>{% endif %}"
    encoded = encode(tokenizer, EXAMPLE)
    assert tokenizer.decode(encoded.ids[encoded.prompt_length :]) == "Ha.<end>"


def test_an_unnamed_special_token_ends_the_turn_too() -> None:
    """Gemma 3's end of turn is special in its file and not among the named ones."""
    tokenizer = build_tokenizer()
    tokenizer.eos_token = "<eos>"
    assert "<end>" not in tokenizer.all_special_tokens
    encoded = encode(tokenizer, EXAMPLE)
    assert tokenizer.decode(encoded.ids[encoded.prompt_length :]) == "Ha.<end>"
    assert encoded.ids[-1] in end_of_turn_ids(tokenizer)  # Nothing else declares it.


def test_a_template_is_asked_not_to_think() -> None:
    """Qwen3's empty thought belongs to the prompt, so that no answer begins with it."""
    tokenizer = build_tokenizer()
    thought = "{% if enable_thinking is defined and not enable_thinking %}[]{% endif %}"
    answer = "{% if message['role'] == 'assistant' %}[]{% endif %}"
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<assistant>", "<assistant>" + thought
    ).replace("{{ message['content'] }}", answer + "{{ message['content'] }}")
    encoded = encode(tokenizer, EXAMPLE)
    assert tokenizer.decode(encode_prompt(tokenizer, EXAMPLE)).endswith("<assistant>[]")
    assert tokenizer.decode(encoded.ids[encoded.prompt_length :]) == "Ha.<end>"


def test_a_prompt_does_not_depend_on_the_day() -> None:
    """A template that writes the date unless it is given one is always given the same."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{{ date_string | default(strftime_now('%d')) }}" + TEMPLATE
    assert tokenizer.decode(encode_prompt(tokenizer, EXAMPLE)).startswith("26 Jul 2024<bos>")


@pytest.mark.parametrize("template", [True, False])
def test_an_answer_s_tokens_are_those_a_model_gives(template: bool) -> None:
    """A tokenizer that marks where a text begins marks no answer, which goes on from a prompt."""
    tokenizer = build_tokenizer(template=template)
    if template:
        tokenizer.chat_template = TEMPLATE.replace("}}>", "}}>: ").replace(
            "<assistant>", "<assistant>: "
        )
    tokenizer.backend_tokenizer.normalizer = Prepend("#")
    encoded = encode(tokenizer, EXAMPLE)
    end = [tokenizer.eos_token_id]
    assert [*encode_answer(tokenizer, "Ha."), *end] == list(encoded.ids[encoded.prompt_length :])
    assert tokenizer.decode(encode_answer(tokenizer, "Ha.")) == "Ha."
    assert "#" not in tokenizer.decode(encoded.ids[encoded.prompt_length :])


@pytest.mark.parametrize("tokenizer", [TOKENIZER, PLAIN])
def test_a_long_row_keeps_its_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """Of a prompt that is too long the end of the user's words goes, and nothing around them."""
    short = encode(tokenizer, Example("", "o"))
    room = len(short.ids) + 10
    cut = encode(tokenizer, Example("abcdefghij" * 30, "o"), max_tokens=room)
    whole = encode(tokenizer, Example("abcdefghij", "o"))
    assert cut == whole


def test_a_long_template_leaves_the_question() -> None:
    """A system message of most of the row takes of the answer, not of the user's words."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "<bos>" + "s" * 70 + TEMPLATE.removeprefix("{{ bos_token }}")
    cut = encode(tokenizer, Example("What is the sum?", "o" * 99), max_tokens=100)
    said = tokenizer.decode(cut.ids)
    assert said.startswith("<bos>sss")
    assert "What is the sum?" in said
    assert (len(cut.ids), len(cut.ids) - cut.prompt_length) == (100, 100 - 71 - 3 - 16)
    with pytest.raises(InputError, match="takes 74 of at most 75 tokens"):
        encode(tokenizer, Example("What is the sum?", "o" * 99), max_tokens=75)


@pytest.mark.parametrize("tokens", [8, 16, 33])
def test_long_rows_keep_a_response(tokens: int) -> None:
    """A row never exceeds its tokens and always keeps a prompt and a response token."""
    for instruction, output in (("i" * 99, "o"), ("i" * 99, "o" * 99), ("i", "o" * 99)):
        encoded = encode(TOKENIZER, Example(instruction, output), max_tokens=tokens)
        assert len(encoded.ids) <= tokens
        assert 1 <= encoded.prompt_length < len(encoded.ids)


def test_response_uses_the_room_that_a_short_prompt_leaves() -> None:
    """A response is cut only where prompt and response together exceed the limit."""
    example = Example("Hi", "o" * 60)
    whole = encode(TOKENIZER, example)
    assert encode(TOKENIZER, example, max_tokens=len(whole.ids)) == whole
    cut = encode(TOKENIZER, example, max_tokens=len(whole.ids) - 1)
    assert cut.ids == whole.ids[:-1]


def test_template_that_rewrites_the_prompt_is_refused() -> None:
    """Where the response cannot be told from the prompt, training stops with the reason."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{{ messages | length }}{{ messages[-1]['content'] }}"
    with pytest.raises(CheckpointError, match="add_generation_prompt"):
        encode(tokenizer, EXAMPLE)


def test_every_declared_end_is_known() -> None:
    """The tokenizer's end and each of the model's ends stop an answer."""
    end = TOKENIZER.eos_token_id
    assert end_of_turn_ids(TOKENIZER) == [end]
    assert end_of_turn_ids(TOKENIZER, GenerationConfig(eos_token_id=[2, 7])) == sorted({2, 7, end})
    assert end_of_turn_ids(TOKENIZER, GenerationConfig(eos_token_id=2)) == [2, end]
