"""The confusion matrix of one run: which classes were taken for which. Knows the run's confusion.csv, no figures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifarsweep.results import files


@dataclass(frozen=True)
class Confusion:
    names: list[str]
    counts: NDArray[np.int64]
    """Test images, a row a true class, a column a predicted one."""

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Part of each class that was recognised; NaN where the test set has none of it."""
        return self.shares.diagonal()

    @property
    def shares(self) -> NDArray[np.float64]:
        """The parts of each row."""
        totals = self.counts.sum(axis=1, keepdims=True)
        nothing = np.full(self.counts.shape, np.nan)
        return np.asarray(np.divide(self.counts, totals, out=nothing, where=totals > 0), dtype=np.float64)

    def pairs(self, most: int) -> list[tuple[str, str, int, float]]:
        """The most frequent errors: true class, what it was taken for, images, part of the true class's images."""
        errors = self.counts * (1 - np.eye(len(self.names), dtype=int))
        order = np.argsort(-errors, axis=None, kind="stable")[:most]
        cells = [divmod(int(at), len(self.names)) for at in order if errors.flat[at] > 0]
        return [
            (self.names[true], self.names[taken], int(errors[true, taken]), float(self.shares[true, taken]))
            for true, taken in cells
        ]


def read(run_dir: Path) -> Confusion | None:
    """What confusion.csv holds, or None where the run has none. ValueError where it is something else."""
    path = run_dir / "confusion.csv"
    if not path.exists():
        return None
    try:
        header, *rows = list(files.read_rows(path))
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: not a confusion matrix ({error})") from error
    names = header[1:]
    if counts.shape != (len(names), len(names)) or not names or (counts < 0).any():
        raise ValueError(f"{path}: not a confusion matrix, expected as many rows as columns of counts")
    return Confusion(names, counts)
