"""The words of the pages with their meaning; docs/explanation/words.md is made of them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DOCS", "READ_ON", "REPOSITORY", "WORDS", "meanings"]

REPOSITORY = "https://github.com/natstats/natstats"
"""Where natstats lives."""

DOCS = f"{REPOSITORY}/tree/main/docs"
"""Where every word is explained at length."""

WORDS = {
    "power": "Squared amplitude of a map at a frequency: how much of its variance is there.",
    "frequency": "How often a pattern repeats: in cycles per pixel of the map, at most 0.5, or in "
    "cycles per image where that is said.",
    "ring": "All frequencies at about the same distance from zero, whatever their direction. Power "
    "is averaged over each ring. A map of N × N pixels has N / 2 rings, rounded down.",
    "octave": "The frequencies from one frequency to its double. The default estimator, named "
    "after it, gives every octave the same weight.",
    "band": "The range of frequencies that is fitted: all rings, unless another band is named.",
    "spectrum": "Mean power of a layer against frequency, ring by ring, over images and channels.",
    "exponent": "The α with which power falls, as frequency to the power of −α: about 2 in "
    "photographs, 0 in white noise, larger where maps are smoother.",
    "form": "A curve that a spectrum is compared with: the power law, which is straight in "
    "logarithms, or a power law with a floor, a cut-off or a break.",
    "interval": "A range that contains the true number as often as its level says: in about 95 of "
    "100 measurements at 95 %. For an exponent it allows for the choice of images; for a mean over "
    "networks or trainings, for the choice of networks or seeds.",
    "group": "A share of the images. Each group is left out in turn to find the intervals. There "
    "are at most 128 groups; with fewer images than that, every image is a group.",
    "map": "One channel of the output of a layer, seen as a picture.",
    "layer": "One call of a module with weights; the images are layer 0.",
    "depth": "The number of layers with weights on the longest path from the images to a layer, "
    "including the layer itself, unless another measure is named.",
    "law": "A straight line for the exponent over depth, α = a + b · depth; its slope is b.",
    "slope": "Change of the exponent per layer, or over the whole depth. That of the law lets "
    "correlated layers weigh less and takes the layers as a sample; the least-squares slope lets "
    "all weigh the same and describes these layers.",
    "shape": "A curve other than the line, such as a step or a bend, fitted to the same exponents.",
    "specification": "One way to test the law: a choice of the estimator, the band, the layers and "
    "the measure of depth.",
    "flag": "A short remark on what to know before using the number of a layer.",
    "p": "The probability that chance alone shows at least as much; a small p speaks against "
    "chance.",
    "Holm": "A correction of p for the number of tests: among many layers, some look different by "
    "chance.",
    "paired": "Both sides saw the same images, so the part of the scatter that comes from the "
    "images cancels.",
    "checkpoint": "The weights of a network at one point of its training.",
    "weight": "The share of a network in the mean; it is larger for slopes that are known better.",
    "subgroup": "Networks that have something in common, such as their family.",
    "control": "The same architecture with random weights, measured on the same images: it shows "
    "what is there without training.",
    "account": "A list of the operations of a network, with what each adds to the exponent.",
    "teacher": "The trained network that another network, the student, learns from.",
    "term": "A part of the loss that training minimises, beside the cross-entropy with the labels.",
    "gap": "The difference between the spectra of the student and those of the teacher.",
    "seed": "The number that starts the random numbers. Trainings that differ only in the seed "
    "show how much is chance.",
}
"""Words that pages use, in the order in which a page lists them."""

READ_ON = {
    "exponent": ("How it is measured", "method.md"),
    "form": ("How forms are compared", "../method.md#is-it-a-power-law"),
    "law": ("What natstats says of it", "law.md"),
    "specification": ("All of them", "../method.md#specifications"),
    "flag": ("What each means", "../method.md#exponent"),
    "account": ("Where exponents come from", "theory.md"),
    "gap": ("How it is closed", "distillation.md"),
}
"""Where docs/explanation goes on from a word: the text of a link, and the page from there."""


def meanings(words: Sequence[str]) -> list[tuple[str, str]]:
    """The words of a page with their meaning, in the usual order.

    Raises:
        KeyError: a word has no meaning here.

    >>> [word for word, _ in meanings(["ring", "power"])]
    ['power', 'ring']
    """
    order = list(WORDS)
    return [(word, WORDS[word]) for word in sorted(words, key=order.index)]
