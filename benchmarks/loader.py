"""How many images a second the loader makes, beside torchvision's DataLoader, in turns, in one process.

    python benchmarks/loader.py [--workers 2] [--batch_size 64]
    python benchmarks/loader.py --epochs 20     its memory after each epoch
    python benchmarks/loader.py --deviation     what OpenCV's decoder changes
    python benchmarks/loader.py --device        float32 to the device, and uint8 to be normalised there

Photographs of about 500x375 as JPEG files (scikit-learn's two, cut and scaled), decoded, RandomResizedCrop to 224,
flip, normalised, in batches: by the loader's threads, decoding with Pillow and with OpenCV, by as many processes of
its own, and by PyTorch's worker processes with torchvision's v2 transforms on Pillow images. Each round reads an
epoch of each anew, with the start of threads and processes, and as many images of an endless one, long after its
start, whose buffers were emptied before. PyTorch and OpenCV are needed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from flaxcnn import data
from flaxcnn.cli.huge_pages import start_again_with_huge_pages

TRANSFORM = data.TrainTransform(224)


def main() -> None:
    """Measure what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="the loader's threads, or its or PyTorch's processes")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="report the memory after each of so many epochs")
    parser.add_argument("--deviation", action="store_true", help="report what OpenCV's decoder changes")
    parser.add_argument("--device", action="store_true", help="compare where images are normalised")
    options = parser.parse_args()
    if not 1 <= options.batch_size <= options.images:
        parser.error(f"--batch_size must be 1 to {options.images}, the images, not {options.batch_size}")
    with tempfile.TemporaryDirectory() as folder:
        if options.deviation:
            for enlarged in (1, 2, 4):
                write_photographs(Path(folder, str(enlarged)), options.images // enlarged**2, enlarged)
                print(f"of about {500 * enlarged}x{375 * enlarged} pixels:")
                report_deviation(data.folder_splits(Path(folder, str(enlarged)))["all"]())
            return
        write_photographs(Path(folder), options.images)
        source = data.folder_splits(folder)["all"]()
        if options.epochs:
            report_memory(source, options)
        elif options.device:
            compare_normalisations(source, options)
        else:
            compare(source, folder, options)
            report_cost(source, options)


def by_opencv(source: data.FolderSource) -> data.FolderSource:
    """The source, decoded by OpenCV."""
    from flaxcnn.data import opencv

    return replace(source, decode=opencv.decode)


def compare(source: data.FolderSource, folder: str, options: argparse.Namespace) -> None:
    """Images a second of the loaders, in turns."""
    loaders = {
        "flaxcnn": flaxcnn_loader(source, options),
        "flaxcnn, OpenCV": flaxcnn_loader(by_opencv(source), options),
        "flaxcnn, processes": flaxcnn_loader(source, options, num_processes=options.workers),
        "torchvision": torchvision_loader(folder, options),
    }
    endless = {name: make(endless=True) for name, make in loaders.items()}
    batches = options.images // options.batch_size
    epochs, steady, first = ({name: [] for name in loaders} for _ in range(3))
    for number in range(options.rounds):
        for name in list(loaders) if number % 2 else reversed(loaders):
            began = time.perf_counter()
            epoch = loaders[name](endless=False)
            next(epoch)
            first[name].append(time.perf_counter() - began)
            made = 1 + sum(1 for _ in epoch)
            epochs[name].append(made * options.batch_size / (time.perf_counter() - began))
        for name in list(loaders) if number % 2 else reversed(loaders):
            for _ in range(4 * options.workers):  # more than wait in its buffers
                next(endless[name])
            began = time.perf_counter()
            for _ in range(batches):
                next(endless[name])
            steady[name].append(batches * options.batch_size / (time.perf_counter() - began))
    for name in loaders:
        of_steady, of_epochs = (
            statistics.median(a / b for a, b in zip(rates[name], rates["torchvision"], strict=True))
            for rates in (steady, epochs)
        )
        print(
            f"{name:<18} {statistics.median(steady[name]):6.0f} images/s, {of_steady:.2f} of torchvision's; an epoch "
            f"of {options.images}, with its start: {of_epochs:.2f}; first batch after {max(first[name]):.2f} s at most"
        )


def report_cost(source: data.FolderSource, options: argparse.Namespace) -> None:
    """The loader's own cost for an image, beside the work: decoding and transforming it."""
    own = own_cost(options)
    for name, of in (("Pillow", source), ("OpenCV", by_opencv(source))):
        work = statistics.median(loop_seconds(of, TRANSFORM, 128) for _ in range(options.rounds + 1))
        micro = f"{1e6 * work:.0f} us an image in a plain loop; the loader's own {1e6 * own:.0f} us"
        print(f"{name:<18} {micro} are {own / work:.1%}")


def report_memory(source: data.Source, options: argparse.Namespace) -> None:
    """The process's memory after each epoch of one iterator."""
    batches = flaxcnn_loader(source, options)(endless=True)
    for number in range(1, options.epochs + 1):
        for _ in range(data.steps_per_epoch(len(source), options.batch_size)):
            next(batches)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        print(f"epoch {number:>2}: {resident / 2**20:.0f} MiB", flush=True)


def report_deviation(source: data.FolderSource) -> None:
    """Levels by which training's views by OpenCV are off Pillow's."""
    off, at_pixel = [], np.zeros(256, np.int64)
    for i, (one, other) in enumerate((source[i], by_opencv(source)[i]) for i in range(len(source))):
        view = TRANSFORM.draw(data.view_rng(0, 0, i), *one["image"].size)
        images = [np.asarray(TRANSFORM.apply_to_image(each["image"], view), np.int16) for each in (one, other)]
        levels = np.abs(images[0] - images[1])
        off.append(levels.mean())
        at_pixel += np.bincount(levels.ravel(), minlength=256)
    share = 1 - np.cumsum(at_pixel) / at_pixel.sum()
    print(f"  mean {np.mean(off):.2f} of 255 levels, {max(off):.2f} in the view that is furthest off")
    most = np.flatnonzero(at_pixel)[-1]
    print(f"  pixels off by more than 8 levels: {share[8]:.1%}; by more than 32: {share[32]:.2%}; most: {most}")


def compare_normalisations(source: data.Source, options: argparse.Namespace) -> None:
    """Images a second that reach the device normalised, in turns: by the host in float32, by the device from uint8."""
    import jax
    import jax.numpy as jnp

    from flaxcnn.data.normalisation import device_normalisation

    preprocessing = data.Preprocessing(224)
    mean, std = np.asarray(preprocessing.mean, np.float32), np.asarray(preprocessing.std, np.float32)

    @jax.jit
    def by_arithmetic(images: jax.Array) -> jax.Array:
        return (images.astype(jnp.float32) / 255 - mean) / std

    by_table = jax.jit(device_normalisation(preprocessing))
    values = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)  # (256, 1, c)
    for name, normalise in (("arithmetic", by_arithmetic), ("a table", by_table)):
        differ = np.count_nonzero(np.asarray(normalise(values)) != preprocessing.normalise(values))
        print(f"by {name} on the device, {differ} of 768 values differ from the host's")

    ways: dict[str, tuple[Any, Callable[..., Any]]] = {
        "float32": (TRANSFORM, lambda images: images),
        "uint8, arithmetic": (TRANSFORM.pixels, by_arithmetic),
        "uint8, a table": (TRANSFORM.pixels, by_table),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        order = list(ways.items())
        for name, (transform, normalise) in order if number % 2 else reversed(order):
            began, made = time.perf_counter(), 0
            for batch in flaxcnn_loader(source, options, transform)(endless=False):
                normalise(jax.device_put(batch["image"])).block_until_ready()
                made += options.batch_size
            rates[name].append(made / (time.perf_counter() - began))
    for name, rate in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rate, rates["float32"], strict=True))
        print(f"{name:<18} {statistics.median(rate):6.0f} images/s, {ratio:.2f} of float32's")


def write_photographs(folder: Path, count: int, enlarged: int = 1) -> None:
    """Parts of scikit-learn's photographs, 450x340 to 550x410 pixels or so many times that, a JPEG file each."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(pixels) for pixels in cast(dict, load_sample_images())["images"]]
    for i in range(count):
        scale = rng.uniform(0.9, 1.1)
        left, top = (int(n) for n in rng.integers(0, 50, 2))
        part = pictures[i % 2].crop((left, top, left + 540, top + 360))
        (folder / f"class_{i % 2}").mkdir(parents=True, exist_ok=True)
        size = (round(500 * scale) * enlarged, round(375 * scale) * enlarged)
        part.resize(size, Image.Resampling.BICUBIC).save(folder / f"class_{i % 2}" / f"{i}.jpg", quality=90)


def flaxcnn_loader(
    source: data.Source, options: argparse.Namespace, transform: Any = TRANSFORM, **workers: Any
) -> Callable[..., Iterator[Any]]:
    """What makes the batches of an epoch, or endless ones; with as many threads as PyTorch's processes if not told."""
    size = options.batch_size
    workers = workers or {"num_threads": options.workers}

    def make(endless: bool) -> Iterator[Any]:
        batches = data.train_batches(source, transform, batch_size=size, seed=0, **workers)
        with closing(batches):
            yield from itertools.islice(batches, None if endless else data.steps_per_epoch(len(source), size))

    return make


def torchvision_loader(folder: str, options: argparse.Namespace) -> Callable[..., Iterator[Any]]:
    """PyTorch's, likewise."""
    import torch
    from torch.utils.data import DataLoader, RandomSampler
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

    def make(endless: bool) -> Iterator[Any]:
        sampler = RandomSampler(dataset, replacement=endless, num_samples=10**9 if endless else None)
        return iter(
            DataLoader(dataset, options.batch_size, sampler=sampler, num_workers=options.workers, drop_last=True)
        )

    return make


def own_cost(options: argparse.Namespace) -> float:
    """Seconds of processor for an image beyond those of the same calls in a plain loop: with images made already."""
    ready = np.zeros((224, 224, 3), np.float32)
    source, transform, size = data.synthetic(4096, image_size=1), lambda image, rng: ready, options.batch_size
    batches = data.train_batches(source, transform, batch_size=size, seed=0, num_threads=1)
    costs = []
    for _ in range(options.rounds + 1):
        began = time.process_time()
        for _ in range(50):
            next(batches)
        spent = (time.process_time() - began) / (50 * size)
        costs.append(spent - loop_seconds(source, transform, 50 * size))
    batches.close()
    return statistics.median(costs[1:])


def loop_seconds(source: data.Source, transform: Callable[..., Any], images: int) -> float:
    """Seconds of one core for an image, without a loader."""
    began = time.process_time()
    for i in range(images):
        transform(source[i % len(source)]["image"], data.view_rng(0, 0, i))
    return (time.process_time() - began) / images


if __name__ == "__main__":
    start_again_with_huge_pages()
    main()
