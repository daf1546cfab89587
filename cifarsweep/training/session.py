"""The objects of one run, built from its configuration. Trains nothing, writes nothing."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn

from cifarsweep import models
from cifarsweep.data import DataSet
from cifarsweep.optim import parameter_groups
from cifarsweep.results import identity
from cifarsweep.results.records import Description
from cifarsweep.terminal import errors
from cifarsweep.training import layers, process
from cifarsweep.training.configuration import Configuration

NUM_INITIAL = 2000
"""Training images that a model with `initialize_from_data` sees before the first step; fewer where they are large."""
MOST_INITIAL_PIXELS = NUM_INITIAL * 32**2


class Session:
    """Device, network, optimizer, schedule and loss of a run on `dataset`, and the run's description."""

    def __init__(self, configuration: Configuration, dataset: DataSet) -> None:
        node, values = configuration.node, configuration.values
        self.dataset = dataset
        self.device = process.choose_device(values["trainer"]["device"])
        in_bf16 = values["trainer"]["precision"] == "bf16"
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=in_bf16)

        takes = {"image_size": dataset.image_size, "num_classes": len(dataset.class_names)}
        with naming("model"):
            if values["model"]["_target_"].startswith("cifarsweep."):
                with torch.device("meta"):  # counts parameters without making any, and draws no random number
                    process.check_memory(self.device, models.num_parameters(instantiate(node.model, **takes)))
            process.seed(values["seed"])
            model: nn.Module = instantiate(node.model, **takes)
            if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
                raise ValueError(f"{values['model']['_target_']}: expected a torch.nn.Module with parameters")
        if values["model"].get("match") is not None:  # the run is the same as with this width given as such
            values = {**values, "model": {**values["model"], "width": model.width, "match": None}}
        self.values = values
        self.model_arguments = {**{k: v for k, v in values["model"].items() if not k.startswith("_")}, **takes}
        with naming("model"):
            self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if hasattr(self.model, "initialize_from_data"):
                self.model.initialize_from_data(_first_images(dataset, self.device))
            self.layers = layers.trace(self.model, dataset.train_images.shape[1:])
        with naming("optimizer"):
            self.optimizer: torch.optim.Optimizer = instantiate(node.optimizer)(parameter_groups(self.model))
        with naming("schedule"):
            self.schedule: Callable[[int, int], float] = instantiate(node.schedule)
            float(self.schedule(0, 1))
        with naming("loss"):
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


def _first_images(dataset: DataSet, device: torch.device) -> Tensor:
    """Normalised training images (N, C, H, W), without augmentation."""
    train = dataset.batchers(device).train
    num = min(NUM_INITIAL, max(1, MOST_INITIAL_PIXELS // dataset.image_size**2))
    ((images, _),) = replace(train, indices=train.indices[:num]).evaluation(num)
    return images


def load_data(configuration: Configuration) -> DataSet:
    """The data set that the configuration names."""
    dataset = instantiate(configuration.node.data)
    if not isinstance(dataset, DataSet):
        target = configuration.values["data"]["_target_"]
        raise ValueError(f"data._target_={target}: expected a function that returns a cifarsweep.data.DataSet")
    return dataset


@contextmanager
def naming(group: str) -> Iterator[None]:
    """ValueError names the group of the configuration whose class raised anything, in one line."""
    try:
        yield
    except InstantiationException as error:  # which says the group
        if not errors.is_users(error) and not isinstance(error.__cause__, RuntimeError):  # which is PyTorch's word
            raise
        raise ValueError(errors.one_line(error)) from error
    except Exception as error:
        says_its_kind = isinstance(error, ValueError | TypeError | RuntimeError | OSError) or not str(error)
        kind = "" if says_its_kind else f"{type(error).__name__}: "
        raise ValueError(f"{group}: {kind}{errors.one_line(error)}") from error
