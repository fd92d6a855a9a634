"""Using a trained model: exact evaluation, prediction of image files, what it looks at."""

from flaxcnn.inference.attribution import (
    default_layer,
    grad_cam,
    grad_cam_plus_plus,
    integrated_gradients,
    occlusion,
    saliency,
)
from flaxcnn.inference.evaluate import evaluate, evaluate_with_outputs, make_eval_step
from flaxcnn.inference.features import feature_maps, features
from flaxcnn.inference.units import dead_units, make_fired_step, relu_outputs

__all__ = [
    "dead_units",
    "default_layer",
    "evaluate",
    "evaluate_with_outputs",
    "feature_maps",
    "features",
    "grad_cam",
    "grad_cam_plus_plus",
    "integrated_gradients",
    "make_eval_step",
    "make_fired_step",
    "occlusion",
    "relu_outputs",
    "saliency",
]
