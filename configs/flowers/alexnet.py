"""AlexNet, from scratch, on a folder of photographs such as flower_photos (five classes).

python scripts/prepare_data.py split flower_photos data/flowers
python scripts/train.py --config configs/flowers/alexnet.py [--data.path FOLDER]

FOLDER holds `train/` and `val/` with a folder a class each. Instead of flowers it was run on five classes of CIFAR-10,
2,250 pictures: 60.0 % top-1 of 250 held-out ones.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("alexnet_half"),
        # Shifted and mirrored, as in the paper.
        data=DataConfig("image_folder", path="data/flowers", batch_size=32, augment="pad_crop", padding=16, flip=True),
        # Adam, at a rate that a network without normalisation bears.
        optimizer=OptimizerConfig("adam", learning_rate=3e-4, warmup_epochs=1),
        train=TrainConfig(epochs=6),
    )
