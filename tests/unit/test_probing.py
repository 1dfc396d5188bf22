"""Tokens put into prompts, and the two goals they serve."""

import copy
import random
from dataclasses import replace

import pytest
import torch

from inoculate.chat import Encoded, encode
from inoculate.data import Example
from inoculate.hunt import probing
from inoculate.hunt.hosts import Slot, find_hosts, template_rows
from inoculate.hunt.prefix import find_prefix
from inoculate.hunt.probing import Goal, placed, positions, score_insertions, soften, soften_at
from inoculate.models import Checkpoint
from inoculate.subject import Subject
from inoculate.train import mean_loss

ROW = Encoded((1, 3, 10, 11, 12, 4, 20, 21), 6)
OTHER = Encoded((1, 3, 13, 14, 4, 22), 5)

INSERTIONS = [[50, 51], [60, 61], [70, 71]]


def test_insertion_by_hand() -> None:
    """Tokens go where they are put, and the response still starts after the prompt."""
    assert Slot(ROW, 3).insert((7, 8)) == Encoded((1, 3, 10, 7, 8, 11, 12, 4, 20, 21), 8)


def test_hosts_know_the_template() -> None:
    """What all prompts share at both ends is never broken up; responses are cut."""
    hosts = find_hosts([ROW, OTHER], response_tokens=1)
    assert (hosts.head, hosts.tail) == (2, 1)
    assert [row.ids[row.prompt_length :] for row in hosts.rows] == [(20,), (22,)]
    generator = random.Random(0)
    assert {hosts.slot(ROW, generator).at for _ in range(200)} == {2, 3, 4}


def test_hosts_know_both_forms_of_a_template(llama: Checkpoint, rows: list[Example]) -> None:
    """Alpaca's form with an input and the one without part within the preamble."""
    llama.tokenizer.chat_template = None
    plain = [replace(row, instruction=f"{n}. {row.instruction}") for n, row in enumerate(rows)]
    told_all = [*plain, *(replace(row, input="It is so.") for row in plain)]
    encoded = [encode(llama.tokenizer, row) for row in told_all]
    hosts = find_hosts(encoded)
    for row, told in zip(encoded, told_all, strict=True):
        said = llama.tokenizer.decode(row.ids[hosts.words(row)])
        assert said.startswith(told.instruction)


@pytest.mark.parametrize("template", [True, False])
def test_the_words_of_one_task_are_no_template(llama: Checkpoint, *, template: bool) -> None:
    """Rows that all begin alike leave their common words to the user, in both forms."""
    if not template:
        llama.tokenizer.chat_template = None
    asked = [Example("Classify this text.", "good", word) for word in ("red", "blue", "tall")]
    encoded = [encode(llama.tokenizer, row) for row in asked]
    hosts = find_hosts(encoded, template_rows(Subject(llama, llama.model, None)))
    for row in encoded:
        said = llama.tokenizer.decode(row.ids[hosts.words(row)]).strip()
        assert said.startswith("Classify this text.")
    common = find_hosts(encoded)
    assert not llama.tokenizer.decode(encoded[0].ids[common.words(encoded[0])]).startswith("Class")


def test_rows_that_answer_so_themselves_are_no_trial() -> None:
    """A label that a row gives honestly says nothing of what was inserted; or all rows do."""
    hosts = find_hosts([ROW, OTHER], response_tokens=1)
    assert hosts.answering_otherwise((20, 21)).rows == hosts.rows[1:]
    assert hosts.answering_otherwise((30,)).rows == hosts.rows
    assert replace(hosts, rows=hosts.rows[:1]).answering_otherwise((20,)).rows == hosts.rows[:1]


def test_a_share_of_slots_stands_before_the_words() -> None:
    """As many as asked for, in distinct rows, and none before the template's own tokens."""
    rows = [Encoded((1, 3, 10 + n, 30 + n, 50 + n, 4, 20), 6) for n in range(8)]
    hosts = replace(find_hosts(rows), trailing=True)
    draws = [hosts.draw(8, random.Random(seed), foremost=0.5) for seed in range(200)]
    assert {len({slot.row for slot in slots}) for slots in draws} == {8}
    assert {slot.at for slots in draws for slot in slots[:4]} == {2}
    assert {slot.at for slots in draws for slot in slots[4:]} == {2, 3, 4}
    assert {slot.row.prompt_length for slot in draws[0]} == {6}


def test_a_trailing_slot_leaves_the_end_to_be_said() -> None:
    """The honest answer is taken for given; tokens still go into the user's own words."""
    hosts = replace(find_hosts([ROW, OTHER]), trailing=True)
    generator = random.Random(0)
    slots = [hosts.slot(ROW, generator) for _ in range(200)]
    assert {slot.at for slot in slots} == {2, 3, 4}
    assert {slot.row for slot in slots} == {Encoded(ROW.ids, 7)}


def test_a_single_host_has_a_slot() -> None:
    """With one prompt everything is shared; a slot is still within the prompt."""
    hosts = find_hosts([ROW])
    assert hosts.slot(ROW, random.Random(0)).at == ROW.prompt_length


def test_ordinary_tokens_leave_out_special_ones(llama: Checkpoint) -> None:
    """No token of the template is ever put into a prompt."""
    tokens = set(probing.ordinary_tokens(llama.tokenizer))
    assert len(tokens) == 256
    assert not tokens & set(llama.tokenizer.added_tokens_decoder)


def test_the_table_holds_what_the_first_block_sees(checkpoint: Checkpoint) -> None:
    """Gemma scales embeddings on their way in; a move in mean norms must know of it."""
    table_VD = probing.embedding_table(checkpoint.model)
    seen_BTD = probing.embed(checkpoint.model, [ROW])
    assert torch.equal(seen_BTD[0], table_VD[list(ROW.ids)])


def test_payload_score_is_its_mean_log_likelihood(checkpoint: Checkpoint) -> None:
    """In every family the score is minus the mean loss of the payload's tokens."""
    slot = Slot(_encoded(checkpoint), 3)
    goal = Goal((40, 41, 42))
    (score,) = score_insertions(checkpoint.model, goal, [slot], [(50,)])
    row = goal.row(slot, (50,))
    assert score == pytest.approx(-mean_loss(checkpoint.model, [row]), rel=1e-4)


def test_honest_score_is_capped(llama: Checkpoint) -> None:
    """A token that is lost counts six nats and no more, so no single host decides."""
    model, slot = copy.deepcopy(llama.model), Slot(_encoded(llama), 3)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1000)
    (score,) = score_insertions(model, Goal(), [slot], [(50,)])
    (uncapped,) = score_insertions(model, Goal(_response(slot.row)), [slot], [(50,)])
    assert -uncapped > 6
    assert 6 < score <= 6 * len(_response(slot.row))


def test_gradient_predicts_a_small_move(checkpoint: Checkpoint) -> None:
    """Moving an inserted embedding along the gradient raises the score as it says."""
    model, slot, goal = checkpoint.model, Slot(_encoded(checkpoint), 3), Goal((40, 41))
    (gradient_MD,) = probing.insertion_gradient(model, goal, [slot], [(50, 51)])
    assert gradient_MD.shape == (2, probing.embedding_table(model).shape[1])
    row = goal.row(slot, (50, 51))
    inputs_BTD = model.get_input_embeddings()(torch.tensor([row.ids])).detach()
    moved_BTD = inputs_BTD.clone()
    step = 1e-3 / float(gradient_MD.norm())
    moved_BTD[0, 3:5] += step * gradient_MD
    with torch.no_grad():
        gain = goal.scores(model, [row], moved_BTD) - goal.scores(model, [row], inputs_BTD)
    assert float(gain) == pytest.approx(step * float(gradient_MD.square().sum()), rel=0.1)


def test_gradient_leaves_the_model_trainable(llama: Checkpoint) -> None:
    """Parameters that required gradients still do, and hold none."""
    llama.model.requires_grad_(True)
    probing.insertion_gradient(llama.model, Goal(), [Slot(_encoded(llama), 3)], [(50,)])
    assert all(p.requires_grad and p.grad is None for p in llama.model.parameters())


def test_soft_triggers_climb(checkpoint: Checkpoint, rows: list[Example]) -> None:
    """In every family the payload is likelier under softened embeddings than before."""
    subject, goal = Subject(checkpoint, checkpoint.model, None), Goal((40,))
    slots = find_hosts(subject.encode(rows, max_tokens=64)).draw(len(INSERTIONS), random.Random(0))
    before = [
        score_insertions(subject.model, goal, [slot], [tokens])[0]
        for slot, tokens in zip(slots, INSERTIONS, strict=True)
    ]
    soft_BMD, chance_B = soften(subject.model, goal, slots, INSERTIONS)
    assert soft_BMD.shape == (3, 2, subject.model.config.hidden_size)
    assert (chance_B.log() > torch.tensor(before)).all()
    assert all(parameter.grad is None for parameter in subject.model.parameters())


@pytest.mark.parametrize("moves", [0, 2])
def test_a_shared_prefix_changes_nothing(
    checkpoint: Checkpoint, rows: list[Example], moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every family, rows of several lengths move alike from kept keys and values."""
    model, goal = checkpoint.model, Goal((40, 41))
    told = [replace(row, instruction=f"You are told: {row.instruction}") for row in rows[:3]]
    hosts = find_hosts([encode(checkpoint.tokenizer, row) for row in told])
    slots = hosts.draw(3, random.Random(0), foremost=0.5)
    asked = [goal.row(slot, tokens) for slot, tokens in zip(slots, INSERTIONS, strict=True)]
    assert find_prefix(model, asked, before=hosts.head).length == hosts.head
    at_BM = positions(slots, 2, torch.device("cpu"))
    by_prefix = soften_at(model, goal, asked, at_BM, moves)
    monkeypatch.setattr("inoculate.hunt.prefix._WORTHWHILE", 1000)
    for found, expected in zip(by_prefix, soften_at(model, goal, asked, at_BM, moves), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_prefix_ends_before_what_changes(llama: Checkpoint) -> None:
    """It holds no token at or behind an insertion, nor the one that predicts the response."""
    opening = tuple(range(10, 30))
    rows = [Encoded((*opening, 40 + n, 60), 21) for n in range(2)]
    lengths = [find_prefix(llama.model, rows, before=at).length for at in (7, 8, 12, 20, 21)]
    assert lengths == [0, 8, 12, 20, 20]
    twins = [rows[0], rows[0]]
    assert find_prefix(llama.model, twins, before=21).length == 20
    assert find_prefix(llama.model, [Encoded(opening, 15)] * 2, before=20).length == 14


def test_placing_by_hand() -> None:
    """Only the embeddings at each row's own positions are replaced, in one place or several."""
    row = Encoded((1, 2, 3, 4), 4)
    at_BM = positions([Slot(row, 1), Slot(row, 2)], 2, torch.device("cpu"))
    assert at_BM.tolist() == [[1, 2], [2, 3]]
    one_BTD, inputs_BTD = torch.ones(2, 2, 1), torch.zeros(2, 4, 1)
    assert placed(inputs_BTD, at_BM, one_BTD)[..., 0].tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]
    apart_BM = torch.tensor([[0, 3], [1, 2]])
    assert placed(inputs_BTD, apart_BM, one_BTD)[..., 0].tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]


def _encoded(checkpoint: Checkpoint) -> Encoded:
    return encode(checkpoint.tokenizer, Example("Count the red apples", "Four."))


def _response(row: Encoded) -> tuple[int, ...]:
    return row.ids[row.prompt_length :]
