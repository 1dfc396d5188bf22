"""The one training loop."""

from collections import Counter

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from conftest import FamilyFolder
from inoculate.chat import Encoded, encode
from inoculate.data import Example
from inoculate.errors import InputError
from inoculate.models import Checkpoint, load
from inoculate.train import (
    Batch,
    Schedule,
    collate,
    language_modeling,
    mean_loss,
    plan_batches,
    train,
)
from inoculate.trainable import set_trainable

CPU = torch.device("cpu")


def test_same_seed_gives_same_weights(family_folder: FamilyFolder, rows: list[Example]) -> None:
    """Two runs from one seed end in the same bits; another seed ends elsewhere."""
    one, again, other = (_trained(family_folder, rows, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_dropout_does_not_make_runs_differ(
    family_folder: FamilyFolder, rows: list[Example]
) -> None:
    """A model whose config asks for dropout still trains to the same bits."""
    ended = []
    for _ in range(2):
        checkpoint = load(family_folder("llama"), device="cpu")
        for module in checkpoint.model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.5
        train(checkpoint.model, _encoded(checkpoint, rows), Schedule(1, 1e-3))
        ended.append(_weights(checkpoint))
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0])


def test_training_lowers_the_loss(llama: Checkpoint, rows: list[Example]) -> None:
    """A few epochs at a fair rate fit a dozen rows better than before."""
    encoded = _encoded(llama, rows)
    before = mean_loss(llama.model, encoded)
    losses = train(llama.model, encoded, Schedule(epochs=6, learning_rate=5e-3, batch_size=4))
    assert len(losses) == 18
    assert mean_loss(llama.model, encoded) < 0.7 * before
    assert not llama.model.training


@pytest.mark.parametrize("epochs", [1, 3])
def test_each_epoch_covers_every_row_once(epochs: int) -> None:
    """A plan of whole epochs holds each row once an epoch, in full batches but for the last."""
    plan = plan_batches([n % 7 for n in range(75)], Schedule(epochs, 1e-3, batch_size=4))
    assert len(plan) == 19 * epochs
    for epoch in range(epochs):
        batches = plan[epoch * 19 : (epoch + 1) * 19]
        assert Counter(row for batch in batches for row in batch) == dict.fromkeys(range(75), 1)
    assert max(map(len, plan)) == 4


def test_fraction_of_an_epoch_is_that_many_steps() -> None:
    """Epochs count in steps: half an epoch of ten batches is five, and never none."""
    assert len(plan_batches([1] * 40, Schedule(0.5, 1e-3, batch_size=4))) == 5
    assert len(plan_batches([1] * 40, Schedule(0.01, 1e-3, batch_size=4))) == 1


def test_counterpart_sees_the_same_rows_in_the_same_order() -> None:
    """The plan depends on lengths and seed alone, so aligned runs can share it."""
    schedule = Schedule(2, 1e-3, batch_size=4, seed=3)
    assert plan_batches([5, 3] * 9, schedule) == plan_batches([5, 3] * 9, schedule)


def test_loss_equals_the_library_s_own(checkpoint: Checkpoint, rows: list[Example]) -> None:
    """On a padded batch the loss is what transformers computes from masked labels."""
    encoded = _encoded(checkpoint, rows)[:3]
    batch = collate(encoded, [0, 1, 2], CPU)
    labels_BT = batch.input_BT.masked_fill(~batch.response_BT, -100)
    with torch.inference_mode():
        theirs = checkpoint.model(
            input_ids=batch.input_BT, attention_mask=batch.attention_BT, labels=labels_BT
        ).loss
        ours = language_modeling(checkpoint.model, batch)
    torch.testing.assert_close(ours, theirs)
    assert mean_loss(checkpoint.model, encoded, batch_size=3) == pytest.approx(float(theirs))


def test_mean_loss_does_not_depend_on_the_batch_size(
    llama: Checkpoint, rows: list[Example]
) -> None:
    """The mean is over response tokens, however they are batched."""
    encoded = _encoded(llama, rows)
    one, other = (mean_loss(llama.model, encoded, batch_size=size) for size in (1, 5))
    assert one == pytest.approx(other, rel=1e-5)


def test_only_allowed_parameters_move(llama: Checkpoint, rows: list[Example]) -> None:
    """What does not require a gradient keeps its bits."""
    before = _weights(llama)
    allowed = set(set_trainable(llama.model, "mlp"))
    train(llama.model, _encoded(llama, rows), Schedule(1, 1e-3))
    after = _weights(llama)
    assert {name for name in before if not torch.equal(before[name], after[name])} == allowed


def test_progress_is_told_of_each_step(llama: Checkpoint, rows: list[Example]) -> None:
    """Progress counts the steps."""
    seen: list[tuple[int, int]] = []
    train(
        llama.model,
        _encoded(llama, rows),
        Schedule(1, 1e-3, batch_size=6),
        progress=lambda step, steps: seen.append((step, steps)),
    )
    assert seen == [(1, 2), (2, 2)]


def test_nothing_to_train_is_an_input_error(llama: Checkpoint, rows: list[Example]) -> None:
    """No rows, and no parameter that may change, are both refused."""
    with pytest.raises(InputError, match="no rows"):
        train(llama.model, [], Schedule(1, 1e-3))
    llama.model.requires_grad_(False)
    with pytest.raises(InputError, match="No parameter"):
        train(llama.model, _encoded(llama, rows), Schedule(1, 1e-3))


def test_loss_that_is_no_number_stops_the_run(llama: Checkpoint, rows: list[Example]) -> None:
    """A diverged model is reported, not trained on."""
    with torch.no_grad():
        llama.model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(InputError, match="finite"):
        train(llama.model, _encoded(llama, rows), Schedule(1, 1e-3))


def test_collate_pads_and_marks_responses() -> None:
    """Padding is neither attended to nor predicted; targets are the response tokens."""
    rows = [Encoded((7, 8, 9), 1), Encoded((4, 5, 6, 7, 8), 3)]
    batch = collate(rows, [1, 0], CPU)
    assert batch.attention_BT.sum(dim=1).tolist() == [5, 3]
    assert batch.targets_R.tolist() == [7, 8, 8, 9]
    assert batch.rows == (1, 0)


def _encoded(checkpoint: Checkpoint, rows: list[Example]) -> list[Encoded]:
    return [encode(checkpoint.tokenizer, row) for row in rows]


def _trained(family_folder: FamilyFolder, rows: list[Example], seed: int) -> dict[str, Tensor]:
    checkpoint = load(family_folder("llama"), device="cpu")
    train(checkpoint.model, _encoded(checkpoint, rows), Schedule(1, 1e-3, seed=seed))
    return _weights(checkpoint)


def _weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in checkpoint.model.named_parameters()}


def test_an_averaged_run_ends_at_the_mean_of_its_second_half(
    llama: Checkpoint, rows: list[Example]
) -> None:
    """The weights are the mean over the last steps, of a path whose rate does not fall."""
    encoded, path = _encoded(llama, rows), list[torch.Tensor]()
    weight = llama.model.get_input_embeddings().weight

    def note(_step: int, _steps: int) -> None:
        path.append(weight.detach().clone())

    schedule = Schedule(2, 1e-3, batch_size=4, averaged=True)
    train(llama.model, encoded, schedule, progress=note)
    assert len(path) == 6
    torch.testing.assert_close(weight.detach(), torch.stack(path[3:]).mean(dim=0))
    assert not torch.equal(weight, path[-1])


def test_parts_of_a_loss_add_up(family_folder: FamilyFolder, rows: list[Example]) -> None:
    """Two halves, each differentiated by itself, train as their sum does."""

    def half(model: PreTrainedModel, batch: Batch) -> Tensor:
        return language_modeling(model, batch) / 2

    whole, parted = (load(family_folder("llama"), device="cpu") for _ in range(2))
    schedule, encoded = Schedule(1, 1e-3), _encoded(whole, rows)
    losses = train(whole.model, encoded, schedule)
    assert train(parted.model, encoded, schedule, objectives=[half, half]) == pytest.approx(losses)
    for name, weight in _weights(whole).items():
        assert torch.allclose(weight, _weights(parted)[name], atol=1e-5)
