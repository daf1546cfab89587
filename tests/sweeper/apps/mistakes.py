"""Does what an application should not do."""

from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from cifarsweep import trial

# Hydra 1.3 warns where version_base is not given; 1.4 where it is, and where nothing says what may be instantiated.
VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}

ConfigStore.instance().store("mistakes", {"mistake": "nothing", "x": 0})


class Tensor:
    """What has a number in it, but is none."""

    def item(self) -> float:
        return 1.0


def reports(*measured: tuple[int, object]) -> float:
    for step, value in measured:
        trial.report(step, value)
    return 1.0


def records(**facts: object) -> float:
    trial.record(**facts)
    return 1.0


def raises() -> float:
    raise RuntimeError("the application's own error")


MISTAKES = {
    "nothing": lambda: 1.0,
    "raises": raises,
    "none": lambda: None,
    "text": lambda: "good",
    "no_number": lambda: float("nan"),
    "too_many": lambda: [1.0, 2.0],
    "tensor": lambda: reports((1, Tensor())),
    "twice": lambda: reports((1, 0.5), (1, 0.5)),
    "complex": lambda: 1j,
    "huge": lambda: 10**5000,
    "huge_report": lambda: reports((1, 10**400)),
    "far_step": lambda: reports((10**30, 0.5)),
    "own_fact": lambda: records(warm_start=True),
    "odd_fact": lambda: records(path=Path("x")),
    "backwards": lambda: reports((2, 0.5), (1, 0.5)),
}


@hydra.main(config_path=None, config_name="mistakes", **VERSION)
def main(cfg: DictConfig) -> float:
    return MISTAKES[cfg.mistake]()


if __name__ == "__main__":
    main()
