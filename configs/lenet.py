"""LeNet on the embedded handwritten digits.

python scripts/train.py --config configs/lenet.py
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("lenet"),
        data=DataConfig(batch_size=64, augment="pad_crop", padding=3),
        optimizer=OptimizerConfig("adam", learning_rate=2e-3, warmup_epochs=1),
        train=TrainConfig(epochs=20),
    )
