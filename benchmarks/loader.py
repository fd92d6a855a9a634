"""How many images a second the loader makes, beside torchvision's DataLoader, in turns, in one process.

    python benchmarks/loader.py [--workers 2]

Photographs of about 500x375 as JPEG files (scikit-learn's two, cut and scaled), decoded, RandomResizedCrop to 224,
flip, normalised, in batches of 64: by the loader's threads, and by PyTorch's worker processes with torchvision's v2
transforms on Pillow images. Each round reads every image once; the first batch is timed by itself. PyTorch is needed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from flaxcnn import data

BATCH_SIZE = 64


def main() -> None:
    """Print images a second of both, the loader's own cost and its memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="threads of the loader, processes of PyTorch's")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), options.images)
        source = data.folder_splits(folder)["all"]()
        ours, theirs = flaxcnn_loader(source, options.workers), torchvision_loader(folder, options.workers)
        rates: dict[str, list[float]] = {"flaxcnn": [], "torchvision": []}
        first: dict[str, list[float]] = {"flaxcnn": [], "torchvision": []}
        memory = []
        for number in range(options.rounds):
            runs = [("flaxcnn", ours), ("torchvision", theirs)]
            for name, make in runs if number % 2 else reversed(runs):
                began = time.perf_counter()
                batches = iter(make())
                next(batches)
                first[name].append(time.perf_counter() - began)
                for _ in batches:
                    pass
                rates[name].append(options.images / (time.perf_counter() - began))
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        for name in rates:
            rate, seconds = statistics.median(rates[name]), statistics.median(first[name])
            print(f"{name:<12} {rate:6.0f} images/s with {options.workers} workers, first batch after {seconds:.2f} s")
        ratios = [a / b for a, b in zip(rates["flaxcnn"], rates["torchvision"], strict=True)]
        print(f"ratio        {statistics.median(ratios):.2f} (median of {options.rounds} rounds)")
        work = view_seconds(source)
        print(f"one core     {1 / work:.0f} images/s without a loader")
        print(f"own cost     {own_cost(options.workers) / work:.1%} of an image's work")
        print(f"memory       {memory[0]:.0f} MiB after the first round, {memory[-1]:.0f} after the last")


def write_photographs(folder: Path, count: int) -> None:
    """Parts of scikit-learn's photographs, 450x340 to 550x410 pixels, a JPEG file each."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(pixels) for pixels in cast(dict, load_sample_images())["images"]]
    for i in range(count):
        scale = rng.uniform(0.9, 1.1)
        left, top = (int(n) for n in rng.integers(0, 50, 2))
        part = pictures[i % 2].crop((left, top, left + 540, top + 360))
        (folder / f"class_{i % 2}").mkdir(exist_ok=True)
        size = (round(500 * scale), round(375 * scale))
        part.resize(size, Image.Resampling.BICUBIC).save(folder / f"class_{i % 2}" / f"{i}.jpg", quality=90)


def flaxcnn_loader(source: data.Source, workers: int) -> Callable[[], Iterable[Any]]:
    """An epoch of the loader."""

    def epoch() -> Iterable[Any]:
        batches = data.train_batches(
            source, data.TrainTransform(224), batch_size=BATCH_SIZE, seed=0, num_threads=workers
        )
        for _ in range(data.steps_per_epoch(len(source), BATCH_SIZE)):
            yield next(batches)
        batches.close()

    return epoch


def torchvision_loader(folder: str, workers: int) -> Callable[[], Iterable[Any]]:
    """An epoch of PyTorch's."""
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(224),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD),
        ]
    )
    dataset = ImageFolder(folder, transform)
    return lambda: torch.utils.data.DataLoader(
        dataset, BATCH_SIZE, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )


def view_seconds(source: data.Source) -> float:
    """Of one core for one image, decoded and transformed without a loader."""
    transform = data.TrainTransform(224)
    began = time.perf_counter()
    for i in range(128):
        transform(source[i]["image"], data.view_rng(0, 0, i))
    return (time.perf_counter() - began) / 128


def own_cost(workers: int) -> float:
    """Seconds that the loader itself takes for an image: with images that are made already."""
    ready = np.zeros((224, 224, 3), np.float32)
    source = data.synthetic(4096, image_size=1)
    batches = data.train_batches(source, lambda image, rng: ready, batch_size=BATCH_SIZE, seed=0, num_threads=workers)
    next(batches)
    began = time.process_time()
    for _ in range(40):
        next(batches)
    spent = time.process_time() - began
    batches.close()
    return spent / (40 * BATCH_SIZE)


if __name__ == "__main__":
    main()
