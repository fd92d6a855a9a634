"""The models, one file a family. Importing a family registers its variants."""

from flaxcnn.models import alexnet, efficientnet, googlenet, inception_v1, lenet, resnet, vgg
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import create_model, list_models, register

__all__ = [
    "Classifier",
    "alexnet",
    "create_model",
    "efficientnet",
    "googlenet",
    "inception_v1",
    "lenet",
    "list_models",
    "register",
    "resnet",
    "vgg",
]
