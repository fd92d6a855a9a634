"""How many images a second the loader makes, beside torchvision's DataLoader, in turns, in one process.

    python benchmarks/loader.py [--workers 2]
    python benchmarks/loader.py --epochs 20     its memory after each epoch
    python benchmarks/loader.py --deviation     what OpenCV's decoder changes
    python benchmarks/loader.py --device        float32 to the device, and uint8 to be normalised there

Photographs of about 500x375 as JPEG files (scikit-learn's two, cut and scaled), decoded, RandomResizedCrop to 224,
flip, normalised, in batches of 64: by the loader's threads, decoding with Pillow and with OpenCV, and by PyTorch's
worker processes with torchvision's v2 transforms on Pillow images. Each round reads every image once: as an epoch
does, with the start of threads and processes, and then from the first batch on. PyTorch and OpenCV are needed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from flaxcnn import data
from flaxcnn.cli.huge_pages import start_again_with_huge_pages

BATCH_SIZE = 64
TRANSFORM = data.TrainTransform(224)


def main() -> None:
    """Measure what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="threads of the loader, processes of PyTorch's")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="report the memory after each of so many epochs")
    parser.add_argument("--deviation", action="store_true", help="report what OpenCV's decoder changes")
    parser.add_argument("--device", action="store_true", help="compare where images are normalised")
    options = parser.parse_args()
    if options.images < 2 * BATCH_SIZE:  # rates are measured from the first batch on, too
        parser.error(f"--images must be {2 * BATCH_SIZE} or more, two batches, not {options.images}")
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), options.images)
        source = data.folder_splits(folder)["all"]()
        if options.epochs:
            report_memory(source, options.workers, options.epochs)
        elif options.deviation:
            report_deviation(source)
        elif options.device:
            compare_normalisations(source, options.workers, options.rounds)
        else:
            compare(source, folder, options.workers, options.rounds)
            report_cost(source, options.rounds)


def by_opencv(source: data.FolderSource) -> data.FolderSource:
    """The source, decoded by OpenCV."""
    from flaxcnn.data import opencv

    return replace(source, decode=opencv.decode)


def compare(source: data.FolderSource, folder: str, workers: int, rounds: int) -> None:
    """Images a second of the loaders, in turns."""
    loaders = {
        "flaxcnn": flaxcnn_loader(source, workers),
        "flaxcnn, OpenCV": flaxcnn_loader(by_opencv(source), workers),
        "torchvision": torchvision_loader(folder, workers),
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    started: dict[str, list[float]] = {name: [] for name in loaders}
    first: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(rounds):
        runs = list(loaders.items())
        for name, make in runs if number % 2 else reversed(runs):
            began = time.perf_counter()
            batches = iter(make())
            next(batches)
            first[name].append(time.perf_counter() - began)
            more = sum(1 for _ in batches)
            seconds = time.perf_counter() - began
            rates[name].append((1 + more) * BATCH_SIZE / seconds)
            started[name].append(more * BATCH_SIZE / (seconds - first[name][-1]))
    for name in rates:
        whole, after = (
            statistics.median(a / b for a, b in zip(each[name], each["torchvision"], strict=True))
            for each in (rates, started)
        )
        rate, seconds = statistics.median(rates[name]), max(first[name])
        print(
            f"{name:<16} {rate:6.0f} images/s, {whole:.2f} of torchvision's, {after:.2f} from the first batch on, "
            f"which comes after {seconds:.2f} s at most"
        )


def report_cost(source: data.FolderSource, rounds: int) -> None:
    """The loader's own cost for an image, beside the work: decoding and transforming it."""
    own = own_cost(rounds)
    for name, of in (("Pillow", source), ("OpenCV", by_opencv(source))):
        work = statistics.median(loop_seconds(of, TRANSFORM, 128) for _ in range(rounds + 1))
        micro = f"{1e6 * work:.0f} us an image in a plain loop; the loader's own {1e6 * own:.0f} us"
        print(f"{name:<16} {micro} are {own / work:.1%}")


def report_memory(source: data.Source, workers: int, epochs: int) -> None:
    """The process's memory after each epoch."""
    epoch = flaxcnn_loader(source, workers)
    for number in range(1, epochs + 1):
        for _ in epoch():
            pass
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
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
    print(f"mean {np.mean(off):.2f} of 255 levels, {max(off):.2f} in the view that is furthest off")
    most = np.flatnonzero(at_pixel)[-1]
    print(f"pixels off by more than 8 levels: {share[8]:.1%}; by more than 32: {share[32]:.2%}; most: {most}")


def compare_normalisations(source: data.Source, workers: int, rounds: int) -> None:
    """Images a second that reach the device normalised, in turns: by the host in float32, by the device from uint8."""
    import jax
    import jax.numpy as jnp

    values = np.arange(256, dtype=np.uint8)[:, None]  # (256, 1)
    mean, std = np.asarray(data.IMAGENET_MEAN, np.float32), np.asarray(data.IMAGENET_STD, np.float32)
    exact = (values.astype(np.float32) / 255 - mean) / std  # (256, c), the host's numbers

    @jax.jit
    def by_arithmetic(images: jax.Array) -> jax.Array:
        return (images.astype(jnp.float32) / 255 - mean) / std

    @jax.jit
    def by_table(images: jax.Array) -> jax.Array:
        return jnp.stack([jnp.asarray(exact)[:, c][images[..., c]] for c in range(3)], axis=-1)

    all_values = np.broadcast_to(values, (256, 3))
    for name, normalise in (("arithmetic", by_arithmetic), ("a table", by_table)):
        differ = np.count_nonzero(np.asarray(normalise(all_values)) != exact)
        print(f"by {name} on the device, {differ} of 768 values differ from the host's")

    def uint8_view(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(TRANSFORM.apply_to_image(image, TRANSFORM.draw(rng, *image.size)))

    ways: dict[str, tuple[Any, Callable[..., Any]]] = {
        "float32": (TRANSFORM, lambda images: images),
        "uint8, arithmetic": (uint8_view, by_arithmetic),
        "uint8, a table": (uint8_view, by_table),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        order = list(ways.items())
        for name, (transform, normalise) in order if number % 2 else reversed(order):
            began, made = time.perf_counter(), 0
            for batch in flaxcnn_loader(source, workers, transform)():
                normalise(jax.device_put(batch["image"])).block_until_ready()
                made += BATCH_SIZE
            rates[name].append(made / (time.perf_counter() - began))
    for name, rate in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rate, rates["float32"], strict=True))
        print(f"{name:<18} {statistics.median(rate):6.0f} images/s, {ratio:.2f} of float32's")


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


def flaxcnn_loader(source: data.Source, workers: int, transform: Any = TRANSFORM) -> Callable[[], Iterable[Any]]:
    """An epoch of the loader."""

    def epoch() -> Iterable[Any]:
        batches = data.train_batches(source, transform, batch_size=BATCH_SIZE, seed=0, num_threads=workers)
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


def own_cost(rounds: int) -> float:
    """Seconds of processor for an image beyond those of the same calls in a plain loop: with images made already."""
    ready = np.zeros((224, 224, 3), np.float32)
    source, transform = data.synthetic(4096, image_size=1), lambda image, rng: ready
    batches = data.train_batches(source, transform, batch_size=BATCH_SIZE, seed=0, num_threads=1)
    costs = []
    for _ in range(rounds + 1):
        began = time.process_time()
        for _ in range(50):
            next(batches)
        spent = (time.process_time() - began) / (50 * BATCH_SIZE)
        costs.append(spent - loop_seconds(source, transform, 50 * BATCH_SIZE))
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
