"""Every family through every kind of file and back, bit for bit; other packages' keys; new heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flaxcnn import create_model, from_torch, load_weights, save_weights, to_torch
from flaxcnn.models import Classifier, abstract_variables
from flaxcnn.weights import WeightsError, read_weights
from tests.variants import FAMILIES

torch = pytest.importorskip("torch", reason="PyTorch's own reader and writer are the reference")
timm = pytest.importorskip("timm", reason="timm's models have the other keys")
torchvision = pytest.importorskip("torchvision", reason="torchvision's models are the reference")

from tests.references import make_images, randomise, relative_error, to_nchw, torch_reference  # noqa: E402

# VGG's 133 million numbers take a while to write six times.
each_family = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "vgg" in name else []) for name in FAMILIES]
)


def random_state_dict(reference: Any) -> dict[str, Any]:
    """Every tensor random: no two leaves can be swapped unseen."""
    random = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(tensor.shape, generator=random) if tensor.is_floating_point() else tensor
        for key, tensor in reference.state_dict().items()
    }


def random_variables(model: Classifier) -> Any:
    random = np.random.default_rng(0)
    return jax.tree.map(lambda a: random.normal(size=a.shape).astype(a.dtype), abstract_variables(model))


def assert_equal(found: Any, expected: Any) -> None:
    counted = {key: tensor for key, tensor in expected.items() if not key.endswith("num_batches_tracked")}
    assert found.keys() == counted.keys()
    for key, tensor in counted.items():
        np.testing.assert_array_equal(np.asarray(found[key]), tensor.numpy(), err_msg=key)


@each_family
def test_every_family_through_every_file(tmp_path: Path, name: str) -> None:
    reference, model = torch_reference(name, 7), create_model(name, num_classes=7)
    state_dict = random_state_dict(reference)
    torch.save(state_dict, tmp_path / "zip.pth")
    torch.save(state_dict, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    variables = load_weights(model, tmp_path / "zip.pth")
    assert_equal(to_torch(model, variables), state_dict)
    for target in ("out.pth", "out.safetensors", "orbax"):
        save_weights(model, variables, tmp_path / target)

    for source in ("legacy.pth", "out.pth", "out.safetensors", "orbax"):
        read = read_weights(tmp_path / source).state_dict
        assert_equal({key: array for key, array in read.items() if "num_batches" not in key}, state_dict)
    reference.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    assert_equal({k: v for k, v in reference.state_dict().items() if "num_batches" not in k}, state_dict)
    from safetensors.torch import load_file

    reference.load_state_dict(load_file(tmp_path / "out.safetensors"), strict=True)


def test_mixed_precision_survives_every_file(tmp_path: Path) -> None:
    model = create_model("lenet", param_dtype="bfloat16")
    variables = random_variables(model)
    for target in ("a.pth", "a.safetensors", "orbax"):
        save_weights(model, variables, tmp_path / target)
        loaded = load_weights(model, tmp_path / target)
        assert jax.tree.map(lambda a: a.dtype, loaded) == jax.tree.map(lambda a: a.dtype, variables)
        jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("lenet")
    variables = random_variables(model)
    path = tmp_path / "lenet.pth"
    save_weights(model, variables, path)
    before = path.read_bytes()

    def fail(fd: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(WeightsError, match=r"lenet\.pth: no space"):
        save_weights(model, jax.tree.map(lambda a: a + 1, variables), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["lenet.pth"]


def test_where_it_does_not_write(tmp_path: Path) -> None:
    model = create_model("lenet")
    variables = random_variables(model)
    with pytest.raises(WeightsError, match=r"ends neither in \.pth"):
        save_weights(model, variables, tmp_path / "lenet.onnx")
    (tmp_path / "precious").mkdir()
    with pytest.raises(WeightsError, match="precious exists"):
        save_weights(model, variables, tmp_path / "precious")
    with pytest.raises(WeightsError, match="has shape"):
        save_weights(create_model("lenet", num_classes=3), variables, tmp_path / "lenet.pth")


@pytest.mark.parametrize(
    ("name", "other", "size"),
    [
        ("efficientnet_b0", "efficientnet_b0", 64),
        ("efficientnet_b4", "efficientnet_b4", 64),
        ("mobilenet_v2", "mobilenetv2_100", 64),
        ("resnet18", "resnet18", 64),
        *(
            pytest.param(name, name, 64, marks=pytest.mark.slow)
            for name in (
                *("resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_64x4d"),
                *("wide_resnet50_2", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3"),
            )
        ),
        pytest.param("vgg11", "vgg11", 224, marks=pytest.mark.slow),
        pytest.param("vgg11_bn", "vgg11_bn", 224, marks=pytest.mark.slow),
    ],
)
def test_timm_weights_compute_the_same_in_torchvision(name: str, other: str, size: int) -> None:
    """timm -> flaxcnn -> torchvision, compared in PyTorch."""
    theirs = timm.create_model(other, num_classes=7).eval()
    for key, tensor in theirs.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1:
            tensor.add_(torch.randn(tensor.shape) * 0.1)
    model = create_model(name, num_classes=7)
    state_dict = to_torch(model, from_torch(model, theirs.state_dict()))
    ours = torchvision.models.get_model(name, num_classes=7).eval()
    ours.load_state_dict({key: torch.from_numpy(array) for key, array in state_dict.items()}, strict=True)
    with torch.no_grad():
        images = torch.randn(1, 3, size, size)
        expected, found = theirs(images), ours(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("mobilenet_v3_small", "mobilenetv3_small_100"),
        pytest.param("mobilenet_v3_large", "mobilenetv3_large_100", marks=pytest.mark.slow),
    ],
)
def test_timms_mobilenet_v3_has_an_epsilon_of_its_own(name: str, other: str) -> None:
    theirs = timm.create_model(other, num_classes=7)
    images = make_images((64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = randomise(theirs, to_nchw(images))(to_nchw(images)).numpy()
    state_dict = theirs.state_dict()
    with pytest.raises(WeightsError, match=r"epsilon 1e-5 where this model's is 0\.001"):
        from_torch(create_model(name, num_classes=7), state_dict)
    model = create_model(name, num_classes=7, epsilon=1e-5)
    found = jax.jit(lambda v, x: model.apply(v, x, train=False))(from_torch(model, state_dict), images)
    assert relative_error(found, expected) <= 1e-5


def test_timm_weights_of_another_epsilon_are_refused() -> None:
    state_dict = timm.create_model("efficientnet_b5", num_classes=7).state_dict()
    with pytest.raises(WeightsError, match=r"epsilon 1e-5 where this model's is 0\.001"):
        from_torch(create_model("efficientnet_b5", num_classes=7), state_dict)
    from_torch(create_model("efficientnet_b5", num_classes=7, epsilon=1e-5), state_dict)


def test_a_key_missing_in_another_packages_style_is_named() -> None:
    state_dict = timm.create_model("mobilenetv2_100", num_classes=7).state_dict()
    del state_dict["blocks.3.1.bn2.bias"]
    with pytest.raises(WeightsError, match=r"missing features\.8\.conv\.1\.1\.bias"):
        from_torch(create_model("mobilenet_v2", num_classes=7), state_dict)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_new_head(name: str) -> None:
    state_dict = random_state_dict(torch_reference(name, 7))
    model = create_model(name, num_classes=3)
    with pytest.raises(WeightsError, match="has shape"):
        from_torch(model, state_dict)
    last = [key for key in state_dict if key.endswith(".weight")][-1].removesuffix(".weight")
    loaded = to_torch(model, from_torch(model, state_dict, head="new"))
    assert loaded[f"{last}.weight"].shape[0] == loaded[f"{last}.bias"].size == 3
    body = {key: tensor for key, tensor in state_dict.items() if not key.startswith(f"{last}.")}
    assert_equal({key: array for key, array in loaded.items() if not key.startswith(f"{last}.")}, body)
    assert loaded[f"{last}.weight"].std(axis=0).min() > 0  # not the same for all classes

    features = create_model(name, num_classes=0)
    kept = to_torch(features, from_torch(features, state_dict, head="new"))
    assert_equal(kept, {key: state_dict[key] for key in kept})
    with pytest.raises(WeightsError, match="unexpected"):
        from_torch(features, state_dict)
    with pytest.raises(WeightsError, match=r"missing (conv|features)"):
        from_torch(model, {key: state_dict[key] for key in list(state_dict)[6:]}, head="new")
    with pytest.raises(ValueError, match="head must be"):
        from_torch(model, state_dict, head="ema")  # pyright: ignore[reportArgumentType]


def test_auxiliary_heads_are_left_out_where_the_model_has_none() -> None:
    state_dict = random_state_dict(torch_reference("inception_v1", 7))
    with_heads = create_model("inception_v1", num_classes=7)
    assert_equal(to_torch(with_heads, from_torch(with_heads, state_dict)), state_dict)
    without = create_model("inception_v1", num_classes=7, aux_heads=False)
    body = {key: tensor for key, tensor in state_dict.items() if not key.startswith("aux")}
    assert len(body) < len(state_dict)
    assert_equal(to_torch(without, from_torch(without, state_dict)), body)
    with pytest.raises(WeightsError, match=r"missing aux1\.conv\.conv\.weight"):
        from_torch(with_heads, body)
