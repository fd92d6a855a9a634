"""ResNet-18, from scratch, on a folder of photographs: a starting point for your own.

python scripts/train.py --config configs/image_folder.py --data.path FOLDER

FOLDER holds `train/` and `val/` with a folder a class each, or a folder a class, of which a fifth is held out. What to
expect depends on the pictures; from scratch, a thousand a class is not many.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("resnet18"),
        data=DataConfig(
            "image_folder", path="data/images", batch_size=32, augment="random_resized_crop", flip=True, resize=256
        ),
        optimizer=OptimizerConfig(
            "sgd",
            learning_rate=0.05,
            options={"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4},
            warmup_epochs=1,
        ),
        train=TrainConfig(epochs=30),
    )
