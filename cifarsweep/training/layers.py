"""A network layer by layer, as one image passes through it. Knows PyTorch and how a run records a layer."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from cifarsweep.results.records import Layer


def trace(model: nn.Module, image_shape: Sequence[int]) -> list[Layer]:
    """Every layer of the forward pass of one image (C, H, W), in the order of the computation.

    A layer is a module without modules of its own, or a function called between them, such as a residual's addition.
    Trainable parameters are counted where they are first used. Multiply-adds are those of convolutions and matrix
    products, as PyTorch's FlopCounterMode counts them. Leaves the model as it was.
    """
    was_training = model.training
    image = torch.zeros(1, *image_shape, device=next(model.parameters()).device)
    counter = FlopCounterMode(display=False)
    recorder = _Recorder(counter, image)
    with torch.no_grad(), counter, recorder:
        handles = [handle for name, module in model.named_modules() for handle in recorder.listen(name, module)]
        try:
            model.eval()(image)
        finally:
            for handle in handles:
                handle.remove()
    model.train(was_training)
    return recorder.layers


class _Recorder(TorchFunctionMode):
    """Records each call of a module without children, and each function called outside of such modules."""

    def __init__(self, counter: FlopCounterMode, image: Tensor) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._counter = counter
        self._made_by: dict[int, int] = {id(image): 0}
        self._kept: list[Any] = [image]  # so that no id is given to another tensor
        self._counted: set[int] = set()
        self._inside = 0
        self._flops_before = 0

    def listen(self, name: str, module: nn.Module) -> Iterator[Any]:
        if next(module.children(), None) is not None:
            return

        def end(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._end(name, _kind(module), [args, kwargs], list(module.parameters()), output)

        yield module.register_forward_pre_hook(lambda *given: self._begin())
        yield module.register_forward_hook(end, with_kwargs=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._inside:
            return func(*args, **(kwargs or {}))
        self._begin()
        try:
            output = func(*args, **(kwargs or {}))
        except BaseException:
            self._inside -= 1
            raise
        given = list(_tensors([args, kwargs]))
        parameters = [tensor for tensor in given if isinstance(tensor, nn.Parameter)]
        computes = any(id(tensor) in self._made_by for tensor in given) or parameters
        if computes and any(True for _ in _tensors(output)):
            self._end("", func.__name__.strip("_"), given, parameters, output)
        else:  # a size, or a tensor that no image went into
            self._inside -= 1
        return output

    def _begin(self) -> None:
        if not self._inside:
            self._flops_before = self._counter.get_total_flops()
        self._inside += 1

    def _end(self, name: str, kind: str, given: Any, parameters: list[nn.Parameter], output: Any) -> None:
        made = list(_tensors(output))
        inputs = dict.fromkeys(self._made_by[id(t)] for t in _tensors(given) if id(t) in self._made_by)
        params = sum(p.numel() for p in parameters if p.requires_grad and id(p) not in self._counted)
        multiply_adds = (self._counter.get_total_flops() - self._flops_before) // 2
        shape = tuple(made[0].shape[1:]) if made else ()
        self.layers.append(Layer(name, kind, tuple(inputs), shape, params, multiply_adds))
        self._counted |= {id(p) for p in parameters}
        self._made_by |= {id(tensor): len(self.layers) for tensor in made}
        self._kept += made
        self._inside -= 1  # last: to ask a tensor for its shape is a function call, too


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _kind(module: nn.Module) -> str:
    """The class of PyTorch that it is or derives from, and what its shapes do not tell: Conv2d 3×3, stride 2."""
    classes = [kind for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn") and kind != nn.Module]
    name = (classes or [type(module)])[0].__name__
    size = getattr(module, "kernel_size", None)
    details = [name if size is None else f"{name} {_by(size)}"]
    stride = getattr(module, "stride", size)
    usual = size if "Pool" in name else 1
    if size is not None and _by(stride) != _by(usual):
        details.append(f"stride {_by(stride)}")
    if getattr(module, "groups", 1) != 1:
        details.append(f"{module.groups} groups")
    if isinstance(module, nn.Dropout):
        details[0] += f" {module.p:g}"
    return ", ".join(details)


def _by(size: Any) -> str:
    """3×3 of 3 or (3, 3)."""
    sizes = tuple(size) if isinstance(size, tuple | list) else (size, size)
    return "×".join(map(str, sizes))
