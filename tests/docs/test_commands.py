"""The pages' Python runs, and their commands, on little data; those for other programs or hosts are only read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from flaxcnn.cli.main import COMMANDS, script
from flaxcnn.config import RESUMABLE
from flaxcnn.models import list_models
from tests.docs.commands import (
    SMALL_BENCHMARKS,
    commands,
    is_command,
    rule_of,
    run,
    run_benchmark,
    run_here,
    stage,
    without_what_the_budget_replaces,
)
from tests.docs.pages import PAGES, ROOT, Page

# What a page's Python takes for granted.
GIVEN = {
    "docs/guide/alexnet.md": """
from pathlib import Path
from tests.data.test_archives import Cifar
Path("FOLDER").mkdir()
Cifar(10).write_python(Path("FOLDER", "cifar-10-batches-py"))
""",
    "docs/data.md": """
import flaxcnn.data
source, seed, step, row = flaxcnn.data.digits("train"), 0, 30, 5
""",
    "docs/looking-inside.md": """
from functools import partial
import flaxcnn.inference, jax
import numpy as np
model, images, classes = flaxcnn.create_model("resnet18"), np.zeros((2, 64, 64, 3), np.float32), np.array([1, 2])
variables = model.init(jax.random.key(0), images, train=False)
""",
    "docs/weights.md": """
import flaxcnn
from PIL import Image
image = Image.new("RGB", (300, 280))
_, given, _ = flaxcnn.load_pretrained("efficientnet_lite0")
flaxcnn.save_weights(flaxcnn.create_model("efficientnet_lite0"), given, "checkpoint.pth")
published = flaxcnn.load_pretrained
def load_pretrained(name, version=None):  # without a network, these weights stand for others that are in the list
    assert any(row.model == name and version in (None, row.version) for row in flaxcnn.weights.CHECKPOINTS)
    return published("efficientnet_lite0")
flaxcnn.load_pretrained = load_pretrained
""",
}
# Followed by tests of their own.
FOLLOWED = {"docs/adding-a-model.md": "tests/docs/test_adding_a_model.py"}


# Blocks that are no commands, by their first lines; those of flags alone are of `train`.
NO_COMMANDS = {
    "docs/guide/alexnet.md": "flower_photos/",
    "docs/own-folder.md": "photos/daisy/001.jpg",
    "docs/speed.md": "GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_misspelt_program_is_not_taken_for_output(page: Page) -> None:
    """What begins with no program counts as printed, and is not run: no block begins so, and no line names a file."""
    for first, *others in (text.splitlines() for language, text in page.blocks if not language):
        known = first == NO_COMMANDS.get(str(page)) or first.startswith("--") or is_command(first)
        assert known, f"{page}: is this a command? {first}"
        continued = first.endswith("\\")
        for line in others:
            assert continued or is_command(line) or not re.search(r"\b(scripts|benchmarks|configs)/", line), line
            continued = line.endswith("\\")


def commands_of(page: Page) -> list[str]:
    return [command for line in page.shell() for command in commands(line)]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_can_be_run(page: Page) -> None:
    """By the tests below, which few runs have the time for: there is a rule for it, and it is there."""
    for command in commands_of(page):
        rule, names = rule_of(command)
        if rule is run_here:
            assert set(names) <= COMMANDS.keys(), command
        if rule is run_benchmark:
            assert set(names) <= SMALL_BENCHMARKS.keys(), f"commands.py has no small budget for: {command}"
            for models in re.findall(r"--models((?: \w+)+)", command):  # which the budget replaces
                assert set(models.split()) <= set(list_models()), command


def trained(page: Page) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The folder of each run that the page's commands train, and the words that make it that run."""
    for command in commands_of(page):
        program = re.match(r"(python scripts/train\.py|flaxcnn train) ", command)
        flags: dict[str, list[str]] = {}
        values: list[str] = []
        for word in shlex.split(command[program.end() :]) if program else ():
            if word.startswith("--"):
                values = flags.setdefault(word, [])
            else:
                values.append(word)
        if "--config" in flags and "--help" not in flags:
            (folder,) = flags.pop("--workdir", [f"runs/{Path(flags['--config'][0]).stem}"])
            own = {flag: value for flag, value in flags.items() if flag.removeprefix("--") not in RESUMABLE}
            yield folder, tuple(f"{flag} {' '.join(value)}" for flag, value in sorted(own.items()))


def test_no_folder_is_of_two_runs() -> None:
    """Where it would be, whoever follows both pages is told that the folder holds a run of another config."""
    runs: dict[str, set[tuple[str, ...]]] = {}
    for folder, words in (found for page in PAGES for found in trained(page)):
        runs.setdefault(folder, set()).add(words)
    assert len(runs) > 20
    assert {folder: found for folder, found in runs.items() if len(found) > 1} == {}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_is_read_has_been_trained(page: Page) -> None:
    """A run that a command reads is one that the page, or one that it links to, trains."""
    linked = {(page.path.parent / link).resolve() for link in page.links}
    near = [page, *(other for other in PAGES if other.path in linked)]
    begun = {folder for each in near for folder, _ in trained(each)}
    read = {word for command in commands_of(page) for word in command.split() if re.fullmatch(r"runs/\w+", word)}
    assert read <= begun, f"{page} should link to what trains {', '.join(sorted(read - begun))}"


def test_every_small_benchmark_is_there() -> None:
    missing = [name for name in SMALL_BENCHMARKS if not (ROOT / "benchmarks" / f"{name}.py").is_file()]
    assert not missing


def printed() -> Iterator[Any]:
    """Pages, commands and what a block says that they print, where that is the same on every machine."""
    for page in PAGES:
        for lines in (text.replace("\\\n", " ").splitlines() for language, text in page.blocks if not language):
            asked = [line for line in lines if re.match(r"python scripts/(arithmetic|summarize)\.py", line)]
            asked = [line for line in asked if "--workdir" not in line]
            shown = [line for line in lines if line.strip() not in ("", "...") and not is_command(line)]
            if asked and shown:
                marks = pytest.mark.slow if "--compare" in asked[0] else ()  # which compiles the networks
                yield pytest.param(str(page), asked, shown, marks=marks, id=f"{page} {asked[0].partition(' --')[0]}")


@pytest.mark.parametrize(("page", "asked", "shown"), list(printed()))
def test_what_is_printed(page: str, asked: list[str], shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for command in asked:
        name, *words = shlex.split(command.partition("scripts/")[2])
        assert script(name.removesuffix(".py"), words) == 0
    output = {_without_times(line) for line in capsys.readouterr().out.splitlines()}
    missing = [line for line in shown if _without_times(line) not in output]
    assert not missing, f"{page}: not printed: {missing}"


def _without_times(line: str) -> str:
    """A printed line, its spaces made one, and without the milliseconds before a last column of per cent."""
    return re.sub(r"\S+ (?=\S+ %$)", "", " ".join(line.split()))


def _with_commands() -> Iterator[Any]:
    """The README is run by the slow tests; all pages together take too long for every change."""
    for page in PAGES:
        if any(page.shell()) and str(page) not in FOLLOWED:
            mark = pytest.mark.slow if str(page) == "README.md" else pytest.mark.commands
            yield pytest.param(page, marks=mark, id=str(page))


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder has what commands name, and several pages' commands share the programs that they compile."""
    stage(tmp_path, monkeypatch)
    compiled = str(tmp_path.parent / "compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", compiled)
    jax.config.update("jax_compilation_cache_dir", compiled)
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize("page", list(_with_commands()))
def test_commands(page: Page) -> None:
    """In their order, but for those whose output is tested above, and benchmarks, which are below."""
    tested = {command for parameters in printed() for line in parameters.values[1] for command in commands(line)}
    done: list[str] = []
    for command in commands_of(page):
        if rule_of(command)[0] is not run_benchmark and command not in tested:
            if command not in done or command == done[-1]:  # at once again: it resumes
                run(command)
            done.append(command)


_benchmarks = (each for page in PAGES for each in commands_of(page) if rule_of(each)[0] is run_benchmark)
BENCHMARKS = sorted(set(map(without_what_the_budget_replaces, _benchmarks)))


@pytest.mark.commands
@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize("command", BENCHMARKS)
def test_benchmarks(command: str) -> None:
    run(command)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.python and str(page) not in FOLLOWED], ids=str)
def test_python(page: Page, tmp_path: Path) -> None:
    for package in ("torch", "torchvision"):
        if f"import {package}" in page.python:
            pytest.importorskip(package)
    (tmp_path / "page.py").write_text(GIVEN.get(str(page), "") + page.python)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, f"{page}\n{ran.stderr}"
