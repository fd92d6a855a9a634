"""Runs as pages: their numbers, their names, nothing from outside, no wider than a phone."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.cli.main import script
from tests.browser import CHROMIUM, Browser
from tests.cli.conftest import Command, records

HOSTILE = "<script>alert(1)", r"Tom & 'Jerry' $\x$"


@pytest.fixture(scope="module")
def report(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the tiny run."""
    output = tmp_path_factory.mktemp("report") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        assert script("report", ["--workdir", str(run_folder), "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def hostile_run(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on classes whose names are HTML, and mathematics to matplotlib."""
    folder, random = tmp_path_factory.mktemp("hostile"), np.random.default_rng(0)
    for name in HOSTILE:
        (folder / "data" / name).mkdir(parents=True)
        for i in range(10):
            pixels = random.integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{i}.png")
    words = ["--config", config_file, "--workdir", folder / "run", "--data.name", "image_folder"]
    words += ["--data.path", folder / "data", "--data.batch_size", 8, "--train.log_every", 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        assert script("train", [str(word) for word in words]) == 0
    return folder / "run"


@pytest.mark.slow
def test_training_ends_with_a_report(command: Command, config_file: Path, tmp_path: Path) -> None:
    words = ["--config", config_file, "--workdir", tmp_path / "run", "--train.epochs", 1, "--train.report", "True"]
    page = tmp_path / "run" / "report.html"
    assert f"report in {page}" in command("train", *words).out
    (written,) = [r for r in records(tmp_path / "run") if r["split"] == "eval"]
    numbers = tables(page)["Numbers on the held-out images"]
    assert f"{written['top1']:.2%}" in numbers[1]
    assert "report in" not in command("train", *words).out  # a run that has ended keeps it
    page.unlink()
    assert command("report", "--workdir", tmp_path / "run").status == 0 and page.exists()


def tables(page: Path) -> dict[str, list[list[str]]]:
    """Heading -> rows of the section's first table."""
    found = {}
    for section in re.findall(r"<section>.*?</section>", page.read_text(), re.DOTALL):
        heading, first = re.findall(r"<h2>(.*?)</h2>", section)[0], section.split("</table>")[0]
        found[heading] = [
            [html.unescape(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL)]
            for row in re.findall(r"<tr>(.*?)</tr>", first, re.DOTALL)
        ]
    return found


def test_a_report_has_the_numbers_of_the_run(report: Path, run_folder: Path) -> None:
    found, last = tables(report), records(run_folder)[-1]
    head, evaluated, in_training = found["Numbers on the held-out images"]
    assert last["split"] == "eval"
    shown = dict(zip(head, in_training, strict=True))
    for title, name in (("top-1", "top1"), ("top-5", "top5")):
        assert shown[title] == f"{last[name]:.2%}"
    assert (shown["loss"], shown["examples"]) == (f"{last['loss']:.4f}", str(last["examples"]))
    # The best checkpoint of two epochs is the last.
    again = dict(zip(head, evaluated, strict=True))
    assert {**again, "": "", "calibration error": ""} == {**shown, "": ""}
    assert [row[0] for row in found["Classes"][1:]] == [str(digit) for digit in range(10)]
    facts = dict(found["What was trained"])
    assert facts["parameters"] == "29,022"
    training = [record for record in records(run_folder) if record["split"] == "train"]
    seconds, before = 0.0, 0
    for record in training:
        seconds += (record["step"] - before) * 64 / record["images_per_second"]
        before = record["step"]
    assert facts["time in training steps"] == f"{seconds:.1f} s"
    assert dict(found["Config"])["optimizer.learning_rate"] == "0.002"
    assert "jax" in dict(found["Environment of this page"])


def test_a_report_shows_everything_and_refers_to_nothing(report: Path) -> None:
    page = report.read_text()
    for heading in ("Curves", "Confusions", "Calibration", "Mistakes", "What it looks at", "Training data"):
        (section,) = re.findall(rf"<h2>{heading}</h2>(.*?)</section>", page, re.DOTALL)
        assert re.search(r'<img [^>]*alt="[^"]+" src="data:image/png;base64,', section), heading
    assert "://" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<script" not in page


def test_names_of_classes_are_no_html(command: Command, hostile_run: Path) -> None:
    result = command("report", "--workdir", hostile_run)
    assert (result.status, result.out) == (0, f"{hostile_run / 'report.html'}\n"), result.err
    page = hostile_run / "report.html"
    assert [row[0] for row in tables(page)["Classes"][1:]] == sorted(HOSTILE)
    assert "<script" not in page.read_text()


def test_a_comparison_names_what_differs(command: Command, run_folder: Path, hostile_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "comparison.html"
    result = command("report", "--compare", run_folder, hostile_run, "--output", page)
    assert result.status == 0, result.err
    found, names = tables(page), [str(run_folder), str(hostile_run)]
    head, *rows = found["What differs in their configs"]
    assert head == ["field", *names]
    assert [row[:3] for row in rows if row[0] != "data.path"] == [
        ["data.name", '"digits"', '"image_folder"'],
        ["data.batch_size", "64", "8"],
        ["train.log_every", "10", "1"],
    ]
    assert len(rows) == 4
    numbers = {row[0]: row[1:] for row in found["Numbers of the last evaluation"]}
    for folder in (run_folder, hostile_run):
        assert numbers[str(folder)][0] == f"{records(folder)[-1]['top1']:.2%}"


def test_what_cannot_be_reported(refused: Callable[..., str], run_folder: Path, tmp_path: Path) -> None:
    assert "nowhere is not the folder of a run" in refused("report", "--workdir", tmp_path / "nowhere")
    assert "nowhere is not the folder of a run" in refused("report", "--compare", run_folder, tmp_path / "nowhere")
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "class_names.json"):
        shutil.copy(run_folder / name, bare)
    assert "has no such checkpoint; saved steps: none yet" in refused("report", "--workdir", bare)
    assert "bare has no records yet" in refused("report", "--compare", run_folder, bare)
    absent = tmp_path / "absent" / "report.html"
    assert f"--output: cannot write {absent}" in refused("report", "--workdir", run_folder, "--output", absent)
    assert "--compare evaluates nothing" in refused("report", "--compare", run_folder, "--checkpoint", "latest")
    assert "report does not use --train.epochs" in refused("report", "--workdir", run_folder, "--train.epochs", 3)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(
    report: Path, run_folder: Path, hostile_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The page of a run, of one whose classes have hostile names, and of both compared."""
    folder = tmp_path_factory.mktemp("pages")
    made = {"run": report, "names": folder / "names.html", "comparison": folder / "comparison.html"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        assert script("report", ["--workdir", str(hostile_run), "--output", str(made["names"])]) == 0
        compared = ["--compare", str(run_folder), str(hostile_run), "--output", str(made["comparison"])]
        assert script("report", compared) == 0
    return made


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 375, 320])
@pytest.mark.parametrize("what", ["run", "names", "comparison"])
def test_the_page_fits_every_screen_and_asks_for_nothing(
    browser: Browser, pages: dict[str, Path], what: str, width: int, dark: bool
) -> None:
    address = pages[what].as_uri()
    browser.set_screen(width, phone=width < 768, dark=dark)
    browser.open(address)
    assert browser.problems == []
    assert [request for request in browser.requests if not request.startswith("data:")] == [address]
    inside = browser.evaluate("document.documentElement.clientWidth")
    assert width - 20 <= inside <= width  # less a bar to scroll with
    assert browser.evaluate("document.documentElement.scrollWidth") == inside
    assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert browser.evaluate("document.images.length") == (1 if what == "comparison" else 6)
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


@pytest.mark.slow
def test_what_is_wrong_with_a_page_is_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<div style="width: 500px">wide</div><img src="absent.png"><script>console.log(1); absent()</script>'
    )
    browser.set_screen(375)
    browser.open(page.as_uri())
    assert browser.requests == [page.as_uri(), (tmp_path / "absent.png").as_uri()]
    assert any("ERR_FILE_NOT_FOUND" in problem for problem in browser.problems)
    assert "Uncaught" in browser.problems
    assert browser.evaluate("document.documentElement.scrollWidth") > 375
