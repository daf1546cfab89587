"""The objects of one run, built from its configuration. Trains nothing, writes nothing."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from hydra.utils import instantiate
from torch import nn

from cifarsweep import models
from cifarsweep.data import DataSet
from cifarsweep.optim import parameter_groups
from cifarsweep.results import identity
from cifarsweep.results.records import Description
from cifarsweep.training import layers, process
from cifarsweep.training.configuration import Configuration


class Session:
    """Device, network, optimizer, schedule and loss of a run on `dataset`, and the run's description."""

    def __init__(self, configuration: Configuration, dataset: DataSet) -> None:
        node, values = configuration.node, configuration.values
        self.dataset = dataset
        self.device = process.choose_device(values["trainer"]["device"])
        in_bf16 = values["trainer"]["precision"] == "bf16"
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=in_bf16)

        process.seed(values["seed"])
        takes = {"image_size": dataset.image_size, "num_classes": len(dataset.class_names)}
        model: nn.Module = instantiate(node.model, **takes)
        if values["model"].get("match") is not None:  # the run is the same as with this width given as such
            values = {**values, "model": {**values["model"], "width": model.width, "match": None}}
        self.values = values
        self.model_arguments = {**{k: v for k, v in values["model"].items() if k != "_target_"}, **takes}
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.layers = layers.trace(self.model, dataset.train_images.shape[1:])

        make_optimizer = instantiate(node.optimizer)
        self.schedule: Callable[[int, int], float] = instantiate(node.schedule)
        with _unknown_arguments_refused("optimizer"):
            self.optimizer: torch.optim.Optimizer = make_optimizer(parameter_groups(self.model))
        with _unknown_arguments_refused("schedule"):
            self.schedule(0, 1)
        self.loss_fn: nn.Module = instantiate(node.loss)
        # Full batches; what is left over waits for another epoch's order.
        self.steps_per_epoch = len(dataset.train_indices) // int(values["batch_size"])
        self.choices = configuration.choices
        self.description = self._describe()

    def _describe(self) -> Description:
        values, dataset, choices = self.values, self.dataset, self.choices
        what = identity.identity(values, dataset.fingerprint)
        depth = values["model"].get("depth")
        return Description(
            run_id=identity.run_id(what),
            config_id=identity.config_id(what),
            data=dataset.name,
            model=choices["model"] if depth is None else re.sub(r"\d*$", str(depth), choices["model"], count=1),
            depth=depth,
            width=values["model"].get("width"),
            params=models.num_parameters(self.model),
            flops=2 * sum(layer.multiply_adds for layer in self.layers),
            optimizer=choices["optimizer"],
            lr=values["optimizer"]["lr"],
            batch_size=values["batch_size"],
            schedule=choices["schedule"],
            loss=choices["loss"],
            epochs=values["trainer"]["epochs"],
            seed=values["seed"],
            data_fingerprint=dataset.fingerprint,
        )


@contextmanager
def _unknown_arguments_refused(group: str) -> Iterator[None]:
    """ValueError where what was built from this group of the configuration does not take one of its keys."""
    try:
        yield
    except TypeError as error:
        raise ValueError(f"{group}: {error}") from error
