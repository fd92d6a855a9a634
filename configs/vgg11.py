"""VGG-11 with batch normalisation on the embedded handwritten digits.

python scripts/train.py --config configs/vgg11.py

Expect 96.9 % top-1 of the 359 held-out digits.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("vgg11_bn"),
        data=DataConfig(image_size=32, batch_size=64, augment="pad_crop", padding=3),
        optimizer=OptimizerConfig(
            "sgd",
            learning_rate=0.02,
            options={"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
            warmup_epochs=1,
        ),
        train=TrainConfig(epochs=5),
    )
