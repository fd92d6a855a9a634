"""The models, one file a family. Importing a family registers its variants."""

from flaxcnn.models import (
    alexnet,
    efficientnet,
    efficientnet_lite,
    googlenet,
    inception_v1,
    lenet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    shufflenet_v1,
    shufflenet_v2,
    vgg,
)
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.fused import Fused, fuse
from flaxcnn.models.head import WithHead, with_head
from flaxcnn.models.registry import create_model, list_models, register
from flaxcnn.models.shapes import abstract_variables

__all__ = [
    "Classifier",
    "Fused",
    "WithHead",
    "abstract_variables",
    "alexnet",
    "create_model",
    "efficientnet",
    "efficientnet_lite",
    "fuse",
    "googlenet",
    "inception_v1",
    "lenet",
    "list_models",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3",
    "register",
    "resnet",
    "shufflenet_v1",
    "shufflenet_v2",
    "vgg",
    "with_head",
]
