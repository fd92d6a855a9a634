"""Bytes normalised on the device are the host's numbers to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import jax
import numpy as np
import pytest

from flaxcnn.build import build, build_batches, build_devices, build_put_batch
from flaxcnn.config import Config, DataConfig, ModelConfig
from flaxcnn.data import Preprocessing, TrainTransform, training_order, view_rng
from flaxcnn.data.normalisation import device_normalisation
from tests.data.pictures import real_images

STATISTICS = [
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    ((0.0, 0.5, 0.1), (1.0, 0.5, 1 / 3)),
]


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(("mean", "std"), STATISTICS)
def test_as_on_the_host(mean: tuple, std: tuple, channels: Literal[3, 1]) -> None:
    preprocessing = Preprocessing(16, mean=mean, std=std, channels=channels)
    transform = TrainTransform(16, mean=mean, std=std, channels=channels)
    normalise = jax.jit(device_normalisation(preprocessing))
    every_byte = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(channels, axis=2)
    np.testing.assert_array_equal(normalise(every_byte), preprocessing.normalise(every_byte))
    for number, (name, image) in enumerate(real_images(20)):
        pixels = preprocessing.pixels(image)
        assert pixels.dtype == np.uint8 and pixels.shape == (16, 16, channels)
        np.testing.assert_array_equal(normalise(pixels), preprocessing(image), err_msg=name)
        pixels = transform.pixels(image, np.random.default_rng(number))
        expected = transform(image, np.random.default_rng(number))
        np.testing.assert_array_equal(normalise(pixels), expected, err_msg=name)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("erase", [0.0, 0.5])
def test_a_trainings_batches(parallel: Literal["jit", "pmap"], erase: float) -> None:
    """Bytes where that is exact; with random erasing floats; and the steps see the same either way."""
    config = Config(
        model=ModelConfig("lenet"), data=DataConfig(augment="pad_crop", flip=True, policy="rand_augment", erase=erase)
    )
    config = replace(config, train=replace(config.train, parallel=parallel))
    experiment, devices = build(config), build_devices(config)
    batches, put_batch = build_batches(config, experiment), build_put_batch(experiment, devices)
    batch = next(batches)
    batches.close()
    assert batch["image"].dtype == (np.float32 if erase else np.uint8)
    put = put_batch(batch)
    assert put["image"].sharding == devices.split and put["label"].sharding == devices.split
    expected = [
        experiment.train_transform(experiment.train_source[shown.example]["image"], view_rng(0, *shown))
        for shown in training_order(experiment.train_source, batch_size=64, seed=0)(0)
    ]
    np.testing.assert_array_equal(put["image"], expected)
