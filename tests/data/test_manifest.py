"""Manifests in CSV and JSON lines: what they mean, and what a broken one says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.data import DataError, choose, eval_batches, manifest_splits, train_batches


def write_images(folder: Path, count: int) -> list[str]:
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (3, 2), (i, 0, 0)).save(folder / "images" / f"{i}.png")
    return [f"images/{i}.png" for i in range(count)]


def write(file: Path, rows: list[dict]) -> Path:
    if file.suffix == ".csv":
        flat = [[";".join(v) if isinstance(v, list) else v for v in row.values()] for row in rows]
        file.write_text("\n".join(",".join(map(str, line)) for line in [list(rows[0]), *flat]) + "\n")
    else:
        file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return file


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.JSON"])
def test_a_label_each(tmp_path: Path, name: str) -> None:
    paths = write_images(tmp_path, 4)
    rows = [{"path": p, "label": label} for p, label in zip(paths, ["dog", "cat", "ape", "cat"], strict=True)]
    rows[3]["path"] = str(tmp_path / paths[3])  # absolute
    splits = manifest_splits(write(tmp_path / name, rows))
    source = splits["all"]()
    assert list(splits) == ["all"] and source.class_names == ("ape", "cat", "dog")
    assert source.labels.tolist() == [2, 1, 0, 1] and source.labels.dtype == np.int64
    assert [source[i]["image"].getpixel((0, 0))[0] for i in range(4)] == [0, 1, 2, 3]
    assert source.name(0) == str(tmp_path / paths[0]) and source.key(0) == paths[0]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_mark_of_utf_8_in_front_does_not_count(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, [{"path": "a.jpg", "label": "x"}, {"path": "b.jpg", "label": "y"}])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert manifest_splits(file)["all"]().files == ("a.jpg", "b.jpg")


def test_spaces_round_the_values_of_a_csv_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text('path, label , split\n a.jpg , cat , train\nb c.jpg,cat,train\nd.jpg, "dog, wet" ,train\n')
    source = manifest_splits(file)["train"]()
    assert source.files == ("a.jpg", "b c.jpg", "d.jpg") and source.class_names == ("cat", "dog, wet")
    file.write_text("path,label\na.jpg,cat\n a.jpg,dog\n")
    with pytest.raises(DataError, match=r"line 3: a.jpg was there before"):
        manifest_splits(file)
    file.write_text("path,label\na.jpg,cat\nb.jpg,  \n")
    with pytest.raises(DataError, match=r"line 3: no label"):
        manifest_splits(file)


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_several_labels_are_vectors_up_to_the_batch(tmp_path: Path, name: str) -> None:
    paths = write_images(tmp_path, 4)
    labels = [["dog", "out"], [], ["cat"], ["out"]]
    rows = [{"path": path, "labels": each} for path, each in zip(paths, labels, strict=True)]
    source = manifest_splits(write(tmp_path / name, rows))["all"]()
    expected = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    assert source.class_names == ("cat", "dog", "out")
    np.testing.assert_array_equal(source.labels, expected)
    np.testing.assert_array_equal(source[0]["label"], expected[0])
    (batch,) = eval_batches(source, lambda image: np.asarray(image, np.float32), batch_size=5)
    np.testing.assert_array_equal(batch["label"], [*expected, [0, 0, 0]])
    assert batch["label"].dtype == np.float32
    batches = train_batches(source, lambda image, _: np.asarray(image, np.float32), batch_size=4, seed=0)
    batch = next(batches)
    batches.close()
    np.testing.assert_array_equal(batch["label"], expected[batch["image"][:, 0, 0, 0].astype(int)])


@pytest.mark.parametrize("absolute", [False, True])
def test_the_split_does_not_depend_on_where_the_manifest_lies(tmp_path: Path, absolute: bool) -> None:
    held_out = []
    for place in ("here", "over/there"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        paths = [str(folder / f"{i}.png") if absolute else f"{i}.png" for i in range(40)]
        rows = [{"path": path, "label": f"c{i % 2}"} for i, path in enumerate(paths)]
        source = choose(manifest_splits(write(folder / "m.csv", rows)), "val")
        held_out.append([source.key(i) for i in range(len(source))])
        assert source.name(0) == str(folder / source.key(0))
    assert held_out[0] == held_out[1] and len(held_out[0]) == 8


def test_columns_without_a_name_do_not_count(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    (tmp_path / "m.csv").write_text("path,label,note,note,,\n0.png,a,x,y,,\n1.png,b,x,y,,\n")
    assert manifest_splits(tmp_path / "m.csv")["all"]().class_names == ("a", "b")


def test_a_column_for_the_split(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 5)
    of = ["train", "val", "train", "test", "train"]
    rows = [{"path": p, "label": f"c{i // 2 % 2}", "split": s} for i, (p, s) in enumerate(zip(paths, of, strict=True))]
    splits = manifest_splits(write(tmp_path / "m.csv", rows))
    assert {name: make().files for name, make in splits.items()} == {
        name: tuple(p for p, s in zip(paths, of, strict=True) if s == name) for name in ("test", "train", "val")
    }
    assert choose(splits, "val").files == (paths[1],)
    assert all(make().class_names == ("c0", "c1") for make in splits.values())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.txt", "", "a manifest's name ends in .csv, .jsonl or .json"),
        ("m.csv", "", "it names no images"),
        ("m.csv", "path,label\n", "it names no images"),
        ("m.csv", "file,label\na.png,x\n", "its header is file,label; it has to have path and label (or labels)"),
        ("m.csv", "path,class\na.png,x\n", "its header is path,class; it has to have path and label (or labels)"),
        (
            "m.csv",
            "Path,label\na.png,x\n",
            "its header is Path,label; it has to have path and label (or labels); in small",
        ),
        ("m.csv", "path,label,label\na.png,x,y\n", "its header has label twice"),
        ("m.jsonl", '{"path": "a.png", "label": "x", "split": ["val"]}', "line 1: split: expected a name, got ['val']"),
        ("m.csv", "path,label\n,x\n", "line 2: no path"),
        ("m.csv", "path,label\na.png,x\nb/../a.png,y\n", "line 3: a.png was there before (line 2)"),
        ("m.csv", "path,label\na.png,x\n./a.png,y\n", "line 3: a.png was there before (line 2)"),
        ("m.csv", "path,label\na.png,x\n{folder}/a.png,y\n", "line 3: a.png was there before (line 2)"),
        ("m.csv", "path,label\na.png,x\nb.png,\n", "line 3: no label"),
        ("m.csv", "path,label\na.png,x\nb.png\n", "line 3: no label"),
        ("m.csv", "path,label\na.png,x,y\n", "line 2: more values than the header has names"),
        ("m.csv", "path,label\na.png,x\n\na.png,y\n", "line 4: a.png was there before (line 2)"),
        ("m.csv", "path,label\na.png,x\nb.png,x\n", "expected two or more classes, found 1"),
        ("m.csv", "path,label,split\na.png,x,train\nb.png,y,\n", "line 3: no split, where other lines have one"),
        ("m.jsonl", '{"path": "a.png", "label": "x"}\n{"path": \n', "line 2: not JSON"),
        ("m.jsonl", '["a.png"]\n', "line 1: expected one object a line, as"),
        ("m.jsonl", '{"path": "a.png", "labels": "x"}\n', "line 1: labels: expected a list, got 'x'"),
        (
            "m.jsonl",
            '{"path": "a.png", "label": [1]}\n',
            "line 1: label: expected names, got [[1]]; several labels go by the name `labels`",
        ),
        ("m.csv", "\udcff", "its text is not UTF-8: save it as UTF-8"),
        ("m.csv", "path;label\na.png;x\n", "path and label (or labels); separate by commas, not by semicolons"),
        ("m.csv", "path\tlabel\na.png\tx\n", "path and label (or labels); separate by commas, not by tabs"),
        ("m.csv", "path,label,labels\na.png,x,y\n", "its header has label and labels: give one"),
        ("m.csv", "path,label,split\na,x,train\nb,y,train\nc,z,val\n", "line 4: class z has no image in train"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(text.replace("{folder}", str(tmp_path)).encode(errors="surrogateescape"))
    with pytest.raises(DataError) as caught:
        manifest_splits(file)
    assert str(file) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"a folder, not a manifest: for a folder a class, add --data.name image_folder"
    ):
        manifest_splits(tmp_path)
    with pytest.raises(DataError, match=r"m.csv: no such file; write one with a header path,label"):
        manifest_splits(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path,label\nnone.png,x\nb.png,y\n")
    with pytest.raises(DataError, match=r"none.png: no such file"):
        manifest_splits(tmp_path / "m.csv")["all"]()[0]
