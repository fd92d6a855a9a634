"""What every registered model must do. A new architecture gets all of this by registering its variants."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from flaxcnn import create_model, list_models, models
from flaxcnn.layers import conv_lowering
from flaxcnn.models import Classifier, register
from flaxcnn.models.lenet import LeNet
from tests import golden
from tests.variants import (
    PROBES,
    each_block,
    each_probe,
    each_quick,
    every_variant,
    image_sizes,
    small_size,
    without_randomness,
)

# With 1000 classes, as the papers and torchvision's tables have them; auxiliary heads included.
PUBLISHED_PARAMETERS = {
    "alexnet": 61_100_840,
    "alexnet_half": 16_630_440,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
    "googlenet": 13_004_888,
    "inception_v1": 13_378_280,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v1_025": 470_072,
    "mobilenet_v1_050": 1_331_592,
    "mobilenet_v1_075": 2_585_560,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "shufflenet_v1_g1": 1_531_936,
    "shufflenet_v1_g2": 1_733_848,
    "shufflenet_v1_g3": 1_865_728,
    "shufflenet_v1_g4": 1_968_344,
    "shufflenet_v1_g8": 2_434_768,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_0": 2_278_604,
    "shufflenet_v2_x1_5": 3_503_624,
    "shufflenet_v2_x2_0": 7_393_996,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}


def shapes_of(model: Classifier, size: tuple[int, int], channels: int = 3, *, train: bool = False) -> tuple[Any, Any]:
    """The output and the variables after initialising with images of a size, without computing them."""
    images = jax.ShapeDtypeStruct((2, *size, channels), jnp.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    with conv_lowering("xla"):  # which changes no shape, and is traced in two thirds of the time
        return jax.eval_shape(lambda x: model.init_with_output(keys, x, train=train), images)


def final(outputs: Any) -> Any:
    """The logits, also of a model that returns those of its auxiliary heads too."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


@every_variant
def test_output_and_parameters(name: str) -> None:
    model = create_model(name)
    logits, variables = shapes_of(model, (model.image_size, model.image_size))
    assert logits.shape == (2, 1000)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    if name in PUBLISHED_PARAMETERS:
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PUBLISHED_PARAMETERS[name]
    assert not any("." in word for path in flatten_dict(variables["params"]) for word in path)
    stored, found = golden.load_shapes().get(name), golden.describe_shapes(variables)
    assert found == stored, f"{name}: shapes changed. If they are meant to: {golden.SHAPES_COMMAND}"


@each_block
def test_pooled_features(name: str) -> None:
    model = create_model(name, num_classes=0)
    size = (model.image_size, model.image_size)
    features, variables = shapes_of(model, size)
    assert features.ndim == 2 and features.shape[1] > 10
    _, full = shapes_of(create_model(name, num_classes=5), size)
    whole, headless = flatten_dict(full["params"]), flatten_dict(variables["params"])
    assert headless.items() <= whole.items(), "the features' weights are the whole model's without its head"
    assert any(leaf.shape[0] == features.shape[1] for path, leaf in whole.items() if path not in headless)


@each_block
def test_promotions_are_explicit(name: str) -> None:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        shapes_of(create_model(name, num_classes=10), small_size(name), train=True)


@each_block
def test_smallest_images(name: str) -> None:
    model = create_model(name, num_classes=10)
    smallest = model.min_image_size
    assert final(shapes_of(model, (smallest, smallest + 3))[0]).shape == (2, 10)
    for size in [(smallest - 1, smallest), (smallest, smallest - 1)]:
        with pytest.raises(ValueError, match=f"the minimum is {smallest}x{smallest}"):
            shapes_of(model, size)
    if smallest > 1:
        # No smaller than it has to be: without the check, a layer finds nothing left to work on.
        with pytest.raises(ValueError, match="too small for a"):
            shapes_of(create_model(name, min_image_size=1), (smallest - 1, smallest))


@each_probe
def test_other_images(name: str) -> None:
    model = create_model(name, num_classes=10)
    for channels in (1, 4):
        assert final(shapes_of(model, image_sizes(name)[1], channels)[0]).shape == (2, 10)
    for wrong in [jnp.zeros((32, 32, 3)), jnp.zeros((1, 32, 32, 3), jnp.uint8)]:
        with pytest.raises(ValueError, match=r"images must be normalised floats of shape \(n, h, w, c\)"):
            model.init(jax.random.key(0), wrong, train=False)


@pytest.mark.usefixtures("forget_programs_after")
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@each_probe
def test_training_step(name: str, dtype: str) -> None:
    model = create_model(name, num_classes=10, dtype=jnp.dtype(dtype))
    variables, images = golden.deterministic(model, small_size(name), batch=4)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})

    @jax.jit
    def gradients(params: Any, batch_stats: Any) -> Any:
        def loss(params: Any) -> Any:
            outputs, updates = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(2)},
            )
            random = jax.random.normal(jax.random.key(3), (4, 10))
            return sum(jnp.sum(logits * random) for logits in jax.tree.leaves(outputs)), updates

        return jax.grad(loss, has_aux=True)(params)

    grads, updates = gradients(params, batch_stats)
    for path, grad in flatten_dict(grads).items():
        assert np.isfinite(grad).all() and np.any(grad), f"no gradient for {'.'.join(path)}"
    moved = flatten_dict(updates.get("batch_stats", {}))
    assert moved.keys() == flatten_dict(batch_stats).keys()
    for path, before in flatten_dict(batch_stats).items():
        assert np.any(moved[path] != before), f"{'.'.join(path)} did not move"


@pytest.mark.usefixtures("forget_programs_after")
@each_quick
def test_evaluation(name: str) -> None:
    """No statistic moves, nothing leaks from a trace, and compiled or not it is the same."""
    model = create_model(name, num_classes=10)
    variables, images = golden.deterministic(model, image_sizes(name)[1])

    def apply(variables: Any, images: Any) -> Any:
        return model.apply(variables, images, train=False, mutable=["batch_stats"])

    with jax.checking_leaks():
        logits, updates = jax.jit(apply)(variables, images)
    jax.tree.map(np.testing.assert_array_equal, updates.get("batch_stats", {}), variables.get("batch_stats", {}))
    eager, _ = apply(variables, images)
    np.testing.assert_allclose(logits, eager, rtol=0, atol=2e-5 * np.abs(eager).max())


@pytest.mark.parametrize("name", ["lenet", "resnet18"])
def test_vmap(name: str) -> None:
    """Over images, and over models."""
    model = create_model(name, num_classes=10)
    variables, images = golden.deterministic(model, small_size(name))
    apply = partial(model.apply, train=False)
    logits = jax.jit(apply)(variables, images)
    tolerance = {"rtol": 0, "atol": 2e-5 * np.abs(logits).max()}
    one_by_one = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(variables, images[:, None])
    np.testing.assert_allclose(one_by_one[:, 0], logits, **tolerance)
    models = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), variables)
    ensemble = jax.jit(jax.vmap(apply, in_axes=(0, None)))(models, images)
    np.testing.assert_allclose(ensemble[0], logits, **tolerance)
    assert np.abs(ensemble[1] - logits).max() > tolerance["atol"]


@each_probe
def test_bfloat16(name: str) -> None:
    """Logits off by little more than rounding the weights and images costs; float32 parameters and statistics."""
    model = create_model(name, num_classes=10, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes_of(model, small_size(name))[1])} == {jnp.dtype(jnp.float32)}
    variables, images = golden.deterministic(model, small_size(name))
    trained, updates = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}),
        variables,
        images,
    )
    assert final(trained).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} <= {jnp.dtype(jnp.float32)}
    logits = jax.jit(partial(model.apply, train=False))(variables, images)
    exact = jax.jit(partial(create_model(name, num_classes=10).apply, train=False))
    reference = exact(variables, images)
    rounded = exact(*jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(np.float32), (variables, images)))
    assert logits.dtype == jnp.bfloat16
    error = np.abs(np.asarray(logits, np.float32) - reference).max()
    assert 0 < error <= 5 * np.abs(rounded - reference).max()


@each_probe
def test_dropout_can_be_off(name: str) -> None:
    options = without_randomness(name)
    images = jax.ShapeDtypeStruct((4, *small_size(name), 3), jnp.float32)
    model = create_model(name, num_classes=10, **options)
    keyless = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=True), images)
    assert final(keyless[0]).shape == (4, 10)
    for rate in options:
        with pytest.raises(ValueError, match=rf"{rate} must be a number in \[0, 1\)"):
            create_model(name, **{rate: 1.0})


@pytest.mark.parametrize("name", list_models())
def test_train_is_an_explicit_keyword(name: str) -> None:
    train = inspect.signature(type(create_model(name)).__call__).parameters["train"]
    assert train.kind is train.KEYWORD_ONLY and train.default is train.empty


def test_every_block_is_probed() -> None:
    files = [importlib.import_module(file.name) for file in pkgutil.iter_modules(models.__path__, "flaxcnn.models.")]
    classes = {each for file in files for each in vars(file).values() if inspect.isclass(each)}
    blocks = {each for each in classes if issubclass(each, nn.Module) and each.__module__.startswith("flaxcnn.models")}
    # The first is abstract; the others wrap a model, and have tests of their own.
    seen = {models.Classifier, models.Fused, models.WithHead}

    def see(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        seen.add(type(context.module))
        return call(*args, **kwargs)

    with nn.intercept_methods(see):
        for name in PROBES:
            images = jax.ShapeDtypeStruct((1, *small_size(name), 3), jnp.float32)
            jax.eval_shape(partial(create_model(name).init, train=True), jax.random.key(0), images)
    assert blocks - seen == set()


def test_list_models() -> None:
    assert list_models() == sorted(list_models())
    assert list_models("resnet*") == ["resnet101", "resnet152", "resnet18", "resnet34", "resnet50"]
    assert list_models("nothing*") == []


def test_registering_twice_or_wrongly() -> None:
    with pytest.raises(ValueError, match="'lenet' is registered already"):
        register("lenet", LeNet)
    with pytest.raises(ValueError, match="LeNet has no field 'depth'"):
        register("lenet_deep", LeNet, depth=3)
    assert "lenet_deep" not in list_models()


def test_unknown_names_and_options() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'resnet_50'; did you mean resnet50"):
        create_model("resnet_50")
    with pytest.raises(ValueError, match=r"unknown model 'xyzzy'; known: .*lenet"):
        create_model("xyzzy")
    with pytest.raises(ValueError, match=r"efficientnet_b0 has no option 'drop_out'; did you mean dropout"):
        create_model("efficientnet_b0", drop_out=0.5)
    with pytest.raises(ValueError, match="num_classes must be a whole number, 0"):
        create_model("lenet", num_classes=-1)


def test_small_image_stem() -> None:
    """ResNet for 32x32 images: stride 1 and no pool, so that the last stage still sees 4x4 pixels."""
    model = create_model("resnet18", num_classes=10, stem="3x3")
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    assert variables["params"]["conv1"]["kernel"].shape == (3, 3, 3, 64)
    # kuangliu's pytorch-cifar, whose ResNet18 has this stem, counts 11,173,962.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 11_173_962
    _, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=False, capture_intermediates=True, mutable=["intermediates"]),
        variables,
        images,
    )
    assert state["intermediates"]["layer4"]["__call__"][0].shape == (1, 4, 4, 512)
