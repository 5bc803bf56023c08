"""The measures of depth that a law can have on its axis: where their numbers are, and their words.

To add a measure of depth, add a record to :data:`DEPTH_AXES`. The command line reads the names
here, so numpy is imported only where something is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["DEPTH_AXES", "DepthAxis"]


@dataclass(frozen=True)
class DepthAxis:
    """A measure of depth.

    Attributes:
        column: where its numbers are in the table of layers, see
            :func:`natstats.runs.tables.layers_frame`.
        name: as in "the exponent rises with ...".
        axis: label of an axis.
        per: what a slope is per, in full.
        briefly: the same where there is little room.
        meaning: what it is, in a sentence.
        is_count: True for whole numbers with neighbours 1 apart.
        is_share: True when it is divided by its largest value.
        condition: what a layer must have beside its exponent to be placed, for sentences.
    """

    column: str
    name: str
    axis: str
    per: str
    briefly: str
    meaning: str
    is_count: bool = True
    is_share: bool = False
    condition: str = ""

    def values(self, layers: pd.DataFrame) -> NDArray[np.float64]:
        """The depth of every row of the table, (L,); NaN where it is not known.

        >>> import pandas as pd
        >>> layers = pd.DataFrame({"kind": ["input", "conv", "conv"], "depth": [0, 1, 4]})
        >>> DEPTH_AXES["normalized"].values(layers).tolist()
        [0.0, 0.25, 1.0]
        """
        import numpy as np

        column: Any = layers[self.column]
        values: NDArray[np.float64] = np.asarray(column, dtype=np.float64)
        if self.is_share:
            inner = values[np.asarray(layers["kind"] != "input")]
            values = values / max(inner.max(initial=0.0), 1.0)
        return values


DEPTH_AXES = {
    "layers": DepthAxis(
        column="depth",
        name="depth",
        axis="depth (weight layers from the input)",
        per="per weight layer",
        briefly="per layer",
        meaning="number of weight layers on the longest path from the input",
    ),
    "order": DepthAxis(
        column="order",
        name="the order of layers",
        axis="order of execution (weight layers)",
        per="per layer in order of execution",
        briefly="per layer",
        meaning="number of weight layers executed up to and including this one",
        condition=", and a known place in the order",
    ),
    "normalized": DepthAxis(
        column="depth",
        name="relative depth",
        axis="relative depth (deepest layer = 1)",
        per="over the whole depth",
        briefly="over all",
        meaning="number of weight layers on the longest path from the input, as a share of that "
        "number for the deepest layer measured",
        is_count=False,
        is_share=True,
    ),
    "receptive-field": DepthAxis(
        column="receptive_field",
        name="the receptive field",
        axis="side of the receptive field (input pixels)",
        per="per input pixel of receptive field",
        briefly="per pixel",
        meaning="side of the theoretical receptive field along the height, in pixels of the input; "
        "it is not cut at the border of the image",
        is_count=False,
        condition=", and a known receptive field",
    ),
}
"""The measures of depth by name, the default first."""
