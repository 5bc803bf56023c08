"""Connectors: layers that make the student's maps comparable, trained with it, then dropped."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from natstats.errors import UsageError

__all__ = [
    "AttentionFusion",
    "Paraphraser",
    "connected",
    "hint_regressor",
    "like",
    "projection",
    "resizing_regressor",
    "translator",
]

Shape = tuple[int, int, int]


def projection(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """A 1 x 1 convolution without bias and batch norm, (N, C_S, H, W) to (N, C_T, H, W).

    Initialised after He et al. by the number of outputs. Used by AB and OFD.

    >>> [type(part).__name__ for part in projection(16, 64)]
    ['Conv2d', 'BatchNorm2d']
    """
    convolution = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(teacher_channels))


def connected(connector: nn.Module, maps: Tensor, *others: Any) -> Any:
    """The output of a connector for maps, computed in the wider of the types of the two.

    So float64 maps go through a float32 connector without loss, and the other way round.

    Args:
        connector: takes and gives maps.
        maps: (N, C, H, W), float32 or float64.
        others: what else the connector takes.

    Returns:
        What it gives, a tensor or several.

    >>> connector = projection(2, 3)
    >>> connected(connector, torch.zeros(2, 2, 4, 4, dtype=torch.double)).dtype
    torch.float64
    """
    state = dict(connector.named_parameters()) | dict(connector.named_buffers())
    dtype = maps.dtype
    for value in state.values():
        if value.is_floating_point():
            dtype = torch.promote_types(dtype, value.dtype)
    wider = {
        name: value.to(dtype)
        for name, value in state.items()
        if value.is_floating_point() and value.dtype != dtype
    }
    if not wider:
        made = connector(maps.to(dtype), *others)
    else:
        made = functional_call(connector, wider, (maps, *others))
        with torch.no_grad():  # batch norms have updated the wider copies of their statistics
            for name, buffer in connector.named_buffers():
                if name in wider:
                    buffer.copy_(wider[name])
    return made.to(dtype) if isinstance(made, Tensor) else tuple(one.to(dtype) for one in made)


def hint_regressor(
    student: Shape, teacher: Shape, activation: nn.Module | None = None
) -> nn.Sequential:
    """The regressor of FitNets: one convolution without padding, and the teacher's activation.

    Its kernel is H_S - H_T + 1 by W_S - W_T + 1, 1 x 1 where the maps have one size.

    Args:
        student: (C, H, W) of the map that it takes.
        teacher: (C, H, W) of the map that it gives.
        activation: what follows; a copy of it is used. None for nothing.

    Raises:
        UsageError: the student's map is smaller than the teacher's.

    Reference:
        A. Romero et al., "FitNets: Hints for Thin Deep Nets", 2014, arXiv 1412.6550, and its
        public code.

    >>> hint_regressor((16, 8, 8), (64, 6, 6))[0].kernel_size
    (3, 3)
    """
    kernel = (student[1] - teacher[1] + 1, student[2] - teacher[2] + 1)
    if min(kernel) < 1:
        raise UsageError(
            "hint_regressor: expected a student's map at least as large as the teacher's; "
            f"got {student[1]} x {student[2]} and {teacher[1]} x {teacher[2]} pixels"
        )
    convolution = nn.Conv2d(student[0], teacher[0], kernel)
    return nn.Sequential(convolution, nn.Identity() if activation is None else like(activation))


def resizing_regressor(student: Shape, teacher: Shape) -> nn.Sequential:
    """The regressor of the benchmark of Tian et al.: a convolution, batch norm and ReLU.

    3 x 3 with stride 2 where the student's map is twice as large, transposed 4 x 4 with stride 2
    where it is half as large, else as in :func:`hint_regressor`.

    Args:
        student: (C, H, W) of the map that it takes.
        teacher: (C, H, W) of the map that it gives.

    Raises:
        UsageError: the student's map is smaller, and not half as large.

    Reference:
        Y. Tian, D. Krishnan and P. Isola, "Contrastive Representation Distillation", 2020,
        arXiv 1910.10699, and its public code.

    >>> import torch
    >>> resizing_regressor((16, 8, 8), (64, 16, 16))(torch.zeros(2, 16, 8, 8)).shape
    torch.Size([2, 64, 16, 16])
    """
    (inputs, height, width), (outputs, *size) = student, teacher
    convolution: nn.Module
    if [height, width] == [2 * side for side in size]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    elif [2 * height, 2 * width] == size:
        convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    elif height >= size[0] and width >= size[1]:
        convolution = nn.Conv2d(inputs, outputs, (height - size[0] + 1, width - size[1] + 1))
    else:
        raise UsageError(
            "resizing_regressor: expected a student's map of half the size of the teacher's, or "
            f"at least as large; got {height} x {width} and {size[0]} x {size[1]} pixels"
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class AttentionFusion(nn.Module):
    """The connector of ReviewKD: fuses a map with what came from deeper ones, by learnt attention.

    A 1 x 1 convolution takes the map to `middle` channels. What came from the deeper map is
    brought to its size, and two attention maps, of the sigmoid of a 1 x 1 convolution of both, mix
    them. The mixture, at the size of the teacher's map, goes on to the shallower map and, through
    a 3 x 3 convolution, to the comparison. Both convolutions are followed by batch norm.

    Args:
        inputs: channels of the student's map.
        middle: channels of the mixture.
        outputs: channels of the teacher's map.
        is_deepest: True where nothing comes from a deeper map.

    Reference:
        P. Chen, S. Liu, H. Zhao and J. Jia, "Distilling Knowledge via Knowledge Review", CVPR
        2021, arXiv 2104.09044, and its public code.

    >>> import torch
    >>> fusion = AttentionFusion(16, 32, 24)
    >>> maps, residue = torch.rand(2, 16, 8, 8), torch.rand(2, 32, 4, 4)
    >>> [tuple(made.shape) for made in fusion(maps, residue, (8, 8))]
    [(2, 24, 8, 8), (2, 32, 8, 8)]
    """

    def __init__(self, inputs: int, middle: int, outputs: int, is_deepest: bool = False) -> None:
        super().__init__()
        self.inward = _normed(nn.Conv2d(inputs, middle, 1, bias=False))
        self.outward = _normed(nn.Conv2d(middle, outputs, 3, padding=1, bias=False))
        self.attention = None if is_deepest else nn.Conv2d(2 * middle, 2, 1)

    def forward(
        self, maps: Tensor, residue: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What is compared, and what goes on to the shallower map.

        Args:
            maps: (N, inputs, H, W).
            residue: what came from the deeper map, (N, middle, H', W'); None at the deepest.
            size: of the teacher's map, pixels.
        """
        mixed = self.inward(maps)
        if self.attention is not None:
            assert residue is not None
            residue = functional.interpolate(residue, mixed.shape[2:], mode="nearest")
            shares = self.attention(torch.cat([mixed, residue], dim=1)).sigmoid()
            mixed = mixed * shares[:, :1] + residue * shares[:, 1:]
        if mixed.shape[2:] != size:
            mixed = functional.interpolate(mixed, size, mode="nearest")
        return self.outward(mixed), mixed


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))


class Paraphraser(nn.Module):
    """The autoencoder of Factor Transfer; its encoder gives the factors of a teacher's map.

    Three 3 x 3 convolutions C to C, C to m, m to m, and the same way back with transposed ones,
    each with bias and LeakyReLU(0.1); no batch norm, so it works alike in training and after.

    Args:
        channels: C of the teacher.
        rate: m / C, above 0; m is rounded down, and at least 1.

    Reference:
        J. Kim, S. Park and N. Kwak, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", 2018, arXiv 1802.04977; the layers are those of its public code.

    >>> import torch
    >>> paraphraser = Paraphraser(64)
    >>> paraphraser.encoder(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
    >>> paraphraser(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int, rate: float = 0.5) -> None:
        super().__init__()
        self.factors = max(int(channels * rate), 1)
        self.encoder = translator(channels, self.factors)
        self.decoder = nn.Sequential(
            *_leaky(nn.ConvTranspose2d(self.factors, self.factors, 3, padding=1)),
            *_leaky(nn.ConvTranspose2d(self.factors, channels, 3, padding=1)),
            *_leaky(nn.ConvTranspose2d(channels, channels, 3, padding=1)),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """The maps (N, C, H, W) as the decoder gives them back."""
        rebuilt: Tensor = self.decoder(self.encoder(maps))
        return rebuilt


def translator(channels: int, factors: int) -> nn.Sequential:
    """The student's side of Factor Transfer, of the form of the paraphraser's encoder.

    Args:
        channels: C of the student.
        factors: m of the teacher's paraphraser.

    >>> import torch
    >>> translator(16, 32)(torch.zeros(2, 16, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
    """
    return nn.Sequential(
        *_leaky(nn.Conv2d(channels, channels, 3, padding=1)),
        *_leaky(nn.Conv2d(channels, factors, 3, padding=1)),
        *_leaky(nn.Conv2d(factors, factors, 3, padding=1)),
    )


def _leaky(convolution: nn.Module) -> tuple[nn.Module, nn.Module]:
    return convolution, nn.LeakyReLU(0.1)


def like(activation: nn.Module) -> nn.Module:
    """A detached copy without hooks, not in place and not trained."""
    # The hooks of a tap would fire in the copy and record the connector's output as the map.
    without: dict[int, Any] = {}
    for module in activation.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            without[id(hooks)] = OrderedDict()
    copied = copy.deepcopy(activation, without)
    for module in copied.modules():
        if isinstance(getattr(module, "inplace", None), bool):
            module.inplace = False  # type: ignore[assignment]
    return copied.requires_grad_(False)
