"""Writes a trained run for other programs: `python -m cifarsweep.export RUN --format onnx|safetensors|torch|all`.

Each file takes uint8 images and gives probabilities. It is read again and compared with the run's network on the test
images. README.md beside it is a model card, with front matter as model hubs read it.
"""

if __name__ == "__main__":  # at the top, so that what the imports raise is answered, too
    from cifarsweep.terminal import boundary

    raise SystemExit(boundary.run("cifarsweep.export"))

import io
import json
import logging
import os
import re
import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import yaml
from torch import Tensor

from cifarsweep import classifier, data
from cifarsweep.classifier import Classifier, Probabilities
from cifarsweep.data import DataSet
from cifarsweep.report import tables
from cifarsweep.results import files, folders, records, sweeps
from cifarsweep.results.records import RunResult
from cifarsweep.terminal import boundary, formatting, streams
from cifarsweep.terminal.arguments import Parser

BATCH = 500
TIE = 1e-5
"""Two classes whose probabilities are as near as this may change places: sums of float32 in another order differ."""
TOLERANCE = 1e-4
"""Of a probability. What was seen on CIFAR-10's test images was below 1e-5."""

DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
}
"""Their names on the Hugging Face Hub."""

CARD = """
# {name}

`{model}` with {params:,} parameters, trained on {num_train:,} images of `{data}` for {trained} with
`{optimizer}`, seed {seed}. Classes: {class_names}.

## Results

{measured} Validation accuracy: {validation}.

## Use

- Input `images`: uint8, (N, 3, {size}, {size}): red, green and blue, 0 to 255. The model normalises them itself.
- Output `probabilities`: float32, (N, {num_classes}).
- Metadata `cifarsweep`: JSON, with the names of the classes.

`python -m cifarsweep.predict model.onnx photo.jpg` classifies images. Each file was compared with the trained network:

{comparisons}

## Training

    {command}

With {versions}.

## Limits

The network knows images of {size}×{size} pixels like those of `{data}`. Of others the middle square is scaled, and its
accuracy is unknown. It gives every image one of its classes, also one that shows none of them. Its probabilities were
not calibrated. The MIT licence is that of the code; the images have terms of their own.
"""


@boundary.command
def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m cifarsweep.export", description="Writes a trained run for other programs.")
    parser.add_argument("run", type=Path, help="directory of a complete run, outputs/runs/…, or its run_id")
    parser.add_argument("--format", default="all", help=f"{', '.join(FORMATS)}, or all (default)")
    parser.add_argument("--output", type=Path, help="folder of the files (default: outputs/exports/RUN)")
    parser.add_argument("--data-root", help="where the data set is on this machine, if not where it was")
    args = parser.parse_args(arguments)
    if args.format not in (*FORMATS, "all"):
        raise ValueError(f"--format {args.format}: expected {', '.join(FORMATS)} or all")
    chosen = FORMATS if args.format == "all" else {args.format: FORMATS[args.format]}
    for name, (_, _, packages) in chosen.items():
        if missing := [package for package in packages if find_spec(package) is None]:
            raise ValueError(f"--format {name}: needs {', '.join(missing)}: pip install -e '.[export]'")
    run_dir = folders.meant(args.run, "the directory of a complete run, or its run_id")
    beside = run_dir if run_dir.parent.name else run_dir.absolute()
    output = args.output or beside.parent.parent / "exports" / run_dir.name
    folders.check_writable(output, "--output")
    model = classifier.load(run_dir)
    result = RunResult.read_or_unfinished(run_dir)
    dataset = _dataset(run_dir, result, args.data_root)
    expected = _probabilities(model, dataset.test_images)
    files.make_folder(folders.named(output))
    lines = []
    for file_name, content_of, _ in chosen.values():
        with warnings.catch_warnings():  # of PyTorch (2.14) about what it does itself; what is written is compared
            warnings.simplefilter("ignore")
            content = content_of(model, run_dir)
        with files.atomic(output / file_name, "wb") as file:
            file.write(content)
        compared = _compare(
            expected, _probabilities(classifier.load(output / file_name, trust=True), dataset.test_images)
        )
        if not compared.is_equal:
            files.remove(output / file_name)
            raise ValueError(f"{output / file_name}: not written, as it is not the network of the run: {compared}")
        lines.append(f"{file_name}: {compared}")
        streams.print_line(f"{output / file_name}: {compared}")
    accuracy = (expected.argmax(1) == dataset.test_labels).double().mean().item()
    with files.atomic(output / "README.md") as file:
        file.write(_card(run_dir, result, model, accuracy, lines))
    streams.print_line(str(output / "README.md"))
    return 0


def _dataset(run_dir: Path, result: RunResult, root: str | None) -> DataSet:
    """The data set of the run, by a loader of ours. ValueError where it is another one, or not there."""
    result.check(run_dir, "config.yaml")
    values = dict(records.read_config(run_dir)["data"])
    target = str(values.pop("_target_", None))
    load = (
        getattr(data, target.rpartition(".")[2], None) if re.fullmatch(r"cifarsweep\.data\.load_\w+", target) else None
    )
    if load is None:
        raise ValueError(f"{run_dir / 'config.yaml'}: data._target_={target}: expected a data set of cifarsweep")
    if "cache" in values:  # where this machine has it
        values["cache"] = os.environ.get("CIFARSWEEP_CACHE", "~/.cache/cifarsweep")
    dataset = cast(DataSet, load(**values | ({"root": root} if root is not None else {})))
    if dataset.fingerprint != result.data_fingerprint:
        raise ValueError(f"data_fingerprint: was {result.data_fingerprint}, is {dataset.fingerprint}: other images")
    return dataset


# formats


def _safetensors(model: Classifier, run_dir: Path) -> bytes:
    from safetensors.torch import save

    content = torch.load(io.BytesIO(files.read_bytes(run_dir / "model.pt")), weights_only=True)
    tensors = {name: value.contiguous() for name, value in content.pop("state_dict").items()}
    return cast(bytes, save(tensors, {"format": "pt", "cifarsweep": json.dumps(content)}))


def _onnx(model: Classifier, run_dir: Path) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(_exported(model), verbose=False, input_names=["images"], output_names=["probabilities"])
    assert program is not None
    program.model.metadata_props["cifarsweep"] = _metadata(model)
    return cast(bytes, program.model_proto.SerializeToString())


def _torch(model: Classifier, run_dir: Path) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_exported(model), buffer, extra_files={"cifarsweep": _metadata(model)})
    return buffer.getvalue()


def _exported(model: Classifier) -> torch.export.ExportedProgram:
    """For any number of images."""
    images = torch.zeros(2, 3, model.image_size, model.image_size, dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("N")}}
    return torch.export.export(cast(Probabilities, model.probabilities), (images,), dynamic_shapes=shapes)


def _metadata(model: Classifier) -> str:
    return json.dumps({"class_names": model.class_names, "image_size": model.image_size})


Format = tuple[str, Callable[[Classifier, Path], bytes], Iterable[str]]
FORMATS: Mapping[str, Format] = {
    "onnx": ("model.onnx", _onnx, ("onnx", "onnxscript", "onnxruntime")),
    "safetensors": ("model.safetensors", _safetensors, ("safetensors",)),
    "torch": ("model.pt2", _torch, ()),
}
"""The name of the file, what makes its content, and the packages that this needs."""


# comparison


class Comparison(NamedTuple):
    num_images: int
    num_ties: int
    """Images with another class, of two whose probabilities are as near as TIE."""
    num_others: int
    difference: float
    """The largest of a probability."""

    @property
    def is_equal(self) -> bool:
        return self.num_others == 0 and self.difference <= TOLERANCE

    def __str__(self) -> str:
        others = f"another class for {self.num_others:,} of them, " if self.num_others else "the same class, "
        ties = f"but for {self.num_ties} of two classes nearer than {TIE:g}, " if self.num_ties else ""
        return f"{self.num_images:,} test images: {others}{ties}probabilities within {self.difference:.1g}"


def _compare(expected: Tensor, found: Tensor) -> Comparison:
    best = expected.topk(min(2, expected.shape[1]), dim=1).values
    is_other = expected.argmax(1) != found.argmax(1)
    is_tie = is_other & (best[:, 0] - best[:, -1] < TIE)
    difference = (expected - found).abs().max().item()
    return Comparison(len(expected), int(is_tie.sum()), int((is_other & ~is_tie).sum()), difference)


@torch.inference_mode()
def _probabilities(model: Classifier, images: Tensor) -> Tensor:
    return torch.cat([model(batch) for batch in torch.split(images, BATCH)])


# model card


def _card(run_dir: Path, result: RunResult, model: Classifier, accuracy: float, comparisons: Iterable[str]) -> str:
    seeds = _seeds(run_dir, result)
    dataset = {"name": result.data, "type": DATASETS.get(result.data, result.data), "split": "test"}
    metrics = [{"type": "accuracy", "value": accuracy, "name": "Accuracy of this model"}]
    measured = f"{accuracy:.2%} of {result.num_test:,} test images, which were seen once, after the last epoch."
    if seeds is not None and seeds["n"] > 1:
        low, mean, high = (float(seeds[f"test_accuracy_{part}"]) for part in ("low", "mean", "high"))
        name = f"Mean accuracy of {seeds['n']} seeds, 95 % interval {low:.4f} to {high:.4f}"
        metrics.append({"type": "accuracy", "value": mean, "name": name})
        measured += f" Over {seeds['n']} seeds the mean is {mean:.2%} (95 % interval {low:.2%} to {high:.2%})."
    results = [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}]
    front = {
        "license": "mit",
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["cifarsweep", result.model],
        **({"datasets": [DATASETS[result.data]]} if result.data in DATASETS else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": run_dir.name, "results": results}],
    }
    lines = [f"- {line}" for line in comparisons]
    texts = {
        **vars(result),
        "name": run_dir.name,
        "trained": formatting.count(result.epochs_trained, "epoch"),
        "size": model.image_size,
        "class_names": ", ".join(model.class_names),
        "num_classes": len(model.class_names),
        "measured": measured,
        "validation": "none" if result.val_accuracy is None else f"{result.val_accuracy:.2%}",
        "comparisons": "\n".join(lines),
        "command": shlex.join(sweeps.command_of(run_dir) or result.command_line),
        "versions": ", ".join(f"{name} {version}" for name, version in result.versions.items()),
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n{CARD.format_map(texts)}"


def _seeds(run_dir: Path, result: RunResult) -> Any:
    """The row of summary.csv for this configuration, over the runs beside this one."""
    same = []
    for other in folders.find(run_dir.parent):
        try:
            if RunResult.read_or_unfinished(other).config_id == result.config_id:
                same.append(other)
        except (OSError, ValueError):  # of no concern to this run
            continue
    summary = tables.read(same, []).summary
    return None if summary.empty else summary.iloc[0]
