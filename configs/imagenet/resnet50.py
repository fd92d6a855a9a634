"""ResNet-50 on ImageNet, the recipe of torchvision's first weights (IMAGENET1K_V1).

python scripts/train.py --config configs/imagenet/resnet50.py --data.path IMAGENET

IMAGENET holds `train/` and `val/` with a folder a class each. Published: 76.13 % top-1. Not run by this project, which
has no ImageNet to hand; the model, its gradients and its updates are tested against torchvision's.
"""

from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig("resnet50"),
        data=DataConfig(
            "image_folder",
            path="data/imagenet",
            batch_size=256,
            augment="random_resized_crop",
            flip=True,
            resize=256,
        ),
        optimizer=OptimizerConfig(
            "sgd",
            learning_rate=0.1,
            options={"momentum": 0.9, "weight_decay": 1e-4},
            schedule="step",
            schedule_options={"step_size": 30, "gamma": 0.1},
        ),
        train=TrainConfig(epochs=90, log_every=50, save_every=1000),
    )
