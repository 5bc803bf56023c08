"""How to cite: the software and the paper, with the facts of CITATION.cff."""

from __future__ import annotations

from natstats.report.pages.words import REPOSITORY

__all__ = ["citation"]

TITLE, AUTHORS, LICENSE = (
    "natstats: power spectra of network activations", "The natstats developers", "Apache-2.0",
)  # fmt: skip

_PAPER = """@inproceedings{rotman2021natural,
  author = {Rotman, Michael and Wolf, Lior},
  title = {Natural Statistics of Network Activations and Implications for Knowledge Distillation},
  booktitle = {IEEE International Conference on Image Processing (ICIP)},
  year = {2021},
  eprint = {2106.00368},
  archiveprefix = {arXiv},
}"""


def citation(version: str) -> tuple[str, str]:
    """The software in a line, and software and paper as BibTeX.

    >>> print(citation("0.11.0")[0])
    The natstats developers. natstats: power spectra of network activations, version 0.11.0.
    """
    software = f"""@software{{natstats,
  author = {{{{{AUTHORS}}}}},
  title = {{{TITLE}}},
  version = {{{version}}},
  license = {{{LICENSE}}},
  url = {{{REPOSITORY}}},
}}"""
    return f"{AUTHORS}. {TITLE}, version {version}.", f"{software}\n\n{_PAPER}"
