"""The loop: a step checked by hand, what an epoch reports, divergence, evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cifarsweep.training.loop import Evaluation, evaluate, train

NO_AUTOCAST = torch.autocast("cpu", enabled=False)


def one_batch() -> tuple[Tensor, Tensor]:
    return torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([0, 1])


def fit(model: nn.Module, lr: float, num_epochs: int = 1, **changed: object) -> list[object]:
    arguments = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
        "schedule": lambda step, num_steps: 1.0,
        "loss_fn": nn.CrossEntropyLoss(),
        "batches": lambda epoch: [one_batch()],
        "steps_per_epoch": 1,
        "num_epochs": num_epochs,
        "validate": lambda: None,
        "autocast": NO_AUTOCAST,
    }
    return list(train(**{**arguments, **changed}))  # type: ignore[arg-type]


def test_one_step_of_gradient_descent_is_the_one_computed_by_hand() -> None:
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    (epoch,) = fit(model, lr=0.5)
    # Softmax of zero scores is 1/2; the gradient is the mean over images of (p - one_hot) times the image:
    # class 0: ((0.5 - 1)·(1, 2) + 0.5·(0, -1)) / 2 = (-0.25, -0.75), and class 1 the negative of it.
    expected = -0.5 * torch.tensor([[-0.25, -0.75], [0.25, 0.75]])
    torch.testing.assert_close(model.weight.detach(), expected)
    assert epoch.train_loss == pytest.approx(math.log(2))  # type: ignore[attr-defined]


def test_the_schedule_scales_each_step_and_the_last_rate_is_reported() -> None:
    seen: list[tuple[int, int]] = []

    def schedule(step: int, num_steps: int) -> float:
        seen.append((step, num_steps))
        return 1 / (step + 1)

    model = nn.Linear(2, 2)
    batches = [one_batch(), one_batch()]
    epochs = fit(model, lr=0.1, num_epochs=2, schedule=schedule, batches=lambda epoch: batches, steps_per_epoch=2)
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [e.lr for e in epochs] == pytest.approx([0.05, 0.025])  # type: ignore[attr-defined]


def test_epochs_are_counted_from_one_and_hold_the_validation() -> None:
    values = iter([0.25, 0.75])
    validate = lambda: Evaluation(loss=1.0, accuracy=next(values), predicted=torch.tensor([0]))  # noqa: E731
    epochs = fit(nn.Linear(2, 2), lr=0.1, num_epochs=2, validate=validate)
    assert [(e.epoch, e.val_accuracy) for e in epochs] == [(1, 0.25), (2, 0.75)]  # type: ignore[attr-defined]


def test_a_loss_that_is_not_finite_ends_the_training_with_that_epoch() -> None:
    class Explodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.calls = nn.Linear(2, 2), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.linear(x) * (float("nan") if self.calls == 3 else 1.0)  # type: ignore[no-any-return]

    epochs = fit(Explodes(), lr=0.1, num_epochs=5)
    assert [e.diverged for e in epochs] == [False, False, True]  # type: ignore[attr-defined]


def test_evaluation_weighs_images_not_batches_and_leaves_the_model_as_it_predicts() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Dropout(0.5))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
    images = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, 0])
    batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    result = evaluate(model, batches, nn.CrossEntropyLoss(), NO_AUTOCAST)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.predicted.tolist() == [0, 1, 0]
    assert result.loss == pytest.approx(nn.functional.cross_entropy(images, labels).item())
    assert not model.training


def test_a_mirrored_evaluation_takes_the_mean_scores_of_an_image_and_its_mirror_image() -> None:
    images = torch.tensor([[1.0, 3.0], [2.0, 2.5], [4.0, 0.0]]).view(3, 1, 1, 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    labels = torch.tensor([0, 1, 1])
    result = evaluate(
        model, [(images[:2], labels[:2]), (images[2:], labels[2:])], nn.CrossEntropyLoss(), NO_AUTOCAST, True
    )
    with torch.no_grad():
        scores = (model(images) + model(images[..., [1, 0]])) / 2
    assert result.predicted.tolist() == scores.argmax(1).tolist()
    assert result.loss == pytest.approx(nn.functional.cross_entropy(scores, labels).item())


def test_random_labels_are_memorised_when_trained_long_enough() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(32, 20), torch.randint(4, (32,))
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
    epochs = fit(model, lr=0.5, num_epochs=100, batches=lambda epoch: [(images, labels)])
    assert epochs[-1].train_accuracy == 1.0  # type: ignore[attr-defined]
