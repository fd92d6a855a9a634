"""The models, one file a family. Importing a family registers its variants."""

from flaxcnn.models import efficientnet, lenet, resnet
from flaxcnn.models.classifier import Classifier
from flaxcnn.models.registry import create_model, list_models, register

__all__ = ["Classifier", "create_model", "efficientnet", "lenet", "list_models", "register", "resnet"]
