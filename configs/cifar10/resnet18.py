"""ResNet-18 with a 3x3 stem on CIFAR-10 images in folders.

python scripts/train.py --config configs/cifar10/resnet18.py --data.path CIFAR10

CIFAR10 holds `train/` and `test/` with a folder a class each.

As it stands it has not been run to its end: it wants an accelerator. On two CPU cores, with the ImageNet stem,
`--model.options stem 7x7 --train.epochs 3` ends at 69.8 % top-1 of the 10,000 test images, at 300 to 500 images/s
(docs/data.md has its curves).
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("resnet18", options={"stem": "3x3"}),
        data=DataConfig(
            "image_folder",
            path="data/cifar10",
            image_size=32,
            batch_size=128,
            augment="pad_crop",
            flip=True,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.247, 0.2435, 0.2616),
        ),
        optimizer=OptimizerConfig(
            "sgd",
            learning_rate=0.1,
            options={"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
            warmup_epochs=1,
        ),
        train=TrainConfig(epochs=30, log_every=20, save_every=200),
    )
