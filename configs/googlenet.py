"""GoogLeNet on the embedded handwritten digits, with its auxiliary heads.

python scripts/train.py --config configs/googlenet.py

Expect 98.3 % top-1 of the 359 held-out digits.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("googlenet"),
        data=DataConfig(image_size=64, batch_size=32, augment="pad_crop", padding=6),
        optimizer=OptimizerConfig("adam", learning_rate=1e-3, warmup_epochs=1),
        train=TrainConfig(epochs=5),
    )
