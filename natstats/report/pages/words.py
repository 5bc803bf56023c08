"""The words of the pages in a sentence or two each; docs/explanation/words.md is made of them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DOCS", "READ_ON", "REPOSITORY", "WORDS", "meanings"]

REPOSITORY = "https://github.com/natstats/natstats"
"""Where natstats lives."""

DOCS = f"{REPOSITORY}/tree/main/docs"
"""Where every word is told at length."""

WORDS = {
    "power": "Squared amplitude of a map at a frequency: how much of its variance is there.",
    "frequency": "How often a pattern repeats, in cycles per pixel of the map, at most 0.5, or per "
    "image where it says so.",
    "ring": "All frequencies of about one distance from zero, whatever their direction. Power is "
    "averaged over a ring, and a map of N × N pixels has N / 2 rings.",
    "octave": "Frequencies from one to its double. The usual estimator, of that name, gives "
    "every octave the same weight.",
    "band": "The frequencies that are fitted, from the lowest to the highest; all rings unless it "
    "says otherwise.",
    "spectrum": "Mean power of a layer against frequency, ring by ring, over images and channels.",
    "exponent": "The α with which power falls, as frequency to the power of −α: about 2 in "
    "photographs, 0 in white noise, larger where maps are smoother.",
    "form": "A curve that a spectrum is compared with: the power law, straight in logarithms, "
    "and beside it one with a floor, a cut-off or a break.",
    "interval": "Where the number would lie with other images of the same sort, at the level that "
    "stands beside it.",
    "group": "A share of the images, left out in turn to find the intervals. There are at most 128 "
    "groups; with fewer images than that, every image is a group.",
    "map": "One channel of what a layer puts out: a picture.",
    "layer": "One call of a module with weights; the images are layer 0.",
    "depth": "Layers with weights on the longest path from the images to a layer, itself included, "
    "or the measure that is named.",
    "law": "The exponent as a straight line over depth, α = a + b · depth; its slope is b.",
    "slope": "Change of the exponent per layer, or over the whole depth.",
    "shape": "Another curve than the line, such as a step or a bend, tried on the same exponents.",
    "specification": "One way to test the law: an estimator, a band, layers, a measure of depth.",
    "flag": "A short remark on what to know before using the number of a layer.",
    "p": "How often chance alone would show at least as much; small values speak against chance.",
    "Holm": "A correction of p for the number of tests: with many layers, some look different by "
    "chance.",
    "paired": "Both sides saw the same images, so that what the images do to both cancels.",
    "checkpoint": "The weights of a network at one time of its training.",
    "weight": "Share of a network in the mean: more for slopes that are better known.",
    "subgroup": "Networks that have something in common, such as their family.",
    "control": "The same architecture with random weights, on the same images: what is there "
    "without training.",
    "account": "Every operation of a network with what it adds to the exponent.",
    "teacher": "The trained network that another one, the student, is to follow.",
    "term": "A part of what training minimises, beside the cross-entropy with the labels.",
    "gap": "How far the spectra of the student are from those of the teacher.",
    "seed": "The number that chance began from; trainings that differ in it alone tell how much is "
    "chance.",
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
