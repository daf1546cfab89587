"""What is minimised and how: schedules as step -> factor, Muon for whole networks, the square error."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# schedules: the factor on every learning rate at `step` of `num_steps`, steps counted from 0


def onecycle(step: int, num_steps: int, warmup: float = 0.25) -> float:
    """Linear from 0 to 1 over the first `warmup` of the training, then to 0 (Smith, "Super-convergence", 2017)."""
    peak = warmup * num_steps
    return (step + 1) / peak if step + 1 < peak else (num_steps - step) / (num_steps - peak + 1)


def cosine(step: int, num_steps: int, warmup: float = 0.0) -> float:
    """Linear warm-up, then half a cosine from 1 to 0 (Loshchilov and Hutter, "SGDR", 2016)."""
    peak = warmup * num_steps
    if step + 1 < peak:
        return (step + 1) / peak
    return 0.5 * (1 + math.cos(math.pi * max(step - peak, 0) / (num_steps - peak)))


def step(step: int, num_steps: int, milestones: Iterable[float] = (0.5, 0.75), gamma: float = 0.1) -> float:
    """1, times `gamma` after each milestone, given as a part of the training."""
    return gamma ** sum(step >= milestone * num_steps for milestone in milestones)


def constant(step: int, num_steps: int, warmup: float = 0.0) -> float:
    """1 throughout, after a linear warm-up over the first `warmup` of the training."""
    return min(1.0, (step + 1) / (warmup * num_steps)) if warmup else 1.0


# optimizers


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weights in a group, and all vectors (biases and normalisation) in another, without weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim >= 2]
    vectors = [p for p in trained if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon for matrices, torch.optim.AdamW for the rest, under one learning rate.

    A convolution's filters count as one matrix (out, in·height·width). The last weight of the network, whose
    rows are classes and not features, goes to AdamW with the vectors (Jordan, "Muon", 2024). Muon's update is
    scaled to AdamW's size (Liu et al., "Muon is scalable for LLM training", 2025), so one lr fits both.

    `relative_lr` is a learning rate of the matrices alone; lr is that of the rest then. Instead of weight decay they
    have a constant norm, √out: each is scaled to it before a step, so that relative_lr says by how much of themselves
    they change (Jordan, airbench94_muon.py, 2024). It suits a network that normalises what comes out of a matrix.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        relative_lr: float | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._is_relative = relative_lr is not None
        weights = [(group, p) for group in self.param_groups for p in group["params"] if p.ndim >= 2]
        last = weights[-1][1] if weights else None
        # Views share storage with the parameters, which must therefore keep it: move a model before this.
        self._matrices = [(p, nn.Parameter(_matrix(p.detach()))) for _, p in weights if p is not last]
        matrix_of = {id(p): matrix for p, matrix in self._matrices}
        self._parts: list[tuple[torch.optim.Optimizer, list[dict[str, Any]], float]] = []
        """Each with the groups that its own groups follow, and their learning rate as a multiple of that of those."""
        for of_matrices in (True, False):
            groups, inner_groups = [], []
            for group in self.param_groups:
                params = [matrix_of.get(id(p), p) for p in group["params"] if (id(p) in matrix_of) == of_matrices]
                if params:
                    groups.append(group)
                    inner_groups.append({**group, "params": params})
            if groups and of_matrices:
                if self._is_relative:
                    inner_groups = [{**group, "weight_decay": 0.0} for group in inner_groups]
                scale = "original" if self._is_relative else "match_rms_adamw"
                muon = torch.optim.Muon(inner_groups, momentum=momentum, adjust_lr_fn=scale)
                self._parts.append((muon, groups, (relative_lr or lr) / lr))
            elif groups:
                self._parts.append((torch.optim.AdamW(inner_groups, betas=(0.9, 0.95)), groups, 1.0))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update, without a closure, at the learning rates of this optimizer's own groups."""
        assert closure is None
        for parameter, matrix in self._matrices:
            matrix.grad = None if parameter.grad is None else _matrix(parameter.grad)
            if self._is_relative:
                matrix.mul_(len(matrix) ** 0.5 / matrix.norm())
        for inner, groups, multiple in self._parts:
            for inner_group, group in zip(inner.param_groups, groups, strict=True):
                inner_group["lr"] = multiple * group["lr"]
            inner.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [inner.state_dict() for inner, *_ in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for (inner, groups, multiple), state in zip(self._parts, state_dict["parts"], strict=True):
            inner.load_state_dict(state)
            for group, inner_group in zip(groups, inner.param_groups, strict=True):
                group["lr"] = inner_group["lr"] / multiple


def _matrix(tensor: Tensor) -> Tensor:
    """(out, …) as a matrix (out, the rest) over the same storage, contiguous or channels_last."""
    if tensor.ndim == 4 and not tensor.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)  # channels_last filters are contiguous in this order
    return tensor.view(len(tensor), -1)


# losses


class SquareError(nn.Module):
    """Mean over images of the squared distance between softmax(scores) and the one-hot target (Brier, 1950)."""

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        probabilities = scores.float().softmax(dim=1)
        target = nn.functional.one_hot(labels, scores.shape[1])
        return (probabilities - target).square().sum(dim=1).mean()
