"""How the progress of a measurement is shown: by a function of the caller, or by a bar."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from natstats.errors import UsageError
from natstats.measurement.image_loop import Progress

__all__ = ["is_notebook", "shown_progress"]


def is_notebook() -> bool:
    """Whether this runs in the kernel of a notebook; nothing is imported to find out.

    >>> is_notebook()
    False
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and getattr(shell, "kernel", None) is not None


@contextlib.contextmanager
def shown_progress(
    asked: Progress | bool | None, unit: str = "images"
) -> Iterator[Progress | None]:
    """The function that is called after each batch, for as long as the context is open.

    Args:
        asked: a function, which is used as it is; True for a bar of tqdm, which suits a terminal
            as well as a notebook; False for nothing; None for a bar in a notebook only.
        unit: what is counted.

    Raises:
        UsageError: it is none of these.
    """
    if asked is not None and not isinstance(asked, bool) and not callable(asked):
        raise UsageError(
            f"progress: expected True, False or a function of images done and in all; got {asked!r}"
        )
    if callable(asked):
        yield asked
        return
    if not (is_notebook() if asked is None else asked):
        yield None
        return
    bars: list[Any] = []

    def update(done: int, total: int) -> None:
        if not bars:  # of several processes only the first comes here
            bars.append(_bar(unit))
        bar = bars[0]
        bar.total = total or None  # not known of a stream
        bar.update(done - bar.n)

    try:
        yield update
    finally:
        for bar in bars:
            bar.close()


def _bar(unit: str) -> Any:
    with warnings.catch_warnings():
        # Without ipywidgets a notebook shows the bar as text, which is good enough.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    return tqdm(unit=f" {unit}", dynamic_ncols=True)
