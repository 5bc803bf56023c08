"""What every distillation loss keeps to, in all variants of all methods."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from torch import nn

from natstats.distill.method import Outputs, Setting, TapPoint
from natstats.errors import UsageError

METHODS = {
    name: importlib.import_module(f"natstats.distill.losses.{name}").METHOD
    for name in (
        "kd", "dkd", "dist", "fitnets", "at", "fsp", "jacobian", "ft", "ab", "ofd", "reviewkd",
        "spectralkd", "freekd", "ffl",
    )
}  # fmt: skip
VARIANTS = [
    ("kd", {}),
    ("kd", {"t_squared": False, "temperature": 1.0}),
    ("kd", {"standardise": True, "temperature": 2.0, "weight": 9.0}),
    ("dkd", {}),
    ("dkd", {"standardise": True, "beta": 2.0, "warmup": 0.0}),
    ("dist", {}),
    ("dist", {"temperature": 1.0, "gamma": 0.0}),
    ("fitnets", {}),
    ("fitnets", {"schedule": "crd"}),
    ("at", {}),
    ("at", {"form": "paper"}),
    ("fsp", {}),
    ("fsp", {"form": "crd"}),
    ("jacobian", {}),
    ("jacobian", {"scalar": "teacher"}),
    ("ft", {}),
    ("ft", {"form": "crd", "reconstruction": "paper"}),
    ("ab", {}),
    ("ab", {"form": "crd"}),
    ("ofd", {}),
    ("ofd", {"margin": "measured"}),
    ("ofd", {"margin": "code", "teacher_bn": "running"}),
    ("reviewkd", {}),
    ("spectralkd", {}),
    ("spectralkd", {"kd_weight": 0.0}),
    ("freekd", {}),
    ("ffl", {}),
    ("ffl", {"alpha": 0.0}),
]
ON_MAPS = [variant for variant in VARIANTS if METHODS[variant[0]].place != "none"]
LABELS = torch.tensor([0, 4, 2, 1, 1, 3])


class Network(nn.Module):
    """Three groups of two convolutions; keeps the map of every place."""

    def __init__(self, widths):
        super().__init__()
        self.groups = nn.ModuleList()
        channels = 3
        for index, width in enumerate(widths):
            layers = []
            for position in range(2):
                stride = 2 if index and not position else 1
                layers.append(nn.Conv2d(channels, width, 3, stride, 1, bias=False))
                layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU())
                channels = width
            self.groups.append(nn.Sequential(*layers))
        self.head = nn.Linear(channels, 5)

    def layers_at(self, method):
        """(group, layer) of every tap."""
        last = 4 if method.activation == "pre" else 5
        return {
            "none": [],
            "groups": [(group, last) for group in range(3)],
            "middle": [(1, last)],
            "last": [(2, last)],
            "sections": [(group, layer) for group in range(3) for layer in (2, 5)],
        }[method.place]

    def taps(self, method, size=8):
        return tuple(
            TapPoint(
                f"groups.{group}.{layer}",
                self.groups[group][4].num_features,
                size >> group,
                size >> group,
                self.groups[group][4],
                self.groups[group][5],
            )
            for group, layer in self.layers_at(method)
        )

    def run(self, method, images):
        seen = {}
        maps = images
        for group, layers in enumerate(self.groups):
            for index, layer in enumerate(layers):
                maps = seen[group, index] = layer(maps)
        logits = self.head(maps.mean((2, 3)))
        return Outputs(logits, tuple(seen[place] for place in self.layers_at(method)), images)


class Case:
    """A method's plan for a small student and teacher, and what they say of six images."""

    def __init__(self, name, arguments):
        torch.manual_seed(0)
        self.method = METHODS[name]
        self.arguments = self.method.arguments(arguments)
        self.teacher = Network((8, 12, 16)).eval()
        self.student = Network((8, 12, 16) if name == "fsp" else (4, 6, 10)).train()
        for network in (self.student, self.teacher):
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.bias, std=0.3)
        self.images = torch.randn(6, 3, 8, 8, requires_grad=self.method.uses_images)
        self.plan = self.make_plan()

    @property
    def setting(self):
        taps = self.student.taps(self.method), self.teacher.taps(self.method)
        return Setting(*taps, self.arguments)

    def make_plan(self):
        return self.method.plan(self.setting)

    def outputs(self, images=None):
        images = self.images if images is None else images
        return self.student.run(self.method, images), self.teacher.run(self.method, images)

    def terms(self, plan=None):
        plan = plan or self.plan
        before = [(term, stage.trains) for stage in plan.before for term in stage.terms]
        return [*before, *((term, "student") for term in plan.terms)]


@pytest.fixture(
    params=VARIANTS, ids=lambda variant: "-".join((variant[0], *map(str, variant[1].values())))
)
def case(request):
    return Case(*request.param)


@pytest.fixture(
    params=ON_MAPS, ids=lambda variant: "-".join((variant[0], *map(str, variant[1].values())))
)
def map_case(request):
    return Case(*request.param)


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_the_record_says_what_it_does(case):
    method = case.method
    assert method.reduction
    assert method.paper
    assert method.title
    assert method.arguments({}) == dict(method.defaults)
    assert all(isinstance(value, float | str | bool) for value in method.defaults.values())
    assert "weight" in method.defaults
    with pytest.raises(UsageError, match=rf"{method.name}\.nonsense: expected one of weight"):
        method.arguments({"nonsense": 1.0})


def test_the_plan_has_the_stages_of_the_record(case):
    method, plan = case.method, case.plan
    assert plan.terms or plan.before
    if case.arguments.get("schedule") == "crd":
        assert not plan.before
    else:
        assert (*(stage.name for stage in plan.before), "main") == method.stages
    names = [term.name for term, _ in case.terms()]
    assert len(set(names)) == len(names)
    assert all(name == method.name or name.startswith(f"{method.name}.") for name in names)
    assert all(
        stage.epochs > 0 and stage.trains in ("student", "lower", "losses") for stage in plan.before
    )
    plain = method.name == "kd" and not case.arguments["standardise"]
    assert bool(plan.notes) != plain


def test_connectors_are_those_the_record_names(case):
    trained = any(list(term.loss.parameters()) for term, _ in case.terms())
    assert trained == (case.method.connectors != "none")


def test_a_loss_is_one_finite_number_in_float32(case):
    student, teacher = case.outputs()
    for term, _ in case.terms():
        value = term.loss(student, teacher, LABELS)
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert value > 0


def test_gradients_reach_the_student_and_the_connectors_only(case):
    """Though the teacher's outputs carry a graph here, and its parameters ask for gradients."""
    for term, trains in case.terms():
        case.student.zero_grad(set_to_none=True)
        term.loss(*case.outputs(), LABELS).backward()
        reached = [parameter.grad for parameter in case.student.parameters()]
        got = [gradient is not None and bool(gradient.abs().sum() > 0) for gradient in reached]
        # A convolution before a batch norm may get what rounds to nothing; the first never does.
        assert got[0] == (trains != "losses"), term.name
        for name, parameter in term.loss.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        parameters = list(term.loss.parameters())
        assert not parameters or any(p.grad.abs().sum() > 0 for p in parameters)
        for name, parameter in case.teacher.named_parameters():
            assert parameter.grad is None, (term.name, name)


def test_a_loss_changes_nothing_in_the_networks(case):
    outputs = case.outputs()
    before = state(case.student), state(case.teacher)
    for term, _ in case.terms():
        term.loss(*outputs, LABELS).backward(retain_graph=True)
    assert_same_state(state(case.student), before[0])
    assert_same_state(state(case.teacher), before[1])


def test_a_loss_is_a_mean_over_images(case):
    """The same images twice give the same value, also through the batch norms in training."""
    twice = torch.cat([case.images, case.images]).detach()
    twice.requires_grad_(case.method.uses_images)
    once, both = case.outputs(), case.outputs(twice)
    for term, _ in case.terms():
        value = term.loss(*once, LABELS)
        torch.testing.assert_close(
            term.loss(*both, torch.cat([LABELS, LABELS])), value, rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_give_float32(map_case, dtype):
    student, teacher = (
        Outputs(outputs.logits.to(dtype), tuple(maps.to(dtype) for maps in outputs.maps))
        for outputs in map_case.outputs()
    )
    for term, _ in map_case.terms():
        exact = term.loss(*map_case.outputs(), LABELS)
        value = term.loss(student, teacher, LABELS)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact, rtol=0.1, atol=1e-3)


def test_under_autocast_the_distance_is_in_float32(case):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        student, teacher = case.outputs()
        for term, _ in case.terms():
            value = term.loss(student, teacher, LABELS)
            assert value.dtype == torch.float32
            assert torch.isfinite(value)


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_nan_in_any_map_is_not_passed_over(map_case, whose):
    student, teacher = map_case.outputs()
    for index in range(len(student.maps)):
        spoiled = []
        for outputs, name in ((student, "student"), (teacher, "teacher")):
            maps = [each.detach().clone() for each in outputs.maps]
            if name == whose:
                maps[index][-1, -1, -1, -1] = float("nan")
            spoiled.append(replace(outputs, maps=tuple(maps)))
        for term, trains in map_case.terms():
            if term.name.endswith(".kd") or (trains == "losses" and whose == "student"):
                continue
            assert torch.isnan(term.loss(*spoiled, LABELS)), (term.name, index)


def test_other_numbers_of_maps_are_refused(map_case):
    student, teacher = map_case.outputs()
    for term, trains in map_case.terms():
        if term.name.endswith(".kd"):
            continue
        pairs = [
            (student, replace(teacher, maps=())),
            (student, replace(teacher, maps=(*teacher.maps, teacher.maps[-1]))),
        ]
        if trains != "losses":
            pairs.append((replace(student, maps=()), teacher))
        for ours, theirs in pairs:
            with pytest.raises(UsageError, match=rf"{map_case.method.name}: expected .* maps? of"):
                term.loss(ours, theirs, LABELS)


def test_maps_of_other_images_are_refused(map_case):
    student, teacher = map_case.outputs()
    fewer = replace(teacher, maps=tuple(maps[:4] for maps in teacher.maps))
    for term, trains in map_case.terms():
        if not term.name.endswith(".kd") and trains != "losses":
            with pytest.raises(UsageError, match=r"at tap 0; got \(6, .* and \(4, "):
                term.loss(student, fewer, LABELS)


def test_what_was_trained_can_be_saved_and_loaded(case):
    """Also margins that were measured, and the paraphraser that two losses share."""
    student, teacher = case.outputs()
    for term, _ in case.terms():
        term.loss(student, teacher, LABELS)
    torch.manual_seed(7)
    again = case.make_plan()
    for (term, _), (other, _) in zip(case.terms(), case.terms(again), strict=True):
        other.loss.load_state_dict(term.loss.state_dict())
    for (term, _), (other, _) in zip(case.terms(), case.terms(again), strict=True):
        for _ in range(2):
            value = term.loss(student, teacher, LABELS)
            assert torch.equal(other.loss(student, teacher, LABELS), value), term.name


@pytest.mark.slow
def test_a_stage_makes_its_loss_smaller(case):
    images = case.images.detach().requires_grad_(case.method.uses_images)
    for term, trains in case.terms():
        parameters = list(term.loss.parameters())
        parameters += [] if trains == "losses" else list(case.student.parameters())
        optimizer = torch.optim.Adam(parameters, lr=0.01)
        values = []
        for _ in range(15):
            loss = term.loss(*case.outputs(images), LABELS)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        assert values[-1] < 0.95 * values[0], (term.name, values)


@pytest.mark.parametrize(
    ("name", "argument", "value", "message"),
    [
        ("kd", "temperature", 0.0, r"kd\.temperature: expected a number that is above 0; got 0\.0"),
        (
            "kd",
            "weight",
            float("nan"),
            r"kd\.weight: expected a number that is at least 0; got nan",
        ),
        ("fitnets", "schedule", "crb", r"fitnets\.schedule: expected one of paper, crd; got 'crb'"),
        ("fitnets", "ramp_finish", 0.0, r"fitnets\.ramp_finish: expected a number above .*; got 0"),
        (
            "fitnets",
            "epochs",
            -1.0,
            r"fitnets\.epochs: expected a number that is above 0; got -1\.0",
        ),
        (
            "at",
            "paper_weight",
            0.2,
            r"at\.paper_weight: expected at\.weight, .* form=code; got 0\.2",
        ),
        ("fitnets", "crd_weight", 9.0, r"fitnets\.crd_weight: expected fitnets\.weight, which is"),
        ("at", "form", "papers", r"at\.form: expected one of code, paper; got 'papers'"),
        ("fsp", "schedule", "cosine", r"fsp\.schedule: expected one of same, constant"),
        ("fsp", "epochs", 0.0, r"fsp\.epochs: expected a number that is above 0; got 0\.0"),
        ("jacobian", "scalar", "label", r"jacobian\.scalar: .* \(did you mean labels\?\)"),
        ("jacobian", "weight", -1.0, r"jacobian\.weight: expected a number that is at least 0"),
        ("ft", "reconstruction", "l1", r"ft\.reconstruction: expected one of code, paper"),
        ("ft", "rate", 0.0, r"ft\.rate: expected a number that is above 0; got 0\.0"),
        ("ab", "form", "code", r"ab\.form: expected one of paper, crd; got 'code'"),
        ("ab", "margin", 0.0, r"ab\.margin: expected a number that is above 0; got 0\.0"),
        ("ofd", "margin", "exact", r"ofd\.margin: expected one of bn, code, measured; got 'exact'"),
        ("ofd", "teacher_bn", "train", r"ofd\.teacher_bn: expected one of batch, running"),
        ("dkd", "beta", -1.0, r"dkd\.beta: expected a number that is at least 0; got -1\.0"),
        ("dkd", "temperature", 0.0, r"dkd\.temperature: expected a number that is above 0"),
        ("dkd", "warmup", float("inf"), r"dkd\.warmup: expected a number that is at least 0"),
        ("dist", "gamma", float("nan"), r"dist\.gamma: expected a number that is at least 0"),
        ("dist", "temperature", -1.0, r"dist\.temperature: expected a number that is above 0"),
        ("reviewkd", "warmup", -0.1, r"reviewkd\.warmup: expected a number that is at least 0"),
        ("spectralkd", "kd_weight", -1.0, r"spectralkd\.kd_weight: expected a number that is at"),
        ("spectralkd", "temperature", 0.0, r"spectralkd\.temperature: expected .* above 0"),
        ("freekd", "weight", -1.0, r"freekd\.weight: expected a number that is at least 0"),
        ("ffl", "alpha", -1.0, r"ffl\.alpha: expected a number that is at least 0; got -1\.0"),
    ],
)
def test_an_argument_that_cannot_be_is_named(name, argument, value, message):
    case = Case(name, {})
    case.arguments = case.method.arguments({argument: value})
    with pytest.raises(UsageError, match=message):
        case.make_plan()


@pytest.mark.parametrize(
    "name",
    ["fitnets", "at", "fsp", "ft", "ab", "ofd", "reviewkd", "spectralkd", "freekd", "ffl"],
)
def test_taps_that_do_not_pair_are_refused(name):
    case = Case(name, {})
    setting = replace(case.setting, teacher=case.setting.teacher[1:])
    with pytest.raises(UsageError, match=rf"{name}: expected .* taps in student and teacher; got"):
        case.method.plan(setting)
