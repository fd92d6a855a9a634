"""Image folders: what is in them, how they split, and what a broken folder says."""

from __future__ import annotations

import os
import pickle
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from flaxcnn.data import DataError, choose, digits, folder_splits, image_folder, load_image
from flaxcnn.data.folder import IMAGE_SUFFIXES, other_files
from tests.data.pictures import photographs


def make_folder(root: Path, classes: dict[str, int], suffix: str = "png") -> Path:
    """`classes` images a class, each of its own colour."""
    for number, (class_name, count) in enumerate(classes.items()):
        (root / class_name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (4, 3), (number, i, 7)).save(root / class_name / f"{i:03}.{suffix}")
    return root


def test_folders_for_splits(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"b": 2, "a": 3, "B": 1})
    make_folder(tmp_path / "val", {"b": 1, "a": 1, "B": 2})
    train, val = image_folder(tmp_path, "train"), image_folder(tmp_path, "val")
    assert train.class_names == val.class_names == ("B", "a", "b")
    assert train.labels.tolist() == [0, 1, 1, 1, 2, 2] and val.labels.tolist() == [0, 0, 1, 2]
    assert train.files == ("B/000.png", "a/000.png", "a/001.png", "a/002.png", "b/000.png", "b/001.png")
    assert train.name(1) == str(tmp_path / "train" / "a" / "000.png")
    example = train[3]
    assert example["label"] == 1 and example["image"].getpixel((0, 0)) == (1, 2, 7)


@pytest.mark.parametrize(
    ("present", "used"),
    [
        (("val",), "val"),
        (("validation",), "validation"),
        (("valid", "test"), "valid"),
        (("test", "val"), "val"),
        (("test",), "test"),
    ],
)
def test_which_folder_is_held_out(tmp_path: Path, present: tuple[str, ...], used: str) -> None:
    for name in ("train", *present):
        make_folder(tmp_path / name, {"a": 1, "b": 1})
    assert image_folder(tmp_path, "val").root == tmp_path / used


def test_one_folder_is_split_by_class(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 20, "b": 10, "c": 2})
    train, val = image_folder(tmp_path, "train"), image_folder(tmp_path, "val")
    assert Counter(val.labels.tolist()) == {0: 4, 1: 2, 2: 1}
    assert sorted(train.files + val.files) == sorted(
        f"{c}/{i:03}.png" for c, n in zip("abc", (20, 10, 2), strict=True) for i in range(n)
    )
    assert list(train.files) == sorted(train.files)
    assert image_folder(tmp_path, "val", seed=1).files != val.files
    assert len(image_folder(tmp_path, "val", val_fraction=0.5)) == 16
    for split in (train, val):
        assert all(split.class_names[label] == file[0] for label, file in zip(split.labels, split.files, strict=True))


def test_split_does_not_depend_on_place_or_listing_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = image_folder(make_folder(tmp_path / "here", {"a": 9, "b": 9}), "val")
    walk, iterdir = os.walk, Path.iterdir
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((p, d, f[::-1]) for p, d, f in walk(*a, **k)))
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(iterdir(self))))
    there = image_folder(make_folder(tmp_path / "there", {"b": 9, "a": 9}), "val")
    assert there.files == here.files and there.class_names == here.class_names


def test_split_does_not_depend_on_how_a_file_system_writes_accents(tmp_path: Path) -> None:
    held_out = []
    for form in ("NFC", "NFD"):
        for label in "ab":
            (tmp_path / form / label).mkdir(parents=True)
            for i in range(30):
                Image.new("RGB", (4, 3)).save(tmp_path / form / label / unicodedata.normalize(form, f"é{i}.png"))
        source = image_folder(tmp_path / form, "val")
        held_out.append(sorted(source.key(i) for i in range(len(source))))
        assert source[0]["image"].size == (4, 3)
    assert held_out[0] == held_out[1] and len(held_out[0]) == 12


def test_what_counts_as_an_image(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2})
    deep = tmp_path / "a" / "deep" / "er"
    deep.mkdir(parents=True)
    hidden = tmp_path / "a" / ".ipynb_checkpoints"
    hidden.mkdir()
    (tmp_path / ".cache").mkdir()
    image = tmp_path / "a" / "000.png"
    names = ("x.JPG", "x.jpeg", "x.Png", "x.bmp", "x.GIF", "x.tif", "x.TIFF", "x.webp", "x.ppm", "x.avif", "x.jp2")
    for name in names:
        (deep / name).write_bytes(image.read_bytes())
    for path in (
        deep / ".hidden.png",
        hidden / "x.png",
        deep / "notes.txt",
        deep / "png",
        tmp_path / "labels.csv",
    ):
        path.write_bytes(image.read_bytes())
    files = image_folder(tmp_path, "train").files + image_folder(tmp_path, "val").files
    assert len(files) == 4 + 11 and sum(file.startswith("a/deep/er/x.") for file in files) == 11


WITHOUT_AVIF = not features.check("avif")


def test_whatever_torchvision_takes_for_an_image_is_one() -> None:
    folder = pytest.importorskip("torchvision.datasets.folder", reason="torchvision is the reference")
    assert set(folder.IMG_EXTENSIONS) <= set(IMAGE_SUFFIXES)
    assert {*IMAGE_SUFFIXES} - {*Image.registered_extensions()} <= ({".avif"} if WITHOUT_AVIF else set())


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_images_of_every_ending_are_read(tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and WITHOUT_AVIF:
        pytest.skip("this Pillow was built without AVIF")
    file = tmp_path / f"x{suffix}"
    kind = Image.registered_extensions()[suffix]
    photographs()[0].resize((40, 30)).convert("L" if kind == "PPM" else "RGB").save(file, kind)
    assert load_image(file).size == (40, 30)


def test_links_to_folders_are_followed_and_none_twice(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", {"a": 2, "b": 2})
    make_folder(tmp_path / "elsewhere", {"more": 3})
    for name, target in (("x", "elsewhere/more"), ("y", "elsewhere/more"), ("back", "data/a")):
        (tmp_path / "data" / "a" / name).symlink_to(tmp_path / target)
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere" / "more")  # a class
    source = folder_splits(tmp_path / "data")["all"]()
    assert source.files == (
        *("a/000.png", "a/001.png", "a/x/000.png", "a/x/001.png", "a/x/002.png"),
        *("b/000.png", "b/001.png", "c/000.png", "c/001.png", "c/002.png"),
    )


def test_a_test_folder_beside_both(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make_folder(tmp_path / split, {"a": 2, "b": 2})
    (tmp_path / "test").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "test" / "unlabelled.png")
    assert folder_splits(tmp_path).keys() == {"train", "val"}
    make_folder(tmp_path / "test", {"a": 1, "c": 1})
    splits = folder_splits(tmp_path)
    assert splits["val"]().labels.tolist() == [0, 0, 1, 1]  # which is not of it
    with pytest.raises(DataError, match="the classes of train and test differ: only in train: b; only in test: c"):
        splits["test"]()


def test_files_that_are_no_images_by_their_ending(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2})
    for name in ("a/x.heic", "a/y.HEIC", "b/notes.txt", "README", "a/.hidden"):
        (tmp_path / name).touch()
    assert other_files(tmp_path) == {"": 1, ".heic": 2, ".txt": 1}


def test_an_image_that_strayed_into_train_makes_no_class_of_it(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make_folder(tmp_path / split, {"a": 2, "b": 2})
    Image.new("RGB", (4, 3)).save(tmp_path / "train" / "stray.png")
    assert folder_splits(tmp_path)["train"]().class_names == ("a", "b")


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    source = image_folder(make_folder(tmp_path, {"bus": 2, "train": 2}), "train")
    assert source.class_names == ("bus", "train")


def test_sources_are_picklable(tmp_path: Path) -> None:
    for source in (digits("val"), image_folder(make_folder(tmp_path, {"a": 4, "b": 4}), "train")):
        copy = pickle.loads(pickle.dumps(source))
        assert len(copy) == len(source) and copy.name(1) == source.name(1)
        np.testing.assert_array_equal(np.asarray(copy[1]["image"]), np.asarray(source[1]["image"]))


def break_files(root: Path, *files: str) -> None:
    for file in files:
        (root / file).write_bytes((root / file).read_bytes()[:40])


def test_unreadable_image_fails_when_read(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"a": 2, "b": 2})
    make_folder(tmp_path / "val", {"a": 2, "b": 2})
    break_files(tmp_path, "train/b/001.png")
    source = image_folder(tmp_path, "train")
    assert len(source) == 4
    with pytest.raises(DataError, match=r"train/b/001\.png"):
        source[3]


def test_skip_leaves_unreadable_images_out(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 10, "b": 10})
    splits = {split: image_folder(tmp_path, split) for split in ("train", "val")}
    broken = [source.files[1] for source in splits.values()]
    break_files(tmp_path, *broken)
    for source in splits.values():
        split = "train" if source is splits["train"] else "val"
        kept = image_folder(tmp_path, split, on_error="skip")
        assert kept.skipped == (source.name(1),)
        assert kept.files == tuple(file for file in source.files if file not in broken)
        assert all(kept.class_names[kept[i]["label"]] == kept.files[i][0] for i in range(len(kept)))


def test_skip_does_not_take_a_class_from_training(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"a": 2, "b": 2})
    make_folder(tmp_path / "val", {"a": 1, "b": 1})
    break_files(tmp_path, "train/b/000.png", "train/b/001.png", "val/a/000.png")
    with pytest.raises(DataError, match=r"class b: no image of it for train is readable \(.*train/b/000.png"):
        image_folder(tmp_path, "train", on_error="skip")
    assert image_folder(tmp_path, "val", on_error="skip").labels.tolist() == [1]
    break_files(tmp_path, "val/b/000.png")
    with pytest.raises(DataError, match=r"class a: no image of it for val is readable"):
        image_folder(tmp_path, "val", on_error="skip")


def test_folder_errors_are_one_line_each(tmp_path: Path) -> None:
    def message(root: Path) -> str:
        with pytest.raises(DataError) as caught:
            image_folder(root, "train")
        assert "\n" not in str(caught.value) and str(root) in str(caught.value)
        return str(caught.value)

    assert "no such folder" in message(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "found a file" in message(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "no class folders" in message(tmp_path / "empty")
    assert "only one class folder, 'a'" in message(make_folder(tmp_path / "one", {"a": 2}))
    assert "void: no images" in message(make_folder(tmp_path / "hole", {"a": 2, "void": 0}))
    assert "b/000.png: alone in its class" in message(make_folder(tmp_path / "alone", {"a": 2, "b": 1}))

    no_val = make_folder(tmp_path / "no_val" / "train", {"a": 2, "b": 2}).parent
    assert "no folder val, validation, valid or test beside train" in message(no_val)

    two = tmp_path / "two"
    for name in ("train", "val", "valid"):
        make_folder(two / name, {"a": 1, "b": 1})
    assert "val and valid are both there" in message(two)

    differ = tmp_path / "differ"
    make_folder(differ / "train", {"a": 1, "b": 1, "c": 1})
    make_folder(differ / "test", {"a": 1, "b": 1, "d": 1})
    assert "train and test differ: only in train: c; only in test: d" in message(differ)


def message_of(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        folder_splits(root)["all"]()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "validation"), ("train ing", "Val")])
def test_folders_that_look_like_splits_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    names = tuple(name.replace(" ", "") for name in names)
    for name in names:
        make_folder(tmp_path / name, {"a": 2, "b": 2})
    expected = f"not classes but splits by their names: {', '.join(sorted(names))}; name them train and val"
    assert expected in message_of(tmp_path)


def test_classes_may_be_called_as_splits_are(tmp_path: Path) -> None:
    make_folder(tmp_path, {"test": 2, "dev": 2})
    assert folder_splits(tmp_path)["all"]().class_names == ("dev", "test")


def test_what_there_is_instead_of_images_or_classes_is_told(tmp_path: Path) -> None:
    make_folder(tmp_path / "phone", {"a": 2, "b": 0})
    for name in ("1.heic", "2.HEIC", "notes"):
        (tmp_path / "phone" / "b" / name).touch()
    expected = "b: no images in this class folder: convert what there is (1 without an ending, 2 .heic), add some, or"
    assert expected in message_of(tmp_path / "phone")
    make_folder(tmp_path / "nested" / "photos" / "2020", {"a": 2, "b": 2})
    assert "only one class folder, 'photos': expected two or more" in message_of(tmp_path / "nested")
    expected = f"if the classes lie in it, name {tmp_path / 'nested' / 'photos' / '2020'}"
    assert expected in message_of(tmp_path / "nested" / "photos")


def test_all_classes_without_images_are_named_at_once(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 0, "b": 2, "c": 0, "__MACOSX": 0})
    assert message_of(tmp_path) == (
        f"{tmp_path}/a, {tmp_path}/c: no images in these class folders: add some, or remove them"
    )


def test_a_folder_of_a_held_out_split_alone(tmp_path: Path) -> None:
    make_folder(tmp_path / "test", {"a": 2, "b": 3})
    splits = folder_splits(tmp_path)
    assert choose(splits, "val").files == splits["test"]().files and len(splits["test"]()) == 5
    with pytest.raises(DataError, match="no split 'train'; known: test; "):
        choose(splits, "train")


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 2, "b": 2})
    os.rename(os.fsencode(tmp_path / "a" / "000.png"), os.fsencode(tmp_path) + b"/a/caf\xe9.png")  # noqa: PTH104
    assert message_of(tmp_path) == f"{tmp_path}/a/caf\\udce9.png: this name is not UTF-8: rename it"


def test_class_names_with_accents_written_in_two_ways(tmp_path: Path) -> None:
    for split, form in (("train", "NFC"), ("val", "NFD")):
        make_folder(tmp_path / split, {unicodedata.normalize(form, "été"): 2, "a": 2})
    with pytest.raises(DataError, match=r"differ in how accents are written \(.*\): .*rename either"):
        folder_splits(tmp_path)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^split: "):
        digits("test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^val_fraction: "):
        digits("val", val_fraction=1.0)
    with pytest.raises(ValueError, match=r"^on_error: "):
        image_folder(tmp_path, "val", on_error="ignore")  # type: ignore[arg-type]
