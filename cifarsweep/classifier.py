"""A trained network with its preprocessing: uint8 images in, probabilities out. Trains and instantiates nothing that a
results folder names: the network is one of cifarsweep.models, the weights are opened with weights_only=True."""

import io
import json
import logging
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarsweep import models
from cifarsweep.data import read_image
from cifarsweep.results import files, folders
from cifarsweep.results.records import RunResult

MOST_SIZE = 4096
"""Pixels a side: an image of that size takes 200 MB."""


class Probabilities(nn.Module):
    """The softmax of what a network makes of uint8 images (N, channels, height, width).

    `mean` and `std` are those of each channel, of pixels from 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network((images / 255 - self.mean) / self.std)
        return scores.softmax(dim=1)


class Classifier(nn.Module):
    """Takes uint8 images (N, 3, image_size, image_size), gives probabilities (N, classes)."""

    def __init__(self, probabilities: nn.Module, class_names: list[str], image_size: int) -> None:
        super().__init__()
        if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
            raise ValueError("class_names: expected a list of texts")
        if type(image_size) is not int or not 1 <= image_size <= MOST_SIZE:
            raise ValueError(f"image_size={image_size}: expected a whole number, 1 to {MOST_SIZE}")
        self.probabilities, self.class_names, self.image_size = probabilities, class_names, image_size
        """The names of two classes may be the same."""

    def forward(self, images: Tensor) -> Tensor:
        probabilities: Tensor = self.probabilities(images)
        return probabilities

    def read(self, image: Path | str) -> Tensor:
        """The middle square of an image file, as the network takes it: uint8 (3, image_size, image_size).

        OSError or ValueError where the file cannot be read.
        """
        try:
            files.check_file(Path(os.path.realpath(image)))  # a FIFO would be waited for
            return torch.tensor(read_image(Path(image), self.image_size)).permute(2, 0, 1)
        except (FileNotFoundError, PermissionError, IsADirectoryError, files.Corrupt):
            raise
        except Exception as error:  # whatever a decoder raises on a damaged file
            raise ValueError(f"{image}: not an image that can be read ({error})") from error


def load(path: Path, trust: bool = False) -> Classifier:
    """The classifier of a run, or of a file that cifarsweep.export wrote, in evaluation mode. ValueError for neither.

    `trust` opens what torch.export writes, which may run any code.
    """
    if path.suffix in _READERS and not path.is_dir():
        return _opened(Path(os.path.realpath(path)), _READERS[path.suffix], trust)  # the user may name it by a link
    run_dir = folders.meant(path, "the directory of a complete run, or its run_id")
    if result := RunResult.read(run_dir):
        result.check(run_dir, "model.pt")
    for name in (RunResult.file, "model.pt"):  # without the first, nobody knows what the second should be
        if not os.path.lexists(run_dir / name):
            reason = f"no {name} in it, expected the directory of a complete run"
            raise ValueError(f"{run_dir}: {reason}; {RunResult.made_again_by}")
    return _opened(run_dir / "model.pt", _of_weights, trust)


def _opened(path: Path, read: Callable[[bytes], Classifier], trust: bool) -> Classifier:
    """ValueError names a file that cannot be read, a package that is missing, or what is not trusted."""
    if read is _of_torch_export and not trust:
        raise ValueError(f"{path}: may run any code, as torch.export uses pickle; see --trust")
    content = files.read_bytes(path, files.MOST_WEIGHTS)
    if read is _of_onnx and find_spec("onnxruntime") is None:
        raise ValueError(f"{path}: needs onnxruntime: pip install -e '.[export]'")
    try:
        return read(content).eval()
    except Exception as error:  # of pickle, zip, the runtime or the network: all say that this is no file of ours
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if isinstance(error, KeyError):
            reason = f"{reason} is missing in it, expected what cifarsweep wrote"
        raise ValueError(f"{path}: not a model file ({reason})") from error


def _of_weights(content: bytes) -> Classifier:
    """Of model.pt."""
    return _built(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def _built(content: Mapping[str, Any]) -> Classifier:
    """Raises whatever comes of content that is not what a run writes."""
    target, arguments, class_names = content["target"], content["arguments"], content["class_names"]
    name = target.removeprefix(f"{models.__name__}.")
    makes = None if name.startswith("_") else getattr(models, name, None)
    if not callable(makes) or f"{makes.__module__}.{makes.__name__}" != target:
        raise ValueError(f"target={target}: expected one of {models.__name__}")
    mean, std = (torch.tensor(content[key], dtype=torch.float32).flatten() for key in ("mean", "std"))
    if not (mean.shape == std.shape and mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise ValueError("mean, std: expected finite numbers, above 0 as std")
    with torch.device("meta"):  # whatever size the arguments say, memory is taken for the weights that are there only
        network = makes(**arguments)
    network.load_state_dict(content["state_dict"], assign=True)
    classifier = Classifier(Probabilities(network, mean, std), class_names, arguments["image_size"]).eval()
    with torch.inference_mode():
        probabilities = classifier(torch.zeros(1, len(mean), *2 * [classifier.image_size], dtype=torch.uint8))
    if probabilities.shape != (1, len(class_names)):
        raise ValueError(f"{len(class_names)} class_names: expected {probabilities.shape[-1]}")
    return classifier


# what cifarsweep.export writes


def _of_safetensors(content: bytes) -> Classifier:
    """The header is read as the format says (8 bytes of length, JSON): the package gives no metadata of bytes."""
    from safetensors.torch import load

    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return _built({**json.loads(metadata["cifarsweep"]), "state_dict": load(content)})


def _of_onnx(content: bytes) -> Classifier:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map["cifarsweep"]
    return _of_program(
        lambda images: torch.from_numpy(session.run(["probabilities"], {"images": images.numpy()})[0]), metadata
    )


def _of_torch_export(content: bytes) -> Classifier:
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)  # it logs what it raises as well
    extra = {"cifarsweep": ""}
    module = torch.export.load(io.BytesIO(content), extra_files=extra).module()
    return _of_program(lambda images: module(images), extra["cifarsweep"])


def _of_program(call: Callable[[Tensor], Tensor], metadata: str) -> Classifier:
    known = json.loads(metadata)
    return Classifier(_Program(call), known["class_names"], known["image_size"])


class _Program(nn.Module):
    """Hides a program from nn.Module.eval(), which one of torch.export refuses (2.14): it was exported so."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._call = call

    def forward(self, images: Tensor) -> Tensor:
        return self._call(images)


_READERS = {".safetensors": _of_safetensors, ".onnx": _of_onnx, ".pt2": _of_torch_export}
