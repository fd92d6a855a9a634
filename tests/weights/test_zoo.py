"""The published checkpoints: the table against torchvision's, and loading them from a mirror."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flaxcnn import (
    create_model,
    from_torch,
    imagenet_classes,
    list_models,
    load_pretrained,
    preprocessing,
    save_weights,
    to_torch,
)
from flaxcnn.models import abstract_variables
from flaxcnn.weights import CHECKPOINTS, Checkpoint, WeightsError, checkpoint, zoo

TORCHVISION = [row for row in CHECKPOINTS if "pytorch.org" in row.url]
HUB_FILE = "/resolve/main/model.safetensors"
TIMM = [row for row in CHECKPOINTS if row.version.startswith("timm_")]
_REASON = "torchvision's table is the reference"


@pytest.mark.parametrize("row", TORCHVISION, ids=lambda row: f"{row.model}-{row.version}")
def test_table_is_torchvisions(row: Checkpoint) -> None:
    models = pytest.importorskip("torchvision.models", reason=_REASON)
    weights = models.get_model_weights(row.model)[f"IMAGENET1K_{row.version.upper()}"]
    accuracy, preset = weights.meta["_metrics"]["ImageNet-1K"], weights.transforms()
    assert row.url == weights.url
    assert (row.top1, row.top5) == (accuracy["acc@1"], accuracy["acc@5"])
    found = preprocessing(row.model, version=row.version)
    assert ([found.resize], [found.size]) == (preset.resize_size, preset.crop_size)
    assert found.interpolation == preset.interpolation.value
    assert (list(found.mean), list(found.std)) == (preset.mean, preset.std)


def test_table_has_all_of_torchvisions_weights_of_our_models() -> None:
    models = pytest.importorskip("torchvision.models", reason=_REASON)
    published = {
        (name, weights.name[-2:].lower())
        for name in set(models.list_models(module=models)) & set(list_models())
        for weights in models.get_model_weights(name)
        if weights.name != "IMAGENET1K_FEATURES"  # VGG16 without its classifier
    }
    assert {(row.model, row.version) for row in TORCHVISION} >= published


def test_newest_weights_are_torchvisions_default() -> None:
    models = pytest.importorskip("torchvision.models", reason=_REASON)
    for row in TORCHVISION:
        assert checkpoint(row.model).url == models.get_model_weights(row.model).DEFAULT.url


TIMM_NAMES = {
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
}


def test_table_has_all_of_timms_weights_that_it_may_have() -> None:
    """Apache-2.0, ImageNet-1k, of an architecture that is ours: a file named by its checksum, else that of the hub."""
    timm = pytest.importorskip("timm", reason="timm's table is the reference")
    expected = set()
    for name in {row.model for row in TORCHVISION} | TIMM_NAMES.keys():
        for full in timm.list_pretrained(f"{TIMM_NAMES.get(name, name)}.*"):
            config = timm.models.get_pretrained_cfg(full)
            if config.license == "apache-2.0" and config.num_classes == 1000:
                tag = full.partition(".")[2].removesuffix("_in1k")
                url = (config.url or "").replace(
                    "/rwightman/pytorch-image-models/", "/huggingface/pytorch-image-models/"
                )
                expected.add((name, f"timm_{tag}", url or f"https://huggingface.co/{config.hf_hub_id}{HUB_FILE}"))
    assert {(row.model, row.version, row.url) for row in TIMM} == expected


@pytest.mark.slow
def test_every_file_of_the_hub_fits_its_model() -> None:
    timm = pytest.importorskip("timm", reason="timm's models have the keys")
    for row in TIMM:
        if row.url.endswith(HUB_FILE):
            theirs = timm.create_model(TIMM_NAMES.get(row.model, row.model))
            model = create_model(row.model, **row.options)
            assert len(jax.tree.leaves(from_torch(model, theirs.state_dict()))) > 50


@pytest.mark.parametrize("row", TIMM, ids=lambda row: f"{row.model}-{row.version}")
def test_preprocessing_is_bit_for_bit_timms(row: Checkpoint) -> None:
    timm_data = pytest.importorskip("timm.data", reason="timm's transform is the reference")
    image_module = pytest.importorskip("PIL.Image")
    models = pytest.importorskip("timm.models")
    name = f"{TIMM_NAMES.get(row.model, row.model)}.{row.version.removeprefix('timm_')}_in1k"
    config = timm_data.resolve_data_config(pretrained_cfg=models.get_pretrained_cfg(name).to_dict(), use_test_size=True)
    reference = timm_data.create_transform(**config, is_training=False)
    ours = preprocessing(row.model, version=row.version)
    image = image_module.fromarray(np.random.default_rng(0).integers(0, 256, (301, 200, 3), np.uint8))
    np.testing.assert_array_equal(ours(image), reference(image).numpy().transpose(1, 2, 0))


def test_class_names_are_torchvisions() -> None:
    meta = pytest.importorskip("torchvision.models._meta", reason=_REASON)
    assert list(imagenet_classes()) == meta._IMAGENET_CATEGORIES


def test_every_row_makes_a_model() -> None:
    for row in CHECKPOINTS:
        assert create_model(row.model, **row.options).num_classes == 1000
        assert len(zoo._digits(row.file)) >= 8 or row.url.endswith(HUB_FILE)
    assert len({row.file for row in CHECKPOINTS}) == len(CHECKPOINTS) == 107


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: f"{row.model}-{row.version}")
def test_preprocessing_is_bit_for_bit_torchvisions(row: Checkpoint) -> None:
    transforms = pytest.importorskip("torchvision.transforms", reason=_REASON)
    image_module = pytest.importorskip("PIL.Image")
    ours = preprocessing(row.model, version=row.version)
    reference = transforms.Compose(
        [
            transforms.Resize(row.resize or (row.size, row.size), transforms.InterpolationMode(row.interpolation)),
            transforms.CenterCrop(row.size),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(__import__("torch").float32),
            transforms.Normalize(ours.mean, ours.std),
        ]
    )
    rng = np.random.default_rng(0)
    for size in ((301, 200, 3), (97, 131, 3)):
        image = image_module.fromarray(rng.integers(0, 256, size, np.uint8))
        np.testing.assert_array_equal(ours(image), reference(image).numpy().transpose(1, 2, 0))


def publish(monkeypatch: pytest.MonkeyPatch, mirror: Path, model: Any) -> tuple[str, Any]:
    """A LeNet among the published checkpoints, in a folder."""
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: random.normal(size=a.shape).astype(a.dtype), abstract_variables(model))
    mirror.mkdir()
    save_weights(model, variables, mirror / "lenet.pth")
    digits = hashlib.sha256((mirror / "lenet.pth").read_bytes()).hexdigest()[:8]
    file = (mirror / "lenet.pth").rename(mirror / f"lenet-{digits}.pth").name
    row = Checkpoint("lenet", "v1", f"http://127.0.0.1:9/{file}", 99.0, None, 36, 32, "bilinear", "none")
    monkeypatch.setattr(zoo, "CHECKPOINTS", (row,))
    return file, variables


def test_load_pretrained_from_a_mirror_and_then_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, published = publish(monkeypatch, tmp_path / "mirror", create_model("lenet"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FLAXCNN_MIRROR", (tmp_path / "mirror").as_uri() + "/")
    model, variables, preprocess = load_pretrained("lenet")
    assert model.num_classes == 1000
    assert (preprocess.resize, preprocess.size) == (36, 32)
    jax.tree.map(np.testing.assert_array_equal, variables, published)

    monkeypatch.setenv("FLAXCNN_MIRROR", "http://127.0.0.1:9")
    model, variables, _ = load_pretrained("lenet", 3)
    assert to_torch(model, variables)["fc3.weight"].shape == (3, 84)
    np.testing.assert_array_equal(variables["params"]["fc2"]["kernel"], published["params"]["fc2"]["kernel"])
    cached = tmp_path / "cache" / "flaxcnn" / "weights" / file
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=f"{file} is not the published file"):
        load_pretrained("lenet")


def test_a_file_of_the_hub_is_verified_by_the_pointer_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's tree of URLs, in a folder: `resolve` has the file and `raw` its Git LFS pointer."""
    model = create_model("lenet")
    variables = jax.tree.map(lambda a: np.ones(a.shape, a.dtype), abstract_variables(model))
    hub, cached = (
        tmp_path / "timm" / "lenet.best_in1k",
        tmp_path / "flaxcnn" / "weights" / "lenet.best_in1k.safetensors",
    )
    for branch in ("resolve", "raw"):
        (hub / branch / "main").mkdir(parents=True)
    file, pointer = hub / "resolve" / "main" / "model.safetensors", hub / "raw" / "main" / "model.safetensors"
    save_weights(model, variables, file)
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n")
    monkeypatch.setattr(zoo, "_HUB", (tmp_path / "timm").as_uri() + "/")
    row = Checkpoint("lenet", "v1", file.as_uri(), 99.0, None, 36, 32, "bilinear", "none")
    monkeypatch.setattr(zoo, "CHECKPOINTS", (row,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FLAXCNN_MIRROR", raising=False)
    monkeypatch.setattr("flaxcnn.weights.download._PAUSE", 0.01)

    with pytest.raises(WeightsError, match=f"not {'0' * 16}: it is damaged or another file"):
        load_pretrained("lenet")
    pointer.write_text("<html>")
    with pytest.raises(WeightsError, match="does not hold the sha256"):
        load_pretrained("lenet")
    pointer.unlink()
    with pytest.raises(WeightsError, match=f"cannot download {file.as_uri()} .* put it at {cached}"):
        load_pretrained("lenet")
    assert not cached.exists()
    digits = hashlib.sha256(file.read_bytes()).hexdigest()
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digits}\nsize 1\n")
    jax.tree.map(np.testing.assert_array_equal, load_pretrained("lenet")[1], variables)
    assert cached.exists()

    cached.unlink()  # and from a mirror, which has it by the repository's name
    monkeypatch.setenv("FLAXCNN_MIRROR", tmp_path.as_uri())
    file.rename(tmp_path / cached.name)
    (tmp_path / f"{cached.name}.sha256").write_text(f"{digits}  {cached.name}\n")
    jax.tree.map(np.testing.assert_array_equal, load_pretrained("lenet")[1], variables)


def test_what_load_pretrained_says_where_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("flaxcnn.weights.download._PAUSE", 0.01)
    monkeypatch.setenv("FLAXCNN_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"put it at .*flaxcnn/weights/resnet18-f37072fd\.pth"):
        load_pretrained("resnet18")
    with pytest.raises(WeightsError, match=r"put it at .*/mobilenetv1_100\.ra4_e3600_r224_in1k\.safetensors"):
        load_pretrained("mobilenet_v1")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot write in .*/file/flaxcnn/weights: .*XDG_CACHE_HOME"):
        load_pretrained("resnet18")
    monkeypatch.setenv("FLAXCNN_MIRROR", "/some/folder")
    with pytest.raises(WeightsError, match="FLAXCNN_MIRROR must begin with"):
        load_pretrained("resnet18")
    with pytest.raises(WeightsError, match="no published weights of 'lenet'"):
        load_pretrained("lenet")
    with pytest.raises(WeightsError, match=r"did you mean .*resnet50"):
        preprocessing("resnet5")
    with pytest.raises(WeightsError, match=r"no weights 'v2' of resnet18, only v1, timm_a1, timm_a2, "):
        checkpoint("resnet18", "v2")


def test_importing_flaxcnn_stays_light() -> None:
    heavy = ["PIL", "grain", "orbax", "safetensors", "torch", "tensorflow", "matplotlib", "sklearn", "tyro"]
    code = f"import sys, flaxcnn; flaxcnn.load_pretrained; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
