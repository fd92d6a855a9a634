"""Training: the state, the pure step, its compilation over devices, the loop, checkpoints."""

from flaxcnn.train.state import TrainState, create_state
from flaxcnn.train.step import make_train_step

__all__ = ["TrainState", "create_state", "make_train_step"]
