"""Using a trained model: exact evaluation, prediction of image files."""

from flaxcnn.inference.evaluate import evaluate, make_eval_step
from flaxcnn.inference.features import features

__all__ = ["evaluate", "features", "make_eval_step"]
