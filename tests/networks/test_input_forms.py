"""The forms in which networks take images: what is made of a batch."""

from __future__ import annotations

import pytest
import torch

import natstats
from natstats.networks.input_forms import CLIP_FRAMES, SHIFT, arguments

IMAGES = torch.rand(3, 3, 16, 20)
CLIPS = torch.rand(3, 3, 5, 16, 20)


def test_images_and_lists_are_handed_on():
    assert arguments("images", IMAGES)[0] is IMAGES
    (as_list,) = arguments("list", IMAGES)
    assert all(torch.equal(a, b) for a, b in zip(as_list, IMAGES, strict=True))


def test_a_single_image_is_a_still_clip_and_a_moved_pair():
    (clip,) = arguments("clips", IMAGES)
    assert clip.shape == (3, 3, CLIP_FRAMES, 16, 20)
    assert torch.equal(clip[:, :, 7], IMAGES)
    first, second = arguments("pairs", IMAGES)
    assert torch.equal(first, IMAGES)
    assert torch.equal(second[..., SHIFT:, SHIFT:], IMAGES[..., :-SHIFT, :-SHIFT])


def test_clips_are_clips_and_their_first_frames_a_pair():
    assert arguments("clips", CLIPS)[0] is CLIPS
    first, second = arguments("pairs", CLIPS)
    assert torch.equal(first, CLIPS[:, :, 0])
    assert torch.equal(second, CLIPS[:, :, 1])


@pytest.mark.parametrize(
    ("form", "images", "words"),
    [
        ("video", IMAGES, "takes: expected one of images, list, clips, pairs; got 'video'"),
        ("images", CLIPS, r"images: expected \(N, C, H, W\) for a network that takes images"),
        ("pairs", IMAGES[0], r"or \(N, C, T, H, W\) for a network that takes pairs"),
        ("pairs", CLIPS[:, :, :1], "images: expected two frames or more; got 1"),
    ],
)
def test_other_forms_and_shapes_are_refused(form, images, words):
    with pytest.raises(natstats.UsageError, match=words):
        arguments(form, images)
