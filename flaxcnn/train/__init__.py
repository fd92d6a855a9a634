"""Training: the state, the pure step, its compilation over devices, the loop, checkpoints."""

from flaxcnn.train.state import TrainState, create_state
from flaxcnn.train.step import in_phases, make_train_step

__all__ = ["TrainState", "create_state", "in_phases", "make_train_step"]
