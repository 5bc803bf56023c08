"""A method in one's own loop: every method by public names, and the same as the trainer's."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from natstats import distill
from natstats.distill.methods import METHODS
from natstats.distill.training.distributed import Processes
from natstats.distill.training.evaluation import Looks
from natstats.distill.training.loading import TrainBatches, prepared
from natstats.distill.training.optimization import learning_rate, make_optimizer
from natstats.distill.training.setup import Distillation, classifier
from natstats.distill.training.trainer import Trainer, _seed
from natstats.errors import UsageError
from natstats.networks.zoo import cifar_resnet

PAGE = (Path(__file__).parents[2] / "docs" / "own_loops.md").read_text(encoding="utf-8")
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return cifar_resnet(8, num_classes=3), cifar_resnet(14, num_classes=3)


def steps(plan, n=2, images=IMAGES, labels=LABELS):
    """Some steps of every stage; what the last one gave in each."""
    found = []
    for stage in plan.stages:
        optimizer = torch.optim.SGD(stage.parameters(), lr=0.01 * stage.learning_rate)
        for step in range(n):
            optimizer.zero_grad()
            last = stage.objective(images, labels, progress=step / n)
            last.loss.backward()
            optimizer.step()
        found.append(last)
    return found


def moved(before, model):
    return {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}


@pytest.mark.slow
@pytest.mark.parametrize("method", [*METHODS, "kd+spectral", "ofd+kd", "fitnets+at"])
def test_every_method_trains_the_student_and_leaves_the_teacher(networks, method):
    student, teacher = networks
    teacher.train().requires_grad_(True)  # as someone left it
    teacher.layer = nn.Dropout()  # a mode of its own
    teacher.layer.eval()
    before, theirs = copy.deepcopy(student.state_dict()), copy.deepcopy(teacher.state_dict())
    plan = distill.plan(method, student, teacher, IMAGES, epochs=2)
    assert not moved(before, student)
    for found in steps(plan):
        assert bool(found.loss.isfinite())
        assert all(value.dtype == torch.float32 for value in found.terms.values())
    assert moved(before, student)
    assert all(torch.equal(value, theirs[key]) for key, value in teacher.state_dict().items())
    assert teacher.training
    assert not teacher.layer.training
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())


@pytest.mark.slow
def test_what_a_stage_trains_is_what_it_says(networks):
    student, teacher = networks
    before = copy.deepcopy(student.state_dict())
    hint, main = distill.plan("fitnets", student, teacher, IMAGES, epochs=8).stages
    assert (hint.trains, hint.epochs, hint.learning_rate, main.ramps) == (
        "lower", 2, 0.1, ["fitnets.kd"],
    )  # fmt: skip
    optimizer = torch.optim.SGD(hint.parameters(), lr=0.1, weight_decay=0.1)
    hint.objective(IMAGES, LABELS).loss.backward()
    optimizer.step()
    assert moved(before, student)
    assert not {name for name in moved(before, student) if name.startswith(("stage3", "fc"))}
    with pytest.raises(UsageError, match=r"progress: expected the share .* fitnets\.kd changes"):
        main.objective(IMAGES, LABELS)
    with pytest.raises(UsageError, match="progress: expected a number"):
        main.objective(IMAGES, LABELS, progress=1.5)
    first, last = (main.objective.stage.factors(p)["fitnets.kd"] for p in (0.0, 1.0))
    assert first == 4.0
    assert last < 2.0


@pytest.mark.slow
def test_connectors_and_nothing_else_where_only_they_are_trained(networks):
    student, teacher = networks
    before = copy.deepcopy(student.state_dict())
    plan = distill.plan("ft", student, teacher, IMAGES, epochs=2)
    stage = plan.stages[0]
    assert stage.trains == "losses"
    own = {id(p) for p in student.parameters()}
    assert not {id(p) for p in stage.parameters()} & own
    found = stage.objective(IMAGES, LABELS)
    found.loss.backward()
    assert found.ce is None
    assert not moved(before, student)
    assert sum(p.numel() for p in plan.losses.parameters()) == plan.program.n_extra_parameters()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "ab", "ofd"])
def test_an_own_loop_is_the_trainer_bit_for_bit(data, teacher, recipe, method):
    """The same batches, rates and seeds of chance, in a loop of public pieces."""
    recipe = recipe.changed(epochs=1)
    both = []
    for own in (False, True):
        student = classifier("cifar_resnet8", 3, seed=3)
        setup = Distillation.of(student, data, method, teacher=teacher, recipe=recipe, seed=3)
        batches = TrainBatches(data.train, setup.recipe, 3)
        if own:
            loop(setup, batches, method)
        else:
            Trainer(
                student.model, teacher.model, setup.program, batches, setup.recipe,
                Looks(lambda: (0.0, 0.0)), together=Processes(0, 1, torch.device("cpu")), seed=3,
            ).train()  # fmt: skip
        both.append(student.model.state_dict())
    assert all(torch.equal(value, both[1][key]) for key, value in both[0].items())


def loop(setup, batches, method):
    device = torch.device("cpu")
    images = prepared(next(batches.epoch("main", 0)).images, setup.recipe, device)
    torch.manual_seed(3)
    plan = distill.plan(method, setup.student, setup.teacher, images, epochs=1)
    for stage in plan.stages:
        optimizer = make_optimizer(setup.recipe, stage.parameters())
        for step, batch in enumerate(batches.epoch(stage.name, 0)):
            rate = learning_rate(setup.recipe, step, batches.n_steps, 1, stage.stage.schedule)
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * rate
            torch.manual_seed(_seed(3, 0, stage.name, 0, step))
            optimizer.zero_grad()
            x = prepared(batch.images, setup.recipe, device)
            stage.objective(x, batch.labels, progress=step / batches.n_steps).loss.backward()
            optimizer.step()


@pytest.mark.slow
def test_precision_of_the_plan_and_of_the_loop_are_the_same(networks):
    student, teacher = networks
    inside = distill.plan("at", student, teacher, IMAGES, amp="bf16").stages[0].objective
    outside = distill.plan("at", student, teacher, IMAGES).stages[0].objective
    with torch.autocast("cpu", torch.bfloat16):
        theirs = outside(IMAGES, LABELS)
    ours = inside(IMAGES, LABELS)
    assert ours.loss.dtype == torch.float32
    assert float(ours.terms["at"]) == float(theirs.terms["at"])
    assert float(outside(IMAGES, LABELS).terms["at"]) != float(ours.terms["at"])


@pytest.mark.slow
def test_one_module_for_several_processes(networks, tmp_path):
    student, teacher = networks
    (stage,) = distill.plan("ofd", student, teacher, IMAGES).stages
    names = dict(stage.objective.named_parameters())
    assert {id(p) for p in names.values()} == {id(p) for p in stage.parameters()}
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(stage.objective, find_unused_parameters=True)
        wrapped(IMAGES, LABELS).loss.backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(p.grad is not None for p in stage.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "nonsense"}, "method: expected one of ce, kd"),
        ({"student": None}, "student: expected a module or a Network; got NoneType"),
        ({"teacher": "resnet18"}, "teacher: expected a module or a Network; got str"),
        ({"images": None}, r"images: expected two or more .* got NoneType"),
        ({"images": IMAGES[:1]}, r"images: expected two or more .* got shape \(1, 3, 16, 16\)"),
        ({"images": (IMAGES * 9).byte()}, "images: .* torch.uint8"),
        ({"images": IMAGES[:, :1]}, "student: expected a network that takes images of 16 x 16"),
        ({"epochs": 0}, "epochs: expected"),
        ({"amp": "fp8"}, "amp: expected one of none, bf16, fp16"),
        ({"label_smoothing": 1.0}, "label_smoothing: expected"),
        ({"taps": ["stage1"]}, "taps: expected pairs"),
        ({"method_args": {"kd.nonsense": 1}}, r"kd\.nonsense: expected one of weight"),
        ({"teacher": None}, "teacher: expected one for method kd; got none"),
        ({"student": nn.Conv2d(3, 4, 3)}, r"student: expected scores for classes, \(N, K\)"),
    ],
)
def test_bad_input_is_one_sentence(networks, change, message):
    student, teacher = networks
    given = {"method": "kd", "student": student, "teacher": teacher, "images": IMAGES, **change}
    with pytest.raises(UsageError, match=message):
        distill.plan(**given)


def test_a_teacher_elsewhere_is_refused(networks):
    student, teacher = networks
    with pytest.raises(UsageError, match="on the device of the teacher, meta; got cpu"):
        distill.plan("kd", student, teacher.to("meta"), IMAGES)


@pytest.mark.slow
def test_the_blocks_of_the_page_run(capsys):
    inside = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "docs/own_loops.md", "exec"), inside)
    printed = capsys.readouterr().out
    assert "ab.boundary student" in printed
    assert "spectral.spectrum" in printed


def test_what_the_page_links_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists()


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            (
                torch.tensor([0.0, 1.0, 2.0, 0.0]),
                r"whole number for each of 4 images; got \(4,\), ",
            ),
            (torch.tensor([0, 1, 2, 3]), "labels from 0 to 2, .*; got 3"),
            (torch.tensor([0, -1, 2, 1]), "labels from 0 to 2, .*; got -1"),
            (torch.tensor([0, 1, 2]), r"for each of 4 images; got \(3,\)"),
            (torch.zeros(4, 1, dtype=torch.long), r"got \(4, 1\)"),
            (torch.rand(4, 2), r"shares of the 3 classes .*; got \(4, 2\)"),
            ([0, 1, 2, 0], "got list"),
            (None, "got NoneType"),
        ],
    )
    @pytest.mark.parametrize("method", ["ce", "kd"])
    def test_labels(self, method, labels, words):
        student, teacher = cifar_resnet(8, num_classes=3), cifar_resnet(8, num_classes=3)
        images = torch.randn(4, 3, 16, 16)
        stage = distill.plan(method, student, None if method == "ce" else teacher, images).stages[
            -1
        ]
        with pytest.raises(UsageError, match=f"labels: expected .*{words}"):
            stage.objective(images, labels)

    def test_whole_numbers_of_any_type_and_shares_are_labels(self):
        images = torch.randn(4, 3, 16, 16)
        objective = (
            distill.plan("ce", cifar_resnet(8, num_classes=3), None, images).stages[-1].objective
        )
        labels = torch.tensor([0, 1, 2, 0])
        expected = objective(images, labels).loss
        assert objective(images, labels.int()).loss == expected
        shares = torch.nn.functional.one_hot(labels, 3).float()
        torch.testing.assert_close(objective(images, shares).loss, expected)

    @pytest.mark.parametrize("method", ["kd", "dkd", "dist", "jacobian", "fitnets", "spectralkd"])
    def test_scores_of_other_classes_are_not_compared(self, method):
        images = torch.randn(4, 3, 16, 16)
        student, teacher = cifar_resnet(8, num_classes=3), cifar_resnet(8, num_classes=4)
        with pytest.raises(UsageError, match=r"teacher: .* 3 classes .*; got 4 classes"):
            distill.plan(method, student, teacher, images)
        assert distill.plan("at", student, teacher, images).stages

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"method": 3}, "method: expected text"),
            ({"method_args": 3}, "method_args: expected a mapping"),
            ({"method_args": {3: 4}}, "method_args: expected names"),
            ({"taps": ["ab"]}, "taps: expected pairs"),
            ({"taps": [("a", 3)]}, "taps: expected pairs"),
            ({"taps": 5}, "taps: expected pairs"),
        ],
    )
    def test_arguments_are_checked_alike_by_both(self, data, recipe, given, words):
        student, teacher = cifar_resnet(8, num_classes=3), cifar_resnet(14, num_classes=3)
        given = {"method": "at", **given}
        with pytest.raises(UsageError, match=words):
            distill.plan(
                student=student, teacher=teacher, images=torch.randn(4, 3, 16, 16), **given
            )
        with pytest.raises(UsageError, match=words):
            Distillation.of(student, data, teacher=teacher, recipe=recipe, **given)
