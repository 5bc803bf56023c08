"""The expected spectra of usual map sizes, which come with natstats as a file.

    python analyses/expected_tables.py

Tabulating the spectrum that an ideal field has on maps of 224 x 224 pixels takes longer than
fitting all layers of a network. Map sizes that most networks have are kept in
natstats/spectra/expected_tables.npz; any other is tabulated as it is met. To be run again after a
change of :mod:`natstats.spectra.expected`; a test compares the file with what it gives now.
"""

from __future__ import annotations

import numpy as np

from natstats.spectra import expected

SIDES = (7, 8, 14, 16, 28, 32, 56, 64, 112, 128, 224, 256)
"""Sides of square maps, pixels."""


def main() -> None:
    """Tabulate, and write the file."""
    tables = {f"sine_{side}x{side}": expected._tabulated(side, side, "sine") for side in SIDES}
    np.savez(expected.KEPT, **tables)
    print(expected.KEPT, expected.KEPT.stat().st_size)


if __name__ == "__main__":
    main()
