"""EfficientNet-B0 on the embedded handwritten digits.

python scripts/train.py --config configs/efficientnet_b0.py
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("efficientnet_b0"),
        data=DataConfig(image_size=32, batch_size=64, augment="pad_crop", padding=3),
        optimizer=OptimizerConfig("adam", learning_rate=2e-3, warmup_epochs=2),
        train=TrainConfig(epochs=20),
    )
