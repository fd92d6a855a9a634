"""Using a trained model: exact evaluation, prediction of image files."""

from flaxcnn.inference.evaluate import evaluate, make_eval_step

__all__ = ["evaluate", "make_eval_step"]
