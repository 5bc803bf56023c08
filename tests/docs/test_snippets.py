"""Every command and every block of Python in README, tutorial, how-tos and explanations runs.

A page is read from top to bottom in a folder of its own: its commands and its Python, as they
stand, but for the substitutions that are listed here. No test downloads weights, has a scheduler or
measures for minutes: what cannot run is at least read by click, so that every option exists.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import natstats
from natstats import demo
from natstats.networks.zoo import cifar_resnet

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md", "docs/README.md", "docs/install.md", "docs/tutorial.md",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/how-to/*.md")),
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/explanation/*.md")),
]  # fmt: skip
BLOCK = re.compile(r"^( *)```(sh|bash|python)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

NETWORKS = {
    "mobilenet_v2": "cifar_resnet8", "resnet50": "cifar_resnet8", "resnet18": "cifar_resnet8",
    "resnet34": "cifar_resnet14", "features.18.0": "stage3.0.conv1",
}  # fmt: skip
"""Named networks and layers, and the small ones in their place."""

PUBLISHED = ["--checkpoint", "published.pth"]
"""In the place of published weights, which would be downloaded."""

SMALL = {"measure": ["--size", "32"], "explain": ["--size", "32"]}
"""What makes a command quick, where it says nothing else of the size."""

QUICK = ["--epochs", "1", "--size", "16", "--batch-size", "8", "--no-gap", "--no-gradients"]
"""The same for a training, but for one that takes its settings from another."""

SEEDS = {"10": "2"}
"""Seeds of the random weights."""

ONLY_READ = {
    "natstats * imagenet:/data/imagenet:train *": "needs ImageNet",
    "natstats images cifar10:*": "needs CIFAR-10",
    "natstats * 'pipe:gsutil *": "needs a bucket",
    "torchrun *": "starts processes; tests/processes has them",
    "srun *": "needs SLURM",
}
"""Commands of natstats that click reads and nobody runs, and why."""

NOT_OURS = {
    "make *": ".ci/run makes demo and test",
    "git clone *": "needs a network",
    "cd natstats": "goes with it",
    "python3 -m venv *": "make install does it",
    ".venv/bin/pip install *": "needs a network",
    "pip install *": "make package installs the wheel",
    "source .venv/bin/activate": "is for the shell of who reads it",
    "head=*": "needs SLURM",
}
"""Commands of others, and why they are not run."""

OF_TEST_README = "README.md"
"""Its Python is run by tests/test_readme.py."""


def lines_of(block: str) -> list[str]:
    """Commands of a block: continued lines joined, comments left out."""
    joined = block.replace("\\\n", " ")
    lines = [re.sub(r"(^|\s+)#( .*|!.*|SBATCH .*)$", "", line) for line in joined.splitlines()]
    return [line.strip() for line in lines if line.strip()]


def matching(line: str, patterns: dict[str, str]) -> bool:
    return any(fnmatch.fnmatchcase(line, pattern) for pattern in patterns)


def arguments_of(line: str) -> list[str] | None:
    """What a line gives to natstats; None where it is another's command."""
    words = [] if matching(line, NOT_OURS) else shlex.split(line)
    for place, word in enumerate(words):
        if word in ("natstats", ".venv/bin/natstats", "natstats_cli"):
            return words[place + 1 :]
    return None


def substituted(arguments: list[str]) -> list[str]:
    """The same command, small."""
    words = [NETWORKS.get(word, word) for word in arguments]
    name = words[0]
    if name in ("measure", "explain") and "--checkpoint" not in words and ":" not in words[1]:
        words += PUBLISHED
    if "--control-seeds" in words:
        place = words.index("--control-seeds") + 1
        words[place] = SEEDS.get(words[place], words[place])
    if not {"--size", "--crop"} & set(words):
        words += SMALL.get(name, [])
    if name == "distill" and "--from" not in words:
        words += [word for word in QUICK if "--epochs" not in words or word not in QUICK[:2]]
    return words


def read(group, arguments: list[str]) -> None:
    """Let click read a command: it exists, and so do its options."""
    if arguments[0].startswith("-"):
        return
    name, *rest = arguments
    group.get_command(None, name).make_context(name, rest, resilient_parsing=False)


@pytest.fixture(scope="session")
def things(tmp_path_factory):
    """Photographs, weights and data sets by the names that the pages give them."""
    home = tmp_path_factory.mktemp("reader")
    (home / "photos").mkdir()
    for path in sorted(demo.photographs().glob("*.jpg"))[:9]:
        with Image.open(path) as image:
            image.resize((80, 72)).save(home / "photos" / f"{path.stem}.png")
    # What `make demo` leaves, of smaller photographs.
    natstats.measure(demo.network(), home / "photos", size=32, out=home / "demo")
    return home


@pytest.fixture
def folder(things, tmp_path, monkeypatch):
    """The folder where a reader is, with all that the pages speak of."""
    monkeypatch.setenv("HOME", str(things))
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    photos = sorted((things / "photos").iterdir())
    Path("list.txt").write_text("\n".join(map(str, photos)))
    np.save("fields.npy", np.random.default_rng(0).random((8, 1, 16, 16), dtype=np.float32))
    _write_shards(photos)
    shutil.copytree(things / "demo", "runs/demo")
    for clip in range(4):
        Path(f"frames/clip_{clip}").mkdir(parents=True)
        with Image.open(photos[clip]) as image:
            for number in range(16):
                image.save(f"frames/clip_{clip}/{number:02d}.png")
    _write_weights()
    _write_labelled()
    Path("package").mkdir()
    Path("package/module.py").write_text(
        "from natstats.networks.zoo import cifar_resnet as factory\n"
    )
    yield tmp_path
    for name in ("my_nets", "package", "package.module"):
        sys.modules.pop(name, None)


def _write_shards(photos):
    import tarfile

    Path("shards").mkdir()
    for number in range(2):
        with tarfile.open(f"shards/{number:03d}.tar", "w") as shard:
            for photo in photos[number::2]:
                shard.add(photo, photo.name)


def _write_weights():
    def weights(seed, depth=8, n_classes=10):
        torch.manual_seed(seed)
        return cifar_resnet(depth, num_classes=n_classes).state_dict()

    Path("epochs").mkdir()
    for number, name in enumerate(
        ("published", "theirs", "first", "second", "mine", "epochs/epoch_0", "epochs/epoch_1")
    ):
        torch.save(weights(number), f"{name}.pth")
    torch.save(weights(0, 14, 2), "t.pth")
    torch.save({"model": weights(0), "ema": weights(1)}, "both.pth")
    torch.save({"other.weight": torch.ones(3), **weights(2)}, "changed.pth")
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(*sizes, 3) for sizes in ((3, 16), (16, 16), (16, 4))]
    names = {f"{2 * k}.{n}": v for k, one in enumerate(layers) for n, v in one.state_dict().items()}
    torch.save(names, "small.pth")


def _write_labelled():
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("val", 4)):
        for place, name in enumerate(("dark", "light")):
            home = Path("DIR", split, name)
            home.mkdir(parents=True)
            for number in range(n):
                pixels = np.clip(rng.normal(80 + 90 * place, 30, (16, 16, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(home / f"{number}.png")


def run_line(group, line: str) -> None:
    arguments = arguments_of(line)
    if arguments is None:
        assert matching(line, NOT_OURS), f"{line}: no command of natstats, and not in NOT_OURS"
        return
    read(group, arguments)
    if matching(line, ONLY_READ):
        return
    result = CliRunner().invoke(group, substituted(arguments))
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("quick", "folder")
def test_what_a_page_shows_runs(page, group):
    text = (ROOT / page).read_text(encoding="utf-8")
    inside: dict[str, object] = {}
    for indent, language, block in BLOCK.findall(text):
        block = re.sub(f"^{indent}", "", block, flags=re.MULTILINE)
        if language != "python":
            for line in lines_of(block):
                run_line(group, line)
        elif page != OF_TEST_README:
            name = re.match(r"# (\w+\.py)\n", block)
            if name is not None:
                Path(name[1]).write_text(block, encoding="utf-8")
            exec(compile(block, page, "exec"), inside)


def test_every_command_of_the_long_pages_is_read(group):
    """Reference and studies show commands that take hours, or files that nobody has here."""
    n_read = 0
    for path in sorted(set(ROOT.glob("docs/*.md")) - {ROOT / page for page in PAGES}):
        text = path.read_text(encoding="utf-8")
        for line in lines_of(text):
            if re.match(
                r"(torchrun .*-m natstats_cli|natstats) (?=\w+ )(?!\w+ (is|are|be) )", line
            ):
                arguments = arguments_of(line)
                if arguments is None or arguments[0] not in group.list_commands(None):
                    continue  # a sentence
                read(group, arguments)
                n_read += 1
        for _, language, block in BLOCK.findall(text):
            if language == "python":
                compile(block, path.name, "exec")
    assert n_read > 10


def test_every_reason_is_needed():
    """What is said not to run stands on some page."""
    shown = [
        line
        for page in PAGES
        for _, language, block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
        if language != "python"
        for line in lines_of(block)
    ]
    for patterns in (ONLY_READ, NOT_OURS):
        for pattern in patterns:
            assert any(fnmatch.fnmatchcase(line, pattern) for line in shown), pattern
    assert sum(arguments_of(line) is not None for line in shown) > 50


def test_a_wrong_option_is_found(group):
    with pytest.raises(Exception, match="No such option"):
        read(group, ["measure", "resnet50", "--no-such-option"])
