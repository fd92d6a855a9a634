"""Any network on the embedded handwritten digits, at 64 pixels: the one recipe of the table in docs/results.md.

python scripts/train.py --config configs/digits.py --model.name mobilenet_v2 --workdir runs/mobilenet_v2

It ends at 95.8 % top-1 of the 359 held-out digits, in five epochs of 6 seconds on two CPU cores; docs/results.md has
what to expect of other networks.
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
