"""The spectral method: its terms and arguments, and a teacher that is a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import natstats
from natstats.distill.losses.spectral import METHOD, ExponentDistance, SpectrumDistance
from natstats.distill.method import Outputs, Setting, TapPoint
from natstats.errors import UsageError
from natstats.spectra.accumulator import power_spectrum
from tests.distill.spectral_maps import LABELS, noise, out, point


class TestMethod:
    def plan(self, **changed):
        setting = Setting((point(),), (point(),), METHOD.arguments(changed))
        return METHOD.plan(setting)

    def test_power_spectra_and_coherence_by_default(self):
        plan = self.plan()
        factors = {term.name: term.factor(0) for term in plan.terms}
        assert factors == pytest.approx(
            {"spectral.spectrum": 3.0, "spectral.exponent": 0.3, "spectral.coherence": 30.0}
        )
        assert not plan.before
        assert not plan.notes

    def test_what_cannot_be_had_by_default_is_left_out_and_said(self):
        plan = self.plan(edges="hann")
        assert [term.name for term in plan.terms] == ["spectral.spectrum", "spectral.exponent"]
        (note,) = plan.notes
        assert note.startswith("spectral: coherence is left out; its taper is the sine")

    def test_two_terms_of_a_plan_transform_once_and_hold_nothing(self, monkeypatch):
        from natstats.distill.losses import ring_comparison

        calls = []

        def counted(maps, edges):
            calls.append(tuple(maps.shape))
            return power_spectrum(maps, edges)

        monkeypatch.setattr(ring_comparison, "power_spectrum", counted)
        plan = self.plan(coherence=0)
        values = []
        for seed in (0, 1):
            mine, theirs = noise(3, 4, 16, 16, seed=seed), noise(3, 4, 16, 16, seed=5)
            mine.requires_grad_(True)
            student, teacher = out(mine), out(theirs)
            values.append([term.loss(student, teacher, LABELS) for term in plan.terms])
            sum(values[-1]).backward()
            alone = [
                loss([point()], [point()])(student, teacher, LABELS)
                for loss in (SpectrumDistance, ExponentDistance)
            ]
            assert [float(v.detach()) for v in values[-1]] == [float(v.detach()) for v in alone]
        assert len(calls) == 2 * (2 + 4)
        assert plan.terms[0].loss._shared._left is None

    def test_weight_multiplies_all_terms(self):
        one, two = self.plan(weight=1), self.plan(weight=2)
        assert [t.factor(0) * 2 for t in one.terms] == [t.factor(0) for t in two.terms]

    def test_terms_come_and_go_with_their_weights(self):
        plan = self.plan(spectrum=0, exponent=0, coherence=0, phase=1)
        assert [t.name for t in plan.terms] == ["spectral.phase"]
        with pytest.raises(UsageError, match="expected one term"):
            self.plan(spectrum=0, exponent=0, coherence=0)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [({"edges": "no"}, "spectral.edges"),
         ({"edges": "hann", "phase": 1}, "expected sine beside spectral.phase; got hann"),
         ({"edges": "hann", "coherence": 1}, "expected sine beside spectral.coherence; got hann"),
         ({"level": "no"}, "spectral.level"),
         ({"nonsense": 1}, "expected one of weight"), ({"weight": "much"}, "a value like 3.0")],
    )  # fmt: skip
    def test_wrong_arguments_are_named(self, changed, message):
        with pytest.raises(UsageError, match=message):
            self.plan(**changed)


class TestTeacherRun:
    @pytest.fixture(scope="class")
    @staticmethod
    def run(tmp_path_factory):
        images = np.random.default_rng(0).random((40, 3, 32, 32), dtype=np.float32)
        model = natstats.load_network("cifar_resnet8", weights="none")
        path = tmp_path_factory.mktemp("runs") / "teacher"
        natstats.measure(model, images, layers="stage*.0.relu2").save(path, report=False)
        return path, images, model

    def plan(self, path, points):
        run = natstats.Run.open(path)
        return METHOD.plan(Setting(points, points, METHOD.arguments({}), teacher_run=run))

    @pytest.mark.slow
    def test_the_teacher_is_at_distance_zero_from_its_own_run(self, run):
        from natstats.distill.pairing import student_taps
        from natstats.distill.taps import Taps

        path, images, network = run
        pixels = torch.tensor(images)  # an array is measured as it is
        points = student_taps(network.model, pixels[:1])
        plan = self.plan(path, points)
        with Taps(network.model, [p.name for p in points], pixels[:1]) as taps, torch.no_grad():
            network.model(pixels)
        maps = taps.take()
        mine = Outputs(torch.zeros(40, 10), tuple(maps[p.name] for p in points))
        for term in plan.terms:
            nothing = Outputs(torch.zeros(0))
            assert float(term.loss(mine, nothing, LABELS)) == pytest.approx(0, abs=1e-4)
            assert not term.loss.needs_teacher
            assert term.loss.reduction.endswith("pairs, of the batch's mean spectrum")

    def test_maps_of_another_size_are_refused(self, run):
        with pytest.raises(UsageError, match="expected 20 x 20 pixels .* the run has 32 x 32"):
            self.plan(run[0], (TapPoint("stage1.0.relu2", 16, 20, 20),))

    def test_a_layer_that_was_not_measured_is_no_target(self, run):
        with pytest.raises(UsageError, match="teacher run: expected layer stage1.9; it was not"):
            self.plan(run[0], (TapPoint("stage1.9", 16, 32, 32),))

    def test_other_terms_need_the_teacher(self, run):
        points = (TapPoint("stage1.0.relu2", 16, 32, 32),)
        setting = Setting(
            points, points, METHOD.arguments({"phase": 1}), teacher_run=natstats.Run.open(run[0])
        )
        with pytest.raises(UsageError, match=r"spectral\.phase"):
            METHOD.plan(setting)
