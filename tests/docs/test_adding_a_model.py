"""The page's steps, followed in a copy of the repository: the new model gets the tests that the page promises."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-model.md").read_text()
MODEL, USAGE, REFERENCE, ENTRIES = (
    textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)
)
VARIANTS = {"pocketnet", "pocketnet_wide"}


def insert_after(path: Path, line: str, text: str) -> None:
    head, found, tail = path.read_text().partition(f"{line}\n")
    assert found, f"{path.name} has no line {line!r}"
    path.write_text(f"{head}{found}{text}{tail}")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the model and its reference, and nothing stored of it."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("flaxcnn", "tests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "flaxcnn" / "models" / "pocketnet.py").write_text(MODEL)
    insert_after(root / "flaxcnn" / "models" / "__init__.py", "    mobilenet_v3,", "    pocketnet,\n")
    with (root / "tests" / "reference_models.py").open("a") as file:
        file.write(f"\n\n{REFERENCE}")
    insert_after(
        root / "tests" / "references.py",
        "_OTHERS: dict[str, Callable[[int], nn.Module]] = {",
        textwrap.indent(ENTRIES, "    "),
    )
    return root


def run(copy: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in the copy, whose packages come before those of this repository."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), **environment},
        capture_output=True,
        text=True,
    )


def run_tests(copy: Path, *arguments: str, **environment: str) -> tuple[set[str], dict[str, str], str]:
    """The tests of the new model that passed, the messages of those that failed, and the whole output."""
    command = ["-m", "pytest", "-n", "0", "-k", "pocketnet", "--junit-xml", "report.xml", *arguments]
    ran = run(copy, *command, **environment)
    output = ran.stdout + ran.stderr
    assert ran.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), output
    passed, failed = set(), {}
    for case in ElementTree.parse(copy / "report.xml").iter("testcase"):
        assert case.find("skipped") is None and case.find("error") is None, output
        failure = case.find("failure")
        if failure is None:
            passed.add(case.attrib["name"])
        else:
            failed[case.attrib["name"]] = failure.attrib["message"]
    return passed, failed, output


def of_each_model(file: str) -> set[str]:
    """Names of a file's tests of models by name, but for those that name their models themselves."""
    functions = [node for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)]
    return {
        function.name
        for function in functions
        if function.name.startswith("test_")
        and "name" in {argument.arg for argument in function.args.args}
        and not any(map(names_models, function.decorator_list))
    }


def names_models(decorator: ast.expr) -> bool:
    """Whether it is `parametrize("name", [...])`."""
    match decorator:
        case ast.Call(args=[ast.Constant(value="name"), ast.List()]):
            return True
    return False


@pytest.mark.slow
def test_registry_wide_tests_run_and_tell_what_is_missing(copy: Path) -> None:
    passed, failed, output = run_tests(copy, "tests/models/test_registry.py")
    assert failed.keys() == {f"test_output_and_parameters[{name}]" for name in VARIANTS}, output
    for message in failed.values():
        assert "If they are meant to: python -m tests.golden shapes" in message
    ran = {name.partition("[")[0] for name in passed | failed.keys()}
    assert ran == of_each_model("tests/models/test_registry.py")
    assert {"test_training_step[pocketnet-float32]", "test_smallest_images[pocketnet]"} <= passed


def test_usage(copy: Path) -> None:
    ran = run(copy, "-c", USAGE)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_the_rest_passes_with_a_reference_and_stored_shapes(copy: Path) -> None:
    pytest.importorskip("torchvision", reason="the page's reference is PyTorch's")
    stored = run(copy, "-m", "tests.golden", "shapes")
    assert stored.returncode == 0, stored.stderr
    _, failed, output = run_tests(copy, "tests/models/test_registry.py", "tests/parity", "-m", "slow or not slow")
    assert not failed, output
    passed, failed, output = run_tests(copy, "tests/float64", "-m", "slow or not slow", JAX_ENABLE_X64="1")
    assert not failed, output
    assert {
        "test_stages_and_logits_of_odd_images[pocketnet_wide]",
        "test_stages_and_logits_of_the_smallest_images[pocketnet]",
        "test_first_step[pocketnet]",
        "test_ten_steps[pocketnet-adam]",
    } <= passed, output
