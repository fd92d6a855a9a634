"""LeNet on the embedded handwritten digits.

python scripts/train.py --config configs/lenet.py

Expect 99.2 % top-1 of the 359 held-out digits, in well under a minute on two CPU cores.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("lenet"),
        data=DataConfig(batch_size=64, augment="pad_crop", padding=3),
        optimizer=OptimizerConfig("adam", learning_rate=2e-3, warmup_epochs=1),
        train=TrainConfig(epochs=20),
    )
