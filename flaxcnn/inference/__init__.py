"""Using a trained model: exact evaluation, prediction of image files."""

from flaxcnn.inference.evaluate import evaluate, evaluate_with_logits, make_eval_step
from flaxcnn.inference.features import features

__all__ = ["evaluate", "evaluate_with_logits", "features", "make_eval_step"]
