"""Each mistake of the user's: one line that names it, exit status 2, nothing created or lost."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Command

Refused = Callable[..., str]


@pytest.fixture
def train_refused(refused: Refused, config_file: Path, tmp_path: Path) -> Callable[..., str]:
    """Train with bad flags; the one line, once it is sure that no run folder was made."""

    def run(*words: object) -> str:
        line = refused("train", "--config", config_file, "--workdir", tmp_path / "run", *words)
        assert not (tmp_path / "run").exists()
        return line

    return run


def test_no_config(refused: Refused) -> None:
    assert "--config FILE is needed" in refused("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('train=TrainConfig(epochs="3")', "train.epochs must be int, not '3'"),
        ('model=ModelConfig(dtype="float16")', "model.dtype must be"),
        ("optimizer=OptimizerConfig(options=None)", "optimizer.options must be"),
    ],
)
def test_a_config_file_with_a_value_of_another_type(
    refused: Refused, tmp_path: Path, change: str, message: str
) -> None:
    file = tmp_path / "config.py"
    file.write_text(f"from flaxcnn.config import *\ndef get_config():\n    return Config({change})\n")
    assert message in refused("train", "--config", file, "--workdir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_too_small_for_batchnorm(command: Command, config_file: Path, tmp_path: Path) -> None:
    words = ["--model.name", "resnet18", "--data.image_size", 32, "--data.batch_size", 1]
    result = command("train", "--config", config_file, "--workdir", tmp_path / "run", *words)
    assert result.status == 2
    assert "data.batch_size 1" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


def test_a_flag_that_evaluation_does_not_use(refused: Refused, run_folder: Path) -> None:
    for flag, value in (("--train.epochs", 7), ("--model.name", "resnet18"), ("--data.batch_size", 8)):
        assert f"evaluate does not use {flag}" in refused("evaluate", "--workdir", run_folder, flag, value)


@pytest.mark.slow
def test_a_run_at_another_image_size_is_evaluated_and_predicts(
    command: Command, config_file: Path, tmp_path: Path
) -> None:
    words = ["--data.image_size", 36, "--train.epochs", 1]
    assert command("train", "--config", config_file, "--workdir", tmp_path / "run", *words).status == 0
    assert command("evaluate", "--workdir", tmp_path / "run").status == 0


def test_a_missing_config_file(refused: Refused, config_file: Path) -> None:
    line = refused("train", "--config", config_file.with_name("tinny.py"))
    assert f"there is no config file {config_file.with_name('tinny.py')}; did you mean {config_file}?" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "line 1: SyntaxError"),
        ("import nothing_of_that_name\n", "line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("\nx = {}\ny = x['get']\n", "line 3: KeyError: 'get'"),
        ("x = 1\n", "has no function get_config()"),
        ("def get_config():\n    return 3\n", "get_config() must return a flaxcnn.config.Config"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
        (
            "from flaxcnn.config import ModelConfig\ndef get_config():\n    return ModelConfig(nam='lenet')\n",
            "line 3: TypeError: ModelConfig.__init__() got an unexpected keyword argument 'nam'",
        ),
    ],
)
def test_a_broken_config_file(refused: Refused, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    line = refused("train", "--config", tmp_path / "broken.py")
    assert f"config file {tmp_path / 'broken.py'}" in line
    assert message in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # unknown names
        (["--model.name", "lenett"], "unknown model 'lenett'; did you mean lenet"),
        (["--model.name", "resnet19"], "did you mean resnet"),
        (["--optimizer.name", "sdg"], "sgd"),
        (["--train.epoch", "3"], "unknown flag --train.epoch; did you mean --train.epochs"),
        (["--epochs", "3"], "unknown flag --epochs; did you mean --train.epochs?"),
        (["--xyz", "3"], "unknown flag --xyz; see --help"),
        (["--model", "resnet34"], "unknown flag --model; did you mean --model.name?"),
        (["--lr", "0.1"], "unknown flag --lr; did you mean --optimizer.learning_rate?"),
        (["--model.options", "drop", "0.1"], "lenet has no option 'drop'"),
        (["--data.jitter", "sharpness", "0.1"], "data.jitter: ColorJitter has no 'sharpness'"),
        (["--data.jitter", "hue", "0.9"], "data.jitter: hue: expected 0 to 0.5, got 0.9"),
        (["--data.policy", "rand_augment", "--data.policy_options", "magnitude", "40"], "magnitude: expected 0 to 30"),
        (["--data.policy", "augmix", "--data.policy_options", "depth", "1.5"], "depth must be a whole number, not 1.5"),
        (["--data.name", "cifar10"], "data.path must name the archive or its folder: --data.path FOLDER"),
        (
            ["--data.name", "cifar10", "--data.path", "."],
            "there is no cifar-10-batches-py in ",
        ),
        (["--data.name", "manifest", "--data.path", "none.csv"], "none.csv: no such file; write one with a header"),
        (["--data.name", "tfds"], "--data.name tfds --data.builder NAME"),
        (["--data.name", "tfds", "--data.builder", "mnist", "--data.path", "none"], "mnist is not prepared in "),
        (["--data.name", "synthetic", "--data.path", "."], "the images are made up"),
        (["--data.on_error", "skip"], "data.on_error skip is for files, not for --data.name digits"),
        (["--data.train_split", "all"], "data.train_split and data.val_split go together"),
        (["--data.train_split", "al", "--data.val_split", "all"], "there is no split 'al'; did you mean all?"),
        (["--data.train_split", "all", "--data.val_split", "all[:9]"], "share 9 examples, such as digits["),
        (["--data.train_split", "all", "--data.val_split", "all[:9]"], "write all[:90%] and all[90%:]"),
        (
            ["--data.name", "manifest", "--data.path", "."],
            "a folder, not a manifest: for a folder a class, add --data.name image_folder",
        ),
        (["--data.views", "ten_crop"], "data.views: ten crops need a resize above the image size"),
        (["--data.jitter", "brightness=0.4"], "write names and values with spaces between them"),
        (
            ["--data.name", "image_folder", "--data.path", ".", "--data.cache", "Memory"],
            "data.cache must be `memory` in small letters or a folder, not Memory",
        ),
        (
            ["--data.processes", "-1"],
            "data.processes must be 0 or more, not -1",
        ),
        (["--data.name", "tfds", "--data.builder", ""], "data.builder must be a builder's name"),
        (["--data.folds", "5", "--data.fold", "5"], "data.fold must be from 0 to 4, not 5"),
        (["--data.folds", "5", "--data.fold", "-1"], "data.fold must be from 0 to 4, not -1"),
        (["--data.fold", "2"], "data.fold must be 0 without data.folds: add --data.folds N, not 2"),
        (["--data.folds", "1"], "data.folds must be 0 for none, or 2 or more, not 1"),
        (["--data.erase", "2"], "data.erase must be a probability, not 2"),
        (["--optimizer.options", "beta", "0.1"], "optimizer.options: adam has no 'beta'; did you mean betas?"),
        (["--optimizer.schedule_options", "eta", "0.1"], "did you mean eta_min?"),
        (["--workdir", ""], "workdir must name a folder"),
        (["--optimizer.schedule_options", "eta_min", "5"], "eta_min is a rate, and must be"),
        # missing
        (["--optimizer.schedule", "exponential"], "exponential needs gamma"),
        (["--data.name", "image_folder"], "data.path must name the image folder"),
        # wrong type
        (["--train.epochs", "many"], "train.epochs: must be a whole number, not 'many'"),
        (["--train.epochs", "1.5"], "train.epochs: must be a whole number, not '1.5'"),
        (["--data.flip", "perhaps"], "perhaps"),
        (["--data.mean", "0.5", "0.5"], "mean"),
        (["--optimizer.learning_rate", "fast"], "optimizer.learning_rate: must be a number, not 'fast'"),
        (["--optimizer.options", "weight_decay", "much"], "weight_decay must be a number, not 'much'"),
        (["--train.epochs"], "epochs"),
        (["--device", "cuda"], "cuda"),
        # out of range
        (["--train.epochs", "0"], "train.epochs must be 1 or more, not 0"),
        (["--data.batch_size", "0"], "data.batch_size must be 1 or more, not 0"),
        (["--data.batch_size", "100000"], "data.batch_size"),
        (["--data.eval_batch_size", "0"], "data.eval_batch_size must be 1 or more, not 0"),
        (["--optimizer.learning_rate", "-0.1"], "optimizer.learning_rate must be above 0, not -0.1"),
        (["--optimizer.learning_rate", "nan"], "optimizer.learning_rate must be above 0, not nan"),
        (["--optimizer.learning_rate", "inf"], "optimizer.learning_rate must be above 0, not inf"),
        (["--optimizer.warmup_epochs", "-1"], "optimizer.warmup_epochs must be 0 or more, not -1"),
        (["--optimizer.warmup_epochs", "2"], "optimizer.warmup_epochs must be less than train.epochs (2), not 2"),
        (["--train.label_smoothing", "1"], "train.label_smoothing must be at least 0 and below 1, not 1"),
        (["--train.seed", "-1"], "train.seed must be from 0 to 4294967295, not -1"),
        (["--train.keep", "0"], "train.keep must be 1 or more, not 0"),
        (["--data.val_fraction", "1"], "data.val_fraction must be above 0 and below 1, not 1"),
        (["--data.std", "1", "0", "1"], "data.std must be above 0"),
        (["--data.image_size", "8"], "data.image_size must be 16 or more for lenet, not 8"),
        (["--optimizer.options", "betas", "1"], "betas must be a pair of numbers"),
        (["--optimizer.options", "weight_decay", "-1"], "weight_decay must be 0 or more, not -1"),
        (["--optimizer.options", "eps", "nan"], "optimizer.options: eps must be 0 or more, not nan"),
        (
            ["--optimizer.schedule_options", "eta_min", "-1"],
            "schedule_options: eta_min is a rate, and must be from 0 to 0.002, not -1",
        ),
        (
            ["--model.name", "efficientnet_b0", "--model.options", "dropout", "1.5"],
            "dropout must be a number in [0, 1)",
        ),
        (
            ["--data.image_size", "32", "--data.resize", "16"],
            "data.resize must be data.image_size (32) or more, not 16",
        ),
        (["--data.mean", "nan", "0", "0"], "data.mean must be in [0, 1]"),
        (["--data.mean", "123", "116", "103"], "data.mean must be in [0, 1], as of pixels divided by 255"),
        (
            ["--optimizer.schedule", "step", "--optimizer.schedule_options", "step_size", "foo"],
            "step_size must be a whole number, not 'foo'",
        ),
        (
            ["--optimizer.schedule", "step", "--optimizer.schedule_options", "step_size", "inf"],
            "step_size must be 0 epochs or more, not inf",
        ),
        (
            ["--optimizer.schedule_by", "epoch", "--optimizer.warmup_epochs", "0.5"],
            "optimizer.warmup_epochs must be a whole number of epochs, not 0.5",
        ),
        (
            ["--optimizer.schedule", "one_cycle", "--optimizer.schedule_options", "anneal_strategy", "tan"],
            "anneal_strategy must be one of cos, linear, not 'tan'",
        ),
        (["--optimizer.options", "decay_mask", "all"], "optimizer.options: adam has no 'decay_mask'"),
        (["--optimizer.clip_norm", "0"], "optimizer.clip_norm must be above 0, not 0"),
        (["--optimizer.warmup_factor", "2"], "optimizer.warmup_factor must be from 0 to 1, not 2"),
        (
            ["--optimizer.name", "sgd", "--optimizer.options", "momentum", "0.9", "nesterov", "0.5"],
            "nesterov must be True or False, not 0.5",
        ),
        (
            ["--model.name", "shufflenet_v1_g3", "--model.options", "groups", "5", "--data.image_size", "64"],
            "shufflenet_v1_g3 cannot be built with these options",
        ),
        (["--model.name", "resnet18", "--model.options", "depths", "3"], "resnet18 cannot be built with these options"),
        (["--model.options", "image_size", "8"], "model.options: image_size is set by data.image_size"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_field(train_refused: Refused, words: list[str], message: str) -> None:
    line = train_refused(*words)
    assert message in line


def test_a_device_there_is_none_of(train_refused: Refused) -> None:
    import jax

    absent = "tpu" if any(device.platform == "gpu" for device in jax.devices()) else "gpu"
    assert f"no {absent} was found; use --device cpu" in train_refused("--device", absent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three images, split."""
    for split in ("train", "val"):
        for i, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for k in range(3):
                Image.new("RGB", (32, 32), (100 * i, 50 * k, 0)).save(tmp_path / "data" / split / name / f"{k}.png")
    return tmp_path / "data"


def folder_words(folder: Path) -> list[object]:
    return ["--data.name", "image_folder", "--data.path", folder, "--data.batch_size", 2, "--train.epochs", 1]


def test_the_data_of_the_next_tests_is_right_otherwise(command: Command, config_file: Path, folder: Path) -> None:
    workdir = folder.parent / "run"
    assert command("train", "--config", config_file, "--workdir", workdir, *folder_words(folder)).status == 0
    assert (workdir / "curves.png").exists()


def missing(folder: Path) -> None:
    shutil.rmtree(folder)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def one_class(folder: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(folder / split / "dog")


def empty_class(folder: Path) -> None:
    for file in (folder / "train" / "dog").iterdir():
        file.unlink()


def other_classes(folder: Path) -> None:
    (folder / "val" / "dog").rename(folder / "val" / "wolf")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            missing,
            ["data.path: there is no folder", "--data.path FOLDER", "FOLDER/train/<class> and FOLDER/val/<class>"],
        ),
        (empty, ["no class folders"]),
        (one_class, ["only one class folder, 'cat'"]),
        (empty_class, ["dog", "no images"]),
        (other_classes, ["classes of train and val differ", "dog", "wolf"]),
    ],
)
def test_a_data_folder_that_is_not_right(train_refused: Refused, folder: Path, spoil, words: list[str]) -> None:
    spoil(folder)
    line = train_refused(*folder_words(folder))
    assert str(folder) in line
    for word in words:
        assert word in line


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_corrupt_image(command: Command, config_file: Path, folder: Path, split: str) -> None:
    corrupt = folder / split / "dog" / "1.png"
    corrupt.write_bytes(corrupt.read_bytes()[:50])
    result = command("train", "--config", config_file, "--workdir", folder.parent / "run", *folder_words(folder))
    assert result.status == 2
    assert result.err.splitlines()[-1].startswith(f"train: {corrupt}: ")
    assert "--data.on_error skip" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_a_run_without_a_checkpoint_gives_way_to_a_mended_one(
    command: Command, config_file: Path, folder: Path
) -> None:
    corrupt = folder / "train" / "dog" / "1.png"
    corrupt.write_bytes(corrupt.read_bytes()[:50])
    words = ["train", "--config", config_file, "--workdir", folder.parent / "run", *folder_words(folder)]
    assert command(*words).status == 2
    corrupt.unlink()
    Image.new("RGB", (32, 32)).save(folder / "train" / "dog" / "9.png")
    assert command(*words).status == 0


@pytest.fixture
def trained_on(command: Command, config_file: Path, folder: Path) -> Path:
    """The run folder of a network that was trained on `folder`."""
    workdir = folder.parent / "run"
    assert command("train", "--config", config_file, "--workdir", workdir, *folder_words(folder)).status == 0
    return workdir


@pytest.mark.slow
def test_data_of_another_spelling_or_place_goes_on(
    command: Command, config_file: Path, folder: Path, trained_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert command("evaluate", "--workdir", trained_on).status == 0
    for spelling in ("data", "data/", "../" + folder.parent.name + "/data"):
        words = folder_words(Path(spelling))
        assert command("train", "--config", config_file, "--workdir", trained_on, *words).status == 0
    folder.rename("moved")
    words = folder_words(Path("moved"))
    assert command("train", "--config", config_file, "--workdir", trained_on, *words).status == 0
    words += ["--data.cache", "decoded"]
    assert command("train", "--config", config_file, "--workdir", trained_on, *words).status == 0
    monkeypatch.chdir(trained_on)
    result = command("evaluate", "--workdir", trained_on)
    assert result.status == 0
    assert "not the images" not in result.err
    assert (folder.parent / "decoded").is_dir() and not Path("decoded").exists()


def test_data_that_changed_is_refused(refused: Refused, config_file: Path, folder: Path, trained_on: Path) -> None:
    (folder / "train" / "dog" / "1.png").rename(folder / "train" / "dog" / "7.png")
    line = refused("train", "--config", config_file, "--workdir", trained_on, *folder_words(folder))
    assert "the data has changed since the run" in line
    assert "train 6 examples" in line
    assert "val" not in line


@pytest.mark.parametrize("workdir", [".", "runs/1"])
def test_a_run_within_the_data(refused: Refused, config_file: Path, folder: Path, workdir: str) -> None:
    line = refused("train", "--config", config_file, "--workdir", folder / workdir, *folder_words(folder))
    assert f"the run folder {folder / workdir} lies within data.path {folder}" in line
    assert sorted(entry.name for entry in folder.iterdir()) == ["train", "val"]


def test_a_cache_within_the_data(train_refused: Refused, folder: Path) -> None:
    line = train_refused(*folder_words(folder), "--data.cache", folder / "decoded")
    assert f"data.cache {folder / 'decoded'} lies within data.path {folder}; choose another folder" in line
    assert sorted(entry.name for entry in folder.iterdir()) == ["train", "val"]


def test_a_cache_is_found_from_anywhere(
    command: Command, config_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    words = [*folder_words(folder), "--data.cache", "decoded"]
    assert command("train", "--config", config_file, "--workdir", "run", *words).status == 0
    assert len(list((folder.parent / "decoded").iterdir())) == 12
    monkeypatch.chdir(folder)
    assert command("evaluate", "--workdir", folder.parent / "run").status == 0
    assert sorted(entry.name for entry in folder.iterdir()) == ["train", "val"]


def test_a_folder_of_other_files_is_no_run_folder(refused: Refused, config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    line = refused("train", "--config", config_file, "--workdir", tmp_path)
    assert f"{tmp_path} is not the folder of a run and holds other files (" in line


def test_a_corrupt_image_can_be_skipped(command: Command, config_file: Path, folder: Path) -> None:
    corrupt = folder / "train" / "dog" / "1.png"
    corrupt.write_bytes(corrupt.read_bytes()[:50])
    words = [*folder_words(folder), "--data.on_error", "skip"]
    result = command("train", "--config", config_file, "--workdir", folder.parent / "run", *words)
    assert result.status == 0
    assert f"left out, unreadable (1 of 1): {corrupt}" in result.err.splitlines()


def test_a_run_folder_that_cannot_be_made(refused: Refused, config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    line = refused("train", "--config", config_file, "--workdir", tmp_path / "file" / "run")
    assert f"cannot write to the run folder {tmp_path / 'file' / 'run'}: Not a directory; choose another" in line
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.slow
def test_a_full_disk(config_file: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands in for it."""
    program = (
        "import resource, sys; from flaxcnn.cli.main import script; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); sys.exit(script('train'))"
    )
    words = [sys.executable, "-c", program, "--config", str(config_file), "--workdir", str(tmp_path / "run")]
    words += ["--train.epochs", "1", "--data.image_size", "32"]  # smaller ones make smaller files
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"train: cannot write a checkpoint to {tmp_path / 'run' / 'checkpoints'}")
    assert "Traceback" not in result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_run_of_another_config(refused: Refused, config_file: Path, run_folder: Path) -> None:
    before = contents(run_folder)
    line = refused(
        "train", "--config", config_file, "--workdir", run_folder, "--train.seed", 1, "--optimizer.learning_rate", 1
    )
    assert "train.seed is 0 there and 1 here" in line
    assert "optimizer.learning_rate is 0.002 there and 1.0 here" in line
    assert contents(run_folder) == before


@pytest.fixture
def copy_of_run(run_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


def cut_short(checkpoint: Path) -> None:
    for file in (checkpoint / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:500])


def test_a_checkpoint_that_is_cut_short(refused: Refused, config_file: Path, copy_of_run: Path) -> None:
    cut_short(copy_of_run / "checkpoints" / "44")
    before = contents(copy_of_run)
    before.pop(str(copy_of_run / "config.json"))  # the resumed run has another workdir
    for words in (["train", "--config", config_file], ["evaluate", "--checkpoint", "latest"], ["predict", __file__]):
        name, *more = words
        if name == "predict":
            more = ["--checkpoint", "44", *more]
        line = refused(name, "--workdir", copy_of_run, *more)
        remedy = "delete that folder" if name == "train" else "choose another"
        assert f"cannot read checkpoint {copy_of_run / 'checkpoints' / '44'} ({remedy}" in line
    after = contents(copy_of_run)
    after.pop(str(copy_of_run / "config.json"))
    assert after == before


@pytest.mark.slow
def test_a_deleted_checkpoint_leaves_the_one_before(command: Command, config_file: Path, copy_of_run: Path) -> None:
    cut_short(copy_of_run / "checkpoints" / "44")
    shutil.rmtree(copy_of_run / "checkpoints" / "44")
    result = command("train", "--config", config_file, "--workdir", copy_of_run)
    assert result.status == 0
    assert "resuming from step 22 of 44" in result.err


def test_a_checkpoint_of_another_model(refused: Refused, copy_of_run: Path) -> None:
    config = copy_of_run / "config.json"
    config.write_text(config.read_text().replace('"lenet"', '"resnet18"'))
    line = refused("evaluate", "--workdir", copy_of_run)
    assert "is of another model or optimizer: params." in line


def test_a_checkpoint_there_is_not(refused: Refused, run_folder: Path) -> None:
    line = refused("evaluate", "--workdir", run_folder, "--checkpoint", "7")
    assert f"--checkpoint 7: {run_folder} has no such checkpoint; saved steps: 22, 44" in line
    assert "saved steps: 22, 44" in refused("evaluate", "--workdir", run_folder, "--checkpoint", "newest")


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_a_folder_that_is_no_run(refused: Refused, tmp_path: Path, name: str) -> None:
    images = [__file__] if name == "predict" else []
    line = refused(name, "--workdir", tmp_path, *images)
    assert f"{tmp_path} is not the folder of a run: it has no config.json" in line
    assert list(tmp_path.iterdir()) == []


def test_no_workdir(refused: Refused) -> None:
    assert "--workdir" in refused("evaluate")


def test_data_of_other_classes(refused: Refused, run_folder: Path, folder: Path) -> None:
    line = refused("evaluate", "--workdir", run_folder, "--data.name", "image_folder", "--data.path", folder)
    assert "its 2 classes are not the 10 that the run was trained on" in line
    assert "only in the data: cat, dog; only in the run: 0, 1, 2, 3, 4" in line


def test_images_there_are_not(refused: Refused, run_folder: Path, tmp_path: Path) -> None:
    assert "there is no image" in refused("predict", "--workdir", run_folder, tmp_path / "nothing.png")
    assert "there is no image" in refused("predict", "--workdir", run_folder, tmp_path / "*.png")
    assert f"there is no image in the folder {tmp_path}" in refused("predict", "--workdir", run_folder, tmp_path)
    assert "IMAGE" in refused("predict", "--workdir", run_folder)


def test_top_out_of_range(refused: Refused, run_folder: Path) -> None:
    assert "--top must be 1 or more, not 0" in refused("predict", "--workdir", run_folder, "--top", 0, __file__)
    assert "many" in refused("predict", "--workdir", run_folder, "--top", "many", __file__)
    assert "did you mean --top?" in refused("predict", "--workdir", run_folder, "--tpo", 1, __file__)


def test_a_loss_that_is_not_finite(command: Command, config_file: Path, tmp_path: Path) -> None:
    words = ["--optimizer.name", "sgd", "--optimizer.learning_rate", "1e6", "--train.save_every", "1"]
    result = command("train", "--config", config_file, "--workdir", tmp_path / "run", *words)
    assert result.status == 1
    line = result.err.splitlines()[-1]
    found = re.match(
        r"train: the loss, a parameter or a statistic is not finite at step (\d+): lower the learning rate", line
    )
    assert found is not None
    assert "Traceback" not in result.err
    saved = [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdecimal()]
    assert all(step < int(found[1]) for step in saved)


def test_debug_shows_the_traceback(command: Command) -> None:
    result = command("train", "--debug", "--config", "nowhere.py")
    assert result.status == 2
    assert "Traceback (most recent call last)" in result.err
    assert result.err.splitlines()[-1].startswith("train: there is no config file nowhere.py")
