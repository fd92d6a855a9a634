"""LeNet on Fashion-MNIST.

python scripts/train.py --config configs/fashion_mnist/lenet.py

`apt-get install dataset-fashion-mnist` puts the data where it is looked for; elsewhere, --data.path names the folder of
the four IDX files. Expect 91.9 % top-1 of the 10,000 test images, in three and a quarter minutes on two CPU cores.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("lenet"),
        data=DataConfig(
            "fashion_mnist",
            batch_size=128,
            augment="pad_crop",
            padding=2,
            flip=True,
            mean=(0.286, 0.286, 0.286),
            std=(0.353, 0.353, 0.353),
        ),
        optimizer=OptimizerConfig("adam", learning_rate=2e-3, warmup_epochs=1),
        train=TrainConfig(epochs=15, log_every=100),
    )
