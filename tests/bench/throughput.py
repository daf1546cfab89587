"""Images a second in training, beside a tutorial's loop and beside the limit, in one run.

    python tests/bench/throughput.py [--root FOLDER] [--data shapes] [--rounds 5] [--precision bf16] [--json FILE]

Contenders, measured in turn; the median of several counts:
- cifarsweep: this project's batches (augmentation included), loop and model, as a run has them
- limit: forward, backward and step of the same model and optimizer on batches that are ready
- tutorial: torchvision transforms on PIL images, a DataLoader with two workers, the textbook's network, .item() a step;
  with the start of the two workers, as each of its epochs has it, but once in 12,800 images instead of 50,000; in a
  process without this project's settings of memory and determinism
- evaluate: this project's evaluation, which is to be compared with cifarsweep's training

With one core, each is one process of one thread on it. With all cores, cifarsweep, limit and evaluate are a process a
core, whose rates add up, and the tutorial is one process with all cores, as its users start it.

With --experiments cifar10_90 ..., those of conf/experiment take the place of layersN, at their own batch size, in one
process with all cores, beside the tutorial's layers2; `limit TFLOP/s` is what the limit computes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO, Any

import bench

TRAINED = ("cifarsweep", "limit", "evaluate")
IMAGES = {"cifarsweep": 5000, "limit": 5000, "evaluate": 10_000, "tutorial": 12_800}
"""At least so many a measurement; three batches where that is more."""


Shares = Sequence[Sequence[int]]
"""The cores of each process."""


class Team:
    """Processes that measure the same at the same time, each on its cores."""

    def __init__(self, shares: Shares, words: Sequence[str]) -> None:
        self._processes = [self._start(share, words) for share in shares]

    @staticmethod
    def _start(share: Sequence[int], words: Sequence[str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", __file__, "--worker", ",".join(map(str, share)), *words]
        environment = {**bench.ENVIRONMENT, "OMP_NUM_THREADS": str(len(share))}
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def images_per_second(self, contender: str, model: str, batch_size: int, num_images: int) -> float:
        """The sum over the processes; the loop and its data are ready when the clock starts."""
        for process in self._processes:
            _say(process.stdin, contender, model, batch_size, num_images)
        for process in self._processes:
            _hear(process)
        for process in self._processes:  # all are ready, so all start now
            _say(process.stdin, "go")
        return sum(float(_hear(process)) for process in self._processes)

    def end(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()


class Teams:
    """Those that measure this project and the tutorial."""

    def __init__(self, ours: Shares, theirs: Shares, words: Sequence[str], small: bool) -> None:
        self._ours, self._theirs, self._small = Team(ours, words), Team(theirs, [*words, "--plain"]), small

    def measurement(self, contender: str, model: str, batch_size: int) -> Callable[[], float]:
        team = self._theirs if contender == "tutorial" else self._ours
        num_images = IMAGES[contender] // (10 if self._small else 1)
        return lambda: team.images_per_second(contender, model, batch_size, num_images)

    def end(self) -> None:
        self._ours.end()
        self._theirs.end()


def _say(file: IO[str] | None, *words: object) -> None:
    assert file
    print(*words, file=file, flush=True)


def _hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise ChildProcessError("a measuring process has ended")
    return line


# the side of a measuring process


def work(arguments: argparse.Namespace) -> None:
    share = [int(core) for core in arguments.worker.split(",")]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)
    import torch

    torch.set_num_threads(len(share))
    setup = Setup([*bench.data_words(arguments), f"trainer.precision={arguments.precision}"], arguments.plain)
    for line in sys.stdin:
        contender, model, *numbers = line.split()
        batch_size, num_images = map(int, numbers)
        timed = getattr(setup, contender)(model, batch_size, max(num_images // batch_size, 3))
        next(timed)
        print("ready", flush=True)
        sys.stdin.readline()
        start = time.perf_counter()
        seen = next(timed)
        print(seen / (time.perf_counter() - start), flush=True)


class Setup:
    """The contenders. Each is a generator: it yields once all is ready, then the number of images it has seen."""

    def __init__(self, words: list[str], plain: bool) -> None:
        import hydra
        from hydra.utils import instantiate

        from cifarsweep.sweeper import hydra_compat
        from cifarsweep.training import process

        if not plain:
            process.keep_freed_memory()
            process.set_determinism(True)
        self.words, self.compose = words, hydra.compose
        hydra.initialize_config_dir(str(bench.REPOSITORY / "conf"), **hydra_compat.VERSION_BASE).__enter__()
        self.dataset = instantiate(hydra.compose("config", words).data)
        self.batchers = self.dataset.batchers(process.choose_device("cpu"))

    def _session(self, model: str, batch_size: int) -> Any:
        from cifarsweep.data import Augmentation
        from cifarsweep.training import schema
        from cifarsweep.training.configuration import Configuration
        from cifarsweep.training.session import Session

        overrides = [*self.words, model, f"batch_size={batch_size}", "trainer.device=cpu"]
        choices = {**dict.fromkeys((*schema.CALLS, "trainer"), ""), "model": model.partition("=")[2]}
        configuration = Configuration.of(self.compose("config", overrides), choices)
        augmentation = Augmentation(**configuration.values["data"]["augment"])
        return Session(configuration, replace(self.dataset, augmentation=augmentation))

    def _batches(self, batch_size: int, augmentation: Any = None) -> Iterator[Any]:
        """Augmented ones, epoch after epoch."""
        for epoch in itertools.count():
            yield from self.batchers.train.training(batch_size, augmentation or self.dataset.augmentation, epoch, epoch)

    def cifarsweep(self, model: str, batch_size: int, steps: int) -> Iterator[int]:
        from cifarsweep.terminal import progress
        from cifarsweep.training.loop import train

        progress.send_to(lambda event: None)
        session = self._session(model, batch_size)
        stage = progress.Stage("", 1, 1, "", 0, steps)

        def batches(epoch: int) -> Iterator[Any]:
            images = self._batches(batch_size, session.dataset.augmentation)
            return progress.track(itertools.islice(images, 3 if epoch == 1 else steps), stage)

        trained = train(
            session.model, session.optimizer, session.schedule, session.loss_fn, batches, steps, 2, lambda: None,
            session.autocast,
        )  # fmt: skip
        next(trained)  # three steps that warm up
        yield 0
        next(trained)
        yield steps * batch_size

    def limit(self, model: str, batch_size: int, steps: int) -> Iterator[int]:
        session = self._session(model, batch_size)
        ready = list(itertools.islice(self._batches(batch_size), max(3, 512 // batch_size)))

        def train(steps: int) -> None:
            for images, labels in itertools.islice(itertools.cycle(ready), steps):
                with session.autocast:
                    loss = session.loss_fn(session.model(images), labels)
                session.optimizer.zero_grad()
                loss.backward()
                session.optimizer.step()

        session.model.train()
        train(3)
        yield 0
        train(steps)
        yield steps * batch_size

    def evaluate(self, model: str, batch_size: int, steps: int) -> Iterator[int]:
        from cifarsweep.training.loop import evaluate
        from cifarsweep.training.run import EVALUATION_BATCH

        session, size = self._session(model, batch_size), EVALUATION_BATCH
        num_batches = max(steps * batch_size // size, 2)

        def go(batches: int) -> int:
            some = itertools.islice(itertools.cycle(self.batchers.test.evaluation(size)), batches)
            return len(evaluate(session.model, some, session.loss_fn, session.autocast).predicted)

        go(2)
        yield 0
        yield go(num_batches)

    def tutorial(self, model: str, batch_size: int, steps: int) -> Iterator[int]:
        import torch
        import torchvision.transforms as T
        from torch.utils.data import DataLoader

        transform = T.Compose([T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), T.ToTensor(),
                               T.Normalize(self.dataset.mean, self.dataset.std)])  # fmt: skip
        images = PilImages(self.dataset, transform, steps * batch_size)
        loader: Any = DataLoader(images, batch_size, shuffle=True, num_workers=2)
        net, loss_fn = textbook_network(int(model[-1])), torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

        def train(batches: Iterable[Any]) -> None:
            running_loss = 0.0
            for inputs, labels in batches:
                optimizer.zero_grad()
                loss = loss_fn(net(inputs), labels)
                loss.backward()
                optimizer.step()
                running_loss += loss.item()

        train(itertools.islice(self._batches(batch_size), 3))
        yield 0
        train(loader)
        yield len(images)


class PilImages:
    """Training images as torchvision's data sets give them; from the first again where there are too few."""

    def __init__(self, dataset: Any, transform: Any, num_images: int) -> None:
        from PIL import Image

        self.pixels, self.labels = dataset.train_images.permute(0, 2, 3, 1).numpy(), dataset.train_labels.tolist()
        self.transform, self.num_images, self.from_array = transform, num_images, Image.fromarray

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> tuple[Any, int]:
        index %= len(self.labels)
        return self.transform(self.from_array(self.pixels[index])), self.labels[index]


def textbook_network(depth: int, width: int = 16) -> Any:
    """conv3x3 -> relu -> maxpool, `depth` times, then two fully connected layers."""
    from torch import nn

    layers: list[nn.Module] = []
    channels, side = 3, 32 >> depth
    for level in range(depth):
        layers += [nn.Conv2d(channels, width * 2**level, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width * 2**level
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 128), nn.ReLU(), nn.Linear(128, 10))


# the table


def rows(arguments: argparse.Namespace, words: Sequence[str]) -> Iterator[bench.Row]:
    cores = bench.cores()
    if arguments.experiments:
        yield from experiment_rows(arguments, Teams([cores], [cores], words, arguments.small), len(cores))
        return
    for where, ours, theirs in (
        ("one core", [cores[:1]], [cores[:1]]),
        (f"all {len(cores)} cores", [[core] for core in cores], [cores]),
    ):
        teams = Teams(ours, theirs, words, arguments.small)
        for depth, batch_size in itertools.product(arguments.depths, arguments.batch_sizes):
            model = f"model=layers{depth}"
            contenders = {name: teams.measurement(name, model, batch_size) for name in (*TRAINED, "tutorial")}
            rate = bench.interleaved(contenders, arguments.rounds)
            yield {
                "where": where, "model": f"layers{depth}", "batch_size": batch_size, **rate,
                "of limit": rate["cifarsweep"] / rate["limit"],
                "times tutorial": rate["cifarsweep"] / rate["tutorial"],
                "evaluate/train": rate["evaluate"] / rate["cifarsweep"],
            }  # fmt: skip
        teams.end()


def experiment_rows(arguments: argparse.Namespace, teams: Teams, num_cores: int) -> Iterator[bench.Row]:
    import hydra
    from hydra.utils import instantiate

    from cifarsweep import models
    from cifarsweep.sweeper import hydra_compat

    with hydra.initialize_config_dir(str(bench.REPOSITORY / "conf"), **hydra_compat.VERSION_BASE):
        configs = {name: hydra.compose("config", [f"experiment={name}"]) for name in arguments.experiments}
    for name, config in configs.items():
        model = instantiate(config.model, image_size=32, num_classes=10)
        tflop = 6 * models.num_multiply_adds(model, (3, 32, 32)) / 1e12  # of an image, forward and backward
        contenders = {each: teams.measurement(each, f"experiment={name}", config.batch_size) for each in TRAINED}
        contenders["tutorial"] = teams.measurement("tutorial", "model=layers2", 128)
        rate = bench.interleaved(contenders, arguments.rounds)
        yield {
            "where": f"{num_cores} cores, one process", "model": name, "precision": arguments.precision,
            "batch_size": config.batch_size, **rate, "of limit": rate["cifarsweep"] / rate["limit"],
            "evaluate/train": rate["evaluate"] / rate["cifarsweep"], "limit TFLOP/s": rate["limit"] * tflop,
        }  # fmt: skip
    teams.end()


def main() -> None:
    parser = bench.parser(__doc__, data=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--experiments", nargs="+", default=[], help="of conf/experiment, in place of depths")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of all but the tutorial")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    if arguments.small:
        arguments.rounds, arguments.depths, arguments.batch_sizes = 1, [2], [128]
    words = [
        "--data",
        arguments.data,
        "--root",
        arguments.root,
        "--precision",
        arguments.precision,
        *(["--small"] if arguments.small else []),
    ]
    bench.table(rows(arguments, words), arguments)


if __name__ == "__main__":
    main()
