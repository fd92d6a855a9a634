"""EfficientNet-Lite0 unfrozen in steps, for a folder of photographs such as flower_photos (five classes).

python scripts/prepare_data.py split flower_photos data/flowers
python scripts/train.py --config configs/flowers/everything.py [--data.path FOLDER]

FOLDER holds `train/` and `val/` with a folder a class each. The new head learns alone for two epochs, then with the
last two stages, and from the sixth epoch on all learns but BatchNorm, whose statistics few pictures would spoil; what
ImageNet's published weights brought moves at a tenth of the head's rate. This project has no flower_photos to hand; of
400 held-out pictures of CIFAR-10's ten classes, 76 % are right after 600 others, in 93 s on two CPU cores, and 24 %
after 104 s from scratch (`--data.image_size 96`; docs/fine-tuning.md).
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("efficientnet_lite0", weights="published"),
        data=DataConfig("image_folder", path="data/flowers", batch_size=32, augment="random_resized_crop", flip=True),
        optimizer=OptimizerConfig(
            "adam",
            learning_rate=1e-3,
            trainable={"classifier": 0, r"(?!.*bn)(blocks\.[56]|conv_head)": 2, "(?!.*bn)": 5},
            factors={"(?!classifier)": 0.1},
        ),
        train=TrainConfig(epochs=15),
    )
