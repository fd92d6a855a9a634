"""EfficientNet-B0 on ImageNet, the recipe of the paper (arXiv 1905.11946, section 5.2).

python scripts/train.py --config configs/imagenet/efficientnet_b0.py --data.path IMAGENET

IMAGENET holds `train/` and `val/` with a folder a class each. Published: 77.1 % top-1. The paper also augments with
AutoAugment and evaluates an average of the weights, which this config does not, and the project has not run it: it has
no ImageNet to hand. The batch of 4,096 images is meant for many devices; scale the learning rate with it.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("efficientnet_b0", dtype="bfloat16"),
        data=DataConfig(
            "image_folder",
            path="data/imagenet",
            batch_size=4096,
            eval_batch_size=1024,
            augment="random_resized_crop",
            flip=True,
            resize=256,
            interpolation="bicubic",
        ),
        optimizer=OptimizerConfig(
            "rmsprop",
            learning_rate=0.256,
            # TensorFlow's epsilon of 1e-3 stands inside the root, PyTorch's outside: sqrt(1e-3).
            options={"alpha": 0.9, "momentum": 0.9, "eps": 0.0316, "weight_decay": 1e-5},
            schedule="step",
            schedule_options={"step_size": 2.4, "gamma": 0.97},
            warmup_epochs=5,
        ),
        train=TrainConfig(epochs=350, label_smoothing=0.1, log_every=50, save_every=1000),
    )
