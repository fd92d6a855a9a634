"""Each model's PyTorch reference, with weights that leave no mistake hidden. Imported only where torch is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

_REASON = "PyTorch's packages are the reference (pip install 'flaxcnn[test]')"
torch = pytest.importorskip("torch", reason=_REASON)
torchvision = pytest.importorskip("torchvision", reason=_REASON)

from torch import nn  # noqa: E402

from tests import reference_models  # noqa: E402

torch.set_num_threads(1)


def _mobilenet_v1(width: float, num_classes: int) -> nn.Module:
    timm = pytest.importorskip("timm.models.efficientnet", reason=_REASON)
    # `timm.create_model` knows width 1 only.
    return timm._gen_mobilenet_v1("mobilenetv1_100", channel_multiplier=width, num_classes=num_classes)


def _efficientnet_lite(variant: int, num_classes: int) -> nn.Module:
    timm = pytest.importorskip("timm", reason=_REASON)
    return timm.create_model(f"tf_efficientnet_lite{variant}", num_classes=num_classes)


def _shufflenet_v1(groups: int, width: float, num_classes: int) -> nn.Module:
    shufflenet = pytest.importorskip("pytorchcv.models.shufflenet", reason=_REASON)
    if groups == 8 and width in (0.5, 1.5):  # where pytorchcv's stem cannot be built
        stem = {0.5: 16, 1.5: 24}[width]
        channels = [[int(384 * width) * 2**stage] * units for stage, units in enumerate((4, 8, 4))]
        reference = shufflenet.ShuffleNet(channels, stem, groups, num_classes=num_classes)
    else:
        reference = shufflenet.get_shufflenet(groups, width, num_classes=num_classes)
    reference.features.final_pool = nn.AdaptiveAvgPool2d(1)  # the 7x7 window there fits images of 224 pixels only
    return reference


# Where torchvision has no model of that name.
_OTHERS: dict[str, Callable[[int], nn.Module]] = {
    "alexnet_half": reference_models.AlexNetHalf,
    "inception_v1": reference_models.InceptionV1,
    "lenet": reference_models.LeNet,
    "mobilenet_v1": partial(_mobilenet_v1, 1.0),
    "mobilenet_v1_075": partial(_mobilenet_v1, 0.75),
    "mobilenet_v1_050": partial(_mobilenet_v1, 0.5),
    "mobilenet_v1_025": partial(_mobilenet_v1, 0.25),
    **{f"efficientnet_lite{variant}": partial(_efficientnet_lite, variant) for variant in range(5)},
    **{f"shufflenet_v1_g{groups}": partial(_shufflenet_v1, groups, 1.0) for groups in (1, 2, 3, 4, 8)},
    **{f"shufflenet_v1_g{groups}_x2_0": partial(_shufflenet_v1, groups, 2.0) for groups in (1, 2, 3, 4, 8)},
    **{f"shufflenet_v1_g{groups}_x0_5": partial(_shufflenet_v1, groups, 0.5) for groups in (1, 3, 8)},
    **{f"shufflenet_v1_g{groups}_x1_5": partial(_shufflenet_v1, groups, 1.5) for groups in (1, 3, 8)},
}
# torchvision's arguments beyond the number of classes.
_ARGUMENTS: dict[str, dict[str, Any]] = {"googlenet": {"aux_logits": True, "init_weights": True}}


def _passes_input(inverted_residual: Any) -> bool:
    """Of timm, of torchvision's MobileNets, or of its ShuffleNetV2."""
    for flag in ("has_skip", "use_res_connect"):
        if hasattr(inverted_residual, flag):
            return getattr(inverted_residual, flag)
    return inverted_residual.stride == 1


# Classes of blocks, and how to tell whether one of them lets its input through.
_RESIDUAL_BLOCKS: dict[str, Callable[[Any], bool]] = {
    "BasicBlock": lambda block: True,
    "Bottleneck": lambda block: True,
    "InvertedResidual": _passes_input,
    "MBConv": lambda block: block.use_res_connect,
    "ShuffleUnit": lambda block: not block.downsample,
}


def torch_reference(name: str, num_classes: int = 1000) -> nn.Module:
    """The PyTorch module whose numbers and keys the registered model must have, freshly initialised."""
    if name in _OTHERS:
        return _OTHERS[name](num_classes)
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **_ARGUMENTS.get(name, {}))


def randomise(reference: nn.Module, images: torch.Tensor, seed: int = 0) -> nn.Module:
    """Make weights at which a mistake shows and rounding does not.

    Scales, biases and running statistics are random (0 and 1 would hide a wrong epsilon and swapped leaves); the last
    scale of every residual branch is small, and the running statistics fit `images` up to 20 %, so that no
    activation grows or vanishes with depth.

    Args:
        reference: changed in place.
        images: (n, c, h, w).
        seed: of the weights beyond the freshly initialised ones.

    Returns:
        `reference` in evaluation mode.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [module for module in reference.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for module in reference.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=random)
            if isinstance(module, (nn.BatchNorm2d, nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.bias.normal_(0, 0.1, generator=random)
        for norm in _last_norms(reference):
            norm.weight.mul_(0.2)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        reference.train()(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.2, generator=random))
            norm.running_var.add_(1e-3)  # a channel that is dead on `images` must not blow up on others
    return reference.eval()


def _last_norms(reference: nn.Module) -> list[nn.BatchNorm2d]:
    blocks = [m for m in reference.modules() if _RESIDUAL_BLOCKS.get(type(m).__name__, lambda block: False)(m)]
    return [
        [m for name, m in block.named_modules() if isinstance(m, nn.BatchNorm2d) and "downsample" not in name][-1]
        for block in blocks
    ]


def switch_off_dropout(reference: nn.Module) -> None:
    """Set all rates of dropout and stochastic depth to zero."""
    for module in reference.modules():
        if isinstance(module, (nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0


def make_images(size: tuple[int, int], batch: int = 2, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Normalised images (n, h, w, c), float64."""
    return np.random.default_rng(seed).normal(size=(batch, *size, channels))


def to_nchw(images: np.ndarray) -> torch.Tensor:
    """(n, h, w, c) array to (n, c, h, w) tensor."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def torch_stages(reference: nn.Module, images: torch.Tensor) -> dict[str, np.ndarray]:
    """The output of each named module, in order of execution and in flax's layout; "" is the whole."""
    outputs: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        # Cloned at once: an in-place activation may follow.
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                array = output.detach().clone().numpy()
                outputs[name] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array

        return hook

    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in reference.named_modules()
        # timm's BatchNormAct2d holds the activation too.
        if type(module).__name__ != "BatchNormAct2d"
    ]
    with torch.no_grad():
        reference(images)
    for hook in hooks:
        hook.remove()
    return outputs


def relative_error(value: Any, reference: Any) -> float:
    """The largest difference, relative to the largest value."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    assert value.shape == reference.shape
    return float(np.abs(value - reference).max() / np.abs(reference).max())


def relative_l2(value: Any, reference: Any, floor: float = 0.0) -> float:
    """The norm of the difference, relative to the reference's norm (or `floor`, if that is larger)."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    assert value.shape == reference.shape
    return float(np.linalg.norm(value - reference) / max(np.linalg.norm(reference), floor, 1e-300))
