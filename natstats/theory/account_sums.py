"""The sums of an account that is measured in parts, and the account they give without the network.

What an account takes from the network is known after the first image: which maps are measured, what
is done between them, what kernels alone would do. It is kept beside the sums. Sums of parts add.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from natstats.errors import NatstatsError, UsageError
from natstats.theory.account_spectra import AccountSpectra
from natstats.theory.account_states import added_states
from natstats.theory.activation_kinds import activation
from natstats.theory.moments import MomentSums
from natstats.theory.state_sums import StateSums

__all__ = ["AccountSums", "noted"]


def noted(note: str, n_left_out: int) -> str:
    """The note of an account, with the images that it leaves out.

    >>> noted("", 2)
    'images left out, not finite at some operation: 2'
    """
    left_out = f"images left out, not finite at some operation: {n_left_out}" if n_left_out else ""
    return "; ".join(filter(None, [note, left_out]))


@dataclass(frozen=True, eq=False)
class AccountSums:
    """What was summed for an account, and what must be known of its network.

    Attributes:
        frame: an account of some of the images, of which only states and steps are used.
        state: what :meth:`natstats.theory.account_pass.AccountPass.state_dict` gave.
        functions: name and parameters of the activation function of every sum of moments, by the
            state that it makes.
        note: what a reader must know, whichever the images are.
    """

    frame: AccountSpectra
    state: Mapping[str, Any]
    functions: Mapping[int, tuple[str, Mapping[str, Any]]]
    note: str = ""

    def merged(self, other: AccountSums) -> AccountSums:
        """The sums of the images of both.

        Raises:
            UsageError: they are not of one network, or did not begin with the same image.
        """
        if self._description() != other._description():
            raise UsageError(
                "explain: expected accounts of the same operations; got others (parts add that "
                "were measured on one set of images, with the same network)"
            )
        return replace(self, state=added_states(self.state, other.state))

    def _description(self) -> str:
        """All but numbers that images decide, as text: NaN is then equal to NaN."""
        states = [(one.height, one.width, one.edges, one.span) for one in self.frame.states]
        steps = [replace(one, gaussian=None) for one in self.frame.steps]
        functions = {number: (name, dict(own)) for number, (name, own) in self.functions.items()}
        return repr((states, steps, self.frame.every, functions, self.note))

    def compute(self) -> AccountSpectra:
        """The account of all images that were summed.

        Raises:
            NatstatsError: the sums are not those of such an account.
        """
        try:
            return self._computed()
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, UsageError):
                raise NatstatsError(f"explain: {error}") from error
            raise NatstatsError(
                f"explain: expected the sums of an account; {type(error).__name__}: {error}"
            ) from error

    def _computed(self) -> AccountSpectra:
        frame, device = self.frame, torch.device("cpu")
        edges, n_groups = frame.states[0].edges, len(frame.states[0].count)
        sums = StateSums(edges, n_groups, device)
        for one in frame.states:
            sums.new((one.height, one.width), one.span)
        sums.load_state_dict(self.state["sums"])
        moments = {own["after"]: own for own in self.state["moments"]}
        steps = []
        for step in frame.steps:
            if step.after not in moments:
                steps.append(step)
                continue
            own, before = moments[step.after], frame.states[step.before]
            name, parameters = self.functions[step.after]
            n_blocks, channels = own["total"].shape
            function = activation(name, **parameters)
            sums_of_moments = MomentSums(
                (before.height, before.width), edges, channels, function, n_blocks, device
            )
            sums_of_moments.load_state_dict(own)
            steps.append(replace(step, gaussian=sums_of_moments.result()))
        note = noted(self.note, self.state["n_left_out"])
        return AccountSpectra(sums.states(), tuple(steps), frame.every, note)
