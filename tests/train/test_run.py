"""A run's folder: of one config, written by one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flaxcnn.train.run import RunError, RunFolder

CONFIG = {"model": {"name": "lenet", "options": {}}, "data": {"mean": (0.5, 0.5, 0.5)}, "device": "auto"}


def start(folder: RunFolder, config=CONFIG, free=("device",), class_names=("cat", "dog"), examples="6 examples"):
    return folder.open(config, free=free, class_names=class_names, examples={"train": examples})


def test_it_keeps_the_config_and_the_class_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "some" / "run")
    with start(folder):
        pass
    assert folder.read_config() == json.loads(json.dumps(CONFIG))
    assert folder.read_class_names() == ["cat", "dog"]
    assert json.loads(folder.config.read_text()) == folder.read_config()


def save_checkpoint(folder: RunFolder) -> None:
    (folder.checkpoints / "7").mkdir(parents=True)


def test_the_same_config_goes_on(tmp_path: Path) -> None:
    for device in ("auto", "cpu"):
        with start(RunFolder(tmp_path), {**CONFIG, "device": device}):
            pass
    assert RunFolder(tmp_path).read_config()["device"] == "cpu"


def test_another_config_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with start(folder):
        save_checkpoint(folder)
    other = {
        "model": {"name": "resnet18", "options": {"stem": "3x3"}},
        "data": {"mean": (0.1, 0.5, 0.5)},
        "device": "cpu",
    }
    with pytest.raises(RunError) as error, start(folder, other):
        pass
    message = str(error.value)
    assert "model.name is 'lenet' there and 'resnet18' here" in message
    assert "data.mean is [0.5, 0.5, 0.5] there and [0.1, 0.5, 0.5] here" in message
    assert "model.options" in message
    assert "device" not in message
    assert "\n" not in message
    assert folder.read_config() == json.loads(json.dumps(CONFIG))


def test_a_run_of_another_length_says_how_to_train_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with start(folder, {"train": {"epochs": 10, "seed": 0}}):
        save_checkpoint(folder)
    with pytest.raises(RunError) as error, start(folder, {"train": {"epochs": 20, "seed": 0}}):
        pass
    assert "train.epochs is 10 there and 20 here" in str(error.value)
    assert f"to train on from its end, add --model.weights {tmp_path}" in str(error.value)
    with pytest.raises(RunError) as error, start(folder, {"train": {"epochs": 10, "seed": 1}}):
        pass
    assert "to train on" not in str(error.value)


@pytest.mark.parametrize("other", [{"class_names": ("dog", "zebra")}, {"examples": "7 examples"}], ids=str)
def test_other_data_is_refused(tmp_path: Path, other: dict) -> None:
    folder = RunFolder(tmp_path)
    with start(folder):
        save_checkpoint(folder)
    with pytest.raises(RunError, match=r"the data has changed .*(cat.* now|6 examples.*7 examples.* now)"):  # noqa: SIM117
        with start(folder, **other):
            pass
    assert folder.read_class_names() == ["cat", "dog"]


def test_a_run_without_a_checkpoint_gives_up_its_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with start(folder):
        (folder.checkpoints / "7.orbax-checkpoint-tmp").mkdir(parents=True)
    with start(folder, {"model": {"name": "resnet18"}}, class_names=("a", "b"), examples="7 examples"):
        pass
    assert folder.read_config() == {"model": {"name": "resnet18"}}
    assert folder.read_class_names() == ["a", "b"]
    assert folder.read_examples() == {"train": "7 examples"}


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(RunError, match=r"is not the folder of a run and holds other files \(holiday.jpg\)"):  # noqa: SIM117
        with start(RunFolder(tmp_path)):
            pass


def test_who_is_training(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_being_trained()
    with start(folder):
        assert RunFolder(tmp_path).is_being_trained()
    assert not folder.is_being_trained()
    assert not RunFolder(tmp_path / "nowhere").is_being_trained()


@pytest.mark.parametrize("name", ["config.json", "class_names.json"])
def test_a_file_that_holds_something_else_is_named(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / name).write_text("3")
    with pytest.raises(RunError, match=name):
        folder.read_config() if name == "config.json" else folder.read_class_names()


def test_two_processes_do_not_write_at_once(tmp_path: Path) -> None:
    with start(RunFolder(tmp_path)), pytest.raises(RunError, match="another process is training in"):  # noqa: SIM117
        with start(RunFolder(tmp_path)):
            pass
    with start(RunFolder(tmp_path)):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"cannot write to the run folder .*file/run: Not a directory; choose another"
    with pytest.raises(RunError, match=message), start(RunFolder(tmp_path / "file" / "run")):
        pass


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not the folder of a run: it has no config\.json"):
        RunFolder(tmp_path).read_config()
    with pytest.raises(RunError, match=r"is not the folder of a run: it has no class_names\.json"):
        RunFolder(tmp_path).read_class_names()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config.write_text('{"model": ')
    with pytest.raises(RunError, match=r"cannot read .*config\.json"):
        folder.read_config()
    save_checkpoint(folder)
    with pytest.raises(RunError, match=r"cannot read .*config\.json"), start(folder):
        pass
