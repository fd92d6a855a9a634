"""ResNet-18 with a 3x3 stem on Fashion-MNIST.

python scripts/train.py --config configs/fashion_mnist/resnet18.py

`apt-get install dataset-fashion-mnist` puts the data where it is looked for; elsewhere, --data.path names the folder of
the four IDX files. Not run to its end yet: it wants an accelerator.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("resnet18", options={"stem": "3x3"}),
        data=DataConfig(
            "fashion_mnist",
            image_size=32,
            batch_size=128,
            augment="pad_crop",
            flip=True,
            mean=(0.286, 0.286, 0.286),
            std=(0.353, 0.353, 0.353),
        ),
        optimizer=OptimizerConfig(
            "sgd",
            learning_rate=0.1,
            options={"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
            warmup_epochs=1,
        ),
        train=TrainConfig(epochs=30, log_every=20, save_every=200),
    )
