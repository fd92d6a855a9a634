"""Any network on the embedded handwritten digits, at 64 pixels: the one recipe of the table in docs/results.md.

python scripts/train.py --config configs/digits.py --model.name mobilenet_v2 --workdir runs/mobilenet_v2

What to expect of which network, and how long it takes, is in docs/results.md.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("resnet18"),
        # The least that all families take is AlexNet's 63 pixels. Small batches make more updates of few epochs.
        data=DataConfig(image_size=64, batch_size=16, augment="pad_crop", padding=6),
        optimizer=OptimizerConfig("adamw", learning_rate=1e-3, options={"weight_decay": 0.05}, warmup_epochs=1),
        train=TrainConfig(epochs=5),
    )
