"""Help, overrides and the commands themselves."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flaxcnn.cli import main
from flaxcnn.cli.command_line import load_config, override
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.config import RESUMABLE, Config, ConfigError, OptimizerConfig, from_dict, validate

ROOT = Path(__file__).parents[2]


def leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, inner


def help_of(name: str, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main.script(name, [*words, "--help"])
    assert end.value.code in (0, None)
    return re.sub(r"[\s│]+", " ", re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out))


def test_the_help_of_train_shows_every_field_with_its_default(capsys, config_file: Path) -> None:
    text = help_of("train", "--config", str(config_file), capsys=capsys)
    for name, value in leaves(load_config(config_file)):
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        entry = re.search(rf"--{re.escape(name)} .*?\(default: (.*?)\)", text)
        assert entry is not None, name
        if not isinstance(value, dict):
            assert entry[1] == shown, name
    assert "--config FILE" in text
    assert "--debug" in text


def test_help_needs_no_config(capsys) -> None:
    assert "--train.epochs" in help_of("train", capsys=capsys)


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_the_help_of_the_others(capsys, name: str) -> None:
    text = help_of(name, capsys=capsys)
    for flag in ("--workdir", "--checkpoint", "--json"):
        assert flag in text
    assert "(default: best)" in text


def parse(*words: str) -> Config:
    return override(Config(), words, prog="train")


def test_every_field_can_be_overridden_in_its_type() -> None:
    config = parse(
        "--model.options", "stem", "3x3", "dropout", "0.1", "--data.mean", "0.1", "0.2", "0.3", "--data.flip", "True",
        "--data.image_size", "48", "--optimizer.learning_rate", "1e-3", "--train.epochs=7", "--data.path", "None",
        "--optimizer.options", "momentum", "0.9", "nesterov", "True", "weight_decay", "5e-4",
    )  # fmt: skip
    assert config.model.options == {"stem": "3x3", "dropout": 0.1}
    assert config.data.mean == (0.1, 0.2, 0.3)
    assert config.data.flip is True
    assert (config.data.image_size, config.data.path) == (48, None)
    assert config.optimizer.learning_rate == 1e-3
    assert config.train.epochs == 7
    assert config.optimizer.options == {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    assert config.optimizer.options["nesterov"] is True


@pytest.mark.parametrize("default", [{}, {"momentum": 0.5, "nesterov": True}], ids=["empty", "filled"])
def test_options_are_replaced_whatever_there_was(default: dict) -> None:
    config = Config(optimizer=OptimizerConfig(options=default))
    words = ["--optimizer.options", "betas", "0.9", "0.95", "eps", "1e-3", "nesterov", "False", "kind", "3x3"]
    changed = override(config, words, prog="train")
    assert changed.optimizer.options == {"betas": (0.9, 0.95), "eps": 1e-3, "nesterov": False, "kind": "3x3"}
    assert override(config, ["--optimizer.options"], prog="train").optimizer.options == {}
    assert override(config, [], prog="train").optimizer.options == default


def test_what_is_not_overridden_stays() -> None:
    assert parse() == Config()


def test_a_config_survives_json() -> None:
    import json

    config = parse("--data.mean", "0.1", "0.2", "0.3", "--model.options", "dropout", "0.1")
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a config of this version"):
        from_dict({"model": {"nam": "lenet"}})


def test_the_fields_that_may_differ_exist() -> None:
    assert set(RESUMABLE) <= {name for name, _ in leaves(Config())}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda p: p.stem)
def test_every_config_is_valid_and_says_how_to_run_it(path: Path) -> None:
    validate(load_config(path))
    assert f"--config {path.relative_to(ROOT)}" in path.read_text()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("train", "there is no config file nowhere; name one, such as configs/lenet.py"),
        ("evaluate", "nowhere is not the folder of a run: it has no config.json"),
        ("predict", "there is no image missing.png"),
    ],
)
def test_scripts_end_with_the_status(name: str, line: str) -> None:
    words = {"train": ["--config", "nowhere"], "predict": ["--workdir", "nowhere", "missing.png"]}
    result = subprocess.run(
        [sys.executable, f"scripts/{name}.py", *words.get(name, ["--workdir", "nowhere"])],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"{name}: {line}\n"


@pytest.mark.parametrize("own", [None, "glibc.malloc.perturb=0"])
def test_training_asks_for_huge_pages_unless_the_user_set_the_allocator(tmp_path: Path, own: str | None) -> None:
    config = tmp_path / "config.py"
    config.write_text("import os\nraise ValueError(os.environ.get('GLIBC_TUNABLES'))\n")
    for command in ("scripts/train.py",), ("-m", "flaxcnn", "train"):
        env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
        result = subprocess.run(
            [sys.executable, *command, "--config", str(config)],
            env=env | ({"GLIBC_TUNABLES": own} if own else {}),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
        asks = pages.is_file() and "[madvise]" in pages.read_text()
        expected = own or ("glibc.malloc.hugetlb=1" if asks else None)
        assert result.stderr.endswith(f"ValueError: {expected}\n"), result.stderr


def flaxcnn(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["flaxcnn", *words])
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # or the process that runs the tests would be replaced
    with pytest.raises(SystemExit) as end:
        main.main()
    return end.value.code


def test_the_flaxcnn_command(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert flaxcnn(monkeypatch, "train", "--config", "nowhere.py") == 2
    assert capsys.readouterr().err == "train: there is no config file nowhere.py; name one, such as configs/lenet.py\n"
    assert flaxcnn(monkeypatch, "trian") == 2
    assert "unknown command 'trian'; known: train" in capsys.readouterr().err
    for words in ([], ["--help"]):
        assert flaxcnn(monkeypatch, *words) == 0
        text = capsys.readouterr().out
        assert all(name in text for name in main.COMMANDS)


@pytest.mark.parametrize(
    ("flags", "given", "expected"),
    [
        ("--xla_force_host_platform_device_count=8", None, "64"),
        ("--xla_force_host_platform_device_count=8", "2", "64"),
        ("--xla_force_host_platform_device_count=2", "100", "100"),
        ("", None, None),
        ("", "2", "2"),
    ],
)
def test_several_cpu_devices_get_threads_to_wait_in(
    flags: str, given: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("NPROC", given or "")
    if given is None:
        monkeypatch.delenv("NPROC")
    set_up_jax()
    assert os.environ.get("NPROC") == expected
