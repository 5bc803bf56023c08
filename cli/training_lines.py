"""What is said of a training while it runs: a line for every epoch, and points for TensorBoard."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import output

if TYPE_CHECKING:
    from natstats.distill.training.distributed import Processes

__all__ = ["EpochLines", "logs", "sparkline"]

BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 20


def sparkline(values: Sequence[float]) -> str:
    """A curve in one line, a letter for every value; the lowest and the highest span its height.

    >>> sparkline([0.1, 0.2, 0.45, 0.8])
    '▁▂▄█'
    >>> sparkline([0.5]), sparkline([0.5, 0.5])
    ('', '▁▁')
    """
    if len(values) < 2:
        return ""
    low, reach = min(values), max(values) - min(values)
    steps = len(BARS) - 1
    return "".join(BARS[round(steps * (v - low) / reach) if reach else 0] for v in values)


def in_words(seconds: float) -> str:
    """A time that is left.

    >>> in_words(59.4), in_words(60), in_words(7300)
    ('59 s', '1 min', '2 h 2 min')
    """
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class EpochLines:
    """Makes a line of every record of a training's history.

    Args:
        stages: name and epochs of every stage, in their order.
        now: a clock, s.

    >>> ticks = iter([0.0, 30.0])
    >>> lines = EpochLines([("main", 3)], now=lambda: next(ticks))
    >>> row = {"stage": "main", "epoch": 1, "loss": 1.25, "eval_accuracy": 0.5}
    >>> lines.line({**row, "eval_images": 160.0, "images_per_second": 512.0, "memory_mib": 843.2})
    'main 1  loss 1.250  accuracy 50.00 % of 160  512 images/s  1 min left  843 MiB'
    """

    def __init__(self, stages: Sequence[tuple[str, int]], now: Any = time.monotonic) -> None:
        self._stages, self._now, self._began = list(stages), now, now()
        self._n_epochs = 0
        self._curve: list[float] = []

    def _left(self, row: Mapping[str, Any]) -> float:
        """Seconds to come, by those of the epochs so far."""
        names = [name for name, _ in self._stages]
        place = names.index(row["stage"])
        to_come = sum(epochs for _, epochs in self._stages[place:]) - row["epoch"]
        return (self._now() - self._began) / self._n_epochs * to_come

    def line(self, row: Mapping[str, Any]) -> str:
        """The line of a record; what it does not know is left out."""
        self._n_epochs += 1

        def known(name: str) -> float | None:
            value = row.get(name)
            return None if value is None or math.isnan(value) else value

        parts = [f"{row['stage']} {row['epoch']}", f"loss {row['loss']:.3f}"]
        accuracy, n_images = known("eval_accuracy"), known("eval_images")
        if accuracy is not None:
            self._curve = [*self._curve, accuracy][-MOST_BARS:]
            of = "" if n_images is None else f" of {n_images:.0f}"
            parts.append(f"accuracy {100 * accuracy:.2f} %{of}")
            parts.append(sparkline(self._curve))
        speed, memory = known("images_per_second"), known("memory_mib")
        if speed is not None:
            parts.append(f"{speed:.0f} images/s")
        left = self._left(row)
        if left:
            parts.append(f"{in_words(left)} left")
        if memory is not None:
            parts.append(f"{memory:.0f} MiB")
        return "  ".join(filter(None, parts))


@contextlib.contextmanager
def logs(
    together: Processes, tensorboard: bool, folder: Path, stages: Sequence[tuple[str, int]]
) -> Iterator[Any]:
    """What is done with every record of the history: a line, and a point for TensorBoard."""
    from natstats.errors import UsageError

    writer: Any = None
    if tensorboard and together.is_first:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "tensorboard: expected the package tensorboard, which is not installed "
                "(pip install 'natstats[tensorboard]')"
            ) from None
    lines = EpochLines(stages)

    def log(row: Mapping[str, Any]) -> None:
        nonlocal writer
        output.say(lines.line(row), err=True)
        if tensorboard:
            # Not before there is a state, without which the folder would be that of something else.
            writer = writer or SummaryWriter(str(folder / "tensorboard"))
            for name, value in row.items():
                if isinstance(value, int | float) and name != "epoch" and value == value:
                    writer.add_scalar(f"{row['stage']}/{name}", value, row["epoch"])

    try:
        yield log
    finally:
        if writer is not None:
            writer.close()
