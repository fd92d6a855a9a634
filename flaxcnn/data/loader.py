"""The loader: batches of transformed images from a source, made by Grain's threads, or by processes that these ask.

A batch is a function of its step, and one thread makes it whole: the threads share nothing, an image costs no
hand-over, and the position in the data is one number. Batch sizes are those of the whole job; a shard (a
process of a multi-host run) makes its part of each batch, so the job's batches are the same on any number of
hosts.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import grain
import numpy as np
from PIL import Image

from flaxcnn.data.buffers import Buffers
from flaxcnn.data.images import DataError
from flaxcnn.data.machine import default_threads
from flaxcnn.data.processes import Batch, ProcessBatches
from flaxcnn.data.source import Source

RandomTransform = Callable[[Image.Image, np.random.Generator], np.ndarray]
Transform = Callable[[Image.Image], np.ndarray]


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Full batches in a training epoch; the examples left over are dropped, others in every epoch.

    Args:
        num_examples: in the training split.
        batch_size: examples a step, over all shards.

    Returns:
        The number of steps, at least 1.

    Raises:
        ValueError: the batch size is below 1 or above the number of examples.
    """
    if not 1 <= batch_size <= num_examples:
        raise ValueError(f"batch_size: expected 1 to {num_examples}, the training examples; got {batch_size}")
    return num_examples // batch_size


def train_batches(
    source: Source,
    transform: RandomTransform,
    *,
    batch_size: int,
    seed: int,
    repeats: int = 1,
    balanced: bool = False,
    num_threads: int | None = None,
    num_processes: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator[Batch] | ProcessBatches:
    """Endless training batches, shuffled anew in every epoch.

    The order of an epoch depends on (seed, epoch) alone, and the random view of an example on (seed, epoch, example,
    how often the epoch showed it before) alone: not on threads, batch size or shards. `training_order` tells what a
    batch shows, and `view_rng` draws its views again.

    Args:
        source: the examples.
        transform: (image, generator) -> (h, w, c), of which batches have the dtype.
        batch_size: examples a step, over all shards.
        seed: 0 or more.
        repeats: how often an epoch shows an example, in a row and each time another view; it is as long as with 1,
            so that it shows only that share of the examples (Hoffer et al., Augment Your Batch, 2020).
        balanced: show every class equally often: of a small class examples come several times an epoch, each time
            another view, and of a large one some do not come at all.
        num_threads: threads, each making a batch; by default one for each core that the process may use, at most 16.
        num_processes: processes instead, each making a batch, where one interpreter's threads cannot use all cores.
            The source and the transform are sent to them: a function by its code, but no images held in memory by a
            `CachedSource`.
        shard: (index, count): which part of each batch to make.

    Returns:
        An iterator over {"image": (n, h, w, c), "label": int32 (n,)} with n = batch_size / count;
        where an example may have several labels, "label" is float32 (n, classes) of zeros and ones.
        `get_state()` gives its position as a JSON-serialisable dict; after `set_state()` with it the next
        batch is the very one that came next then, from threads or processes. `start_prefetch()` starts these ahead of
        the first batch, and `close()` ends them.

    Raises:
        ValueError: an argument is out of its range.
        DataError: images in memory would have to be sent to processes; or (from the iterator) an image cannot be read,
            or a process was ended.
    """
    if num_processes < 0 or (num_processes and num_threads is not None):
        raise ValueError(f"num_processes: expected 0 or more, instead of num_threads; got {num_processes}")
    threads = num_processes or _threads(num_threads)

    def new() -> Callable[[int], Batch]:
        order = training_order(source, batch_size=batch_size, seed=seed, repeats=repeats, balanced=balanced)
        rows = _shard_rows(batch_size, shard)
        labels, buffers = _labels(source), Buffers(most=threads + 2)

        def batch(step: int) -> Batch:
            shown = order(step)[rows]
            images = (_view(source, each.example, transform, view_rng(seed, *each)) for each in shown)
            return {"image": _stack(images, len(shown), buffers), "label": labels[[each.example for each in shown]]}

        return batch

    in_this_process = new()  # for processes too: an argument that is out of range is told here and now
    prefetched = functools.partial(_prefetched, steps=sys.maxsize, threads=threads)
    return ProcessBatches(new, num_processes, prefetched) if num_processes else prefetched(in_this_process)


class Shown(NamedTuple):
    """An image of a training batch: with the seed, all that its view depends on."""

    epoch: int  # from 0
    example: int  # its index in the source
    view: int  # how often the epoch showed the example before


def training_order(
    source: Source, *, batch_size: int, seed: int, repeats: int = 1, balanced: bool = False
) -> Callable[[int], list[Shown]]:
    """What the batches of a training show, without reading any image.

    Args:
        source: the examples.
        batch_size: as of `train_batches`, and so what follows.
        seed: 0 or more.
        repeats: how often an epoch shows an example.
        balanced: whether it shows every class equally often.

    Returns:
        A function from the step, from 0, to what its batch shows, row by row: `view_rng(seed, *shown)` draws the view.

    Raises:
        ValueError: an argument is out of its range.
    """
    steps, num_examples = steps_per_epoch(len(source), batch_size), len(source)
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}")
    if not 1 <= repeats <= num_examples:
        raise ValueError(f"repeats: expected 1 to {num_examples}, the training examples; got {repeats}")
    if balanced and source.labels.ndim > 1:
        raise ValueError("balanced: expected examples with one label each")

    @functools.lru_cache(maxsize=2)  # Around the turn of an epoch, threads work on both sides of it.
    def of_epoch(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        # No example has the number `num_examples`, so no view shares this stream.
        rng = np.random.default_rng([seed, epoch, num_examples])
        shown = _balanced_order(rng, source.labels) if balanced else rng.permutation(num_examples)
        shown = np.repeat(shown, repeats)[:num_examples]
        return shown, _occurrences(shown)

    def of_step(step: int) -> list[Shown]:
        epoch, step_in_epoch = divmod(step, steps)
        rows = slice(step_in_epoch * batch_size, (step_in_epoch + 1) * batch_size)
        indices, views = (array[rows].tolist() for array in of_epoch(epoch))
        return [Shown(epoch, *each) for each in zip(indices, views, strict=True)]

    return of_step


def view_rng(seed: int, epoch: int, index: int, view: int = 0) -> np.random.Generator:
    """The generator that training draws an example's view from, to draw it again.

    Args:
        seed: of the training.
        epoch: from 0.
        index: of the example in its source.
        view: how often the epoch showed the example before.
    """
    return np.random.default_rng([seed, epoch, index, view] if view else [seed, epoch, index])


def _balanced_order(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """len(labels) examples in random order, as many of one class as of another, to within one."""
    classes = rng.permutation(np.unique(labels))
    shares = np.full(len(classes), len(labels) // len(classes))
    shares[: len(labels) % len(classes)] += 1
    shown = []
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = [rng.permutation(members) for _ in range(-(-share // len(members)))]
        shown.append(np.concatenate(rounds)[:share])
    return rng.permutation(np.concatenate(shown))


def _occurrences(shown: np.ndarray) -> np.ndarray:
    """How often each example came before in the order."""
    by_example = np.argsort(shown, kind="stable")
    first = np.flatnonzero(np.diff(shown[by_example], prepend=-1))
    counts = np.diff(np.append(first, len(shown)))
    occurrences = np.empty(len(shown), np.int64)
    occurrences[by_example] = np.arange(len(shown)) - np.repeat(first, counts)
    return occurrences


def eval_batches(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    num_threads: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Every example once, in order; what the last batch lacks is zeros, with mask 0.

    Every shard yields as many batches as the others, the last one all padding if need be: hosts stay in step.

    Args:
        source: the examples.
        transform: image -> (h, w, c), of which batches have the dtype.
        batch_size: examples a step, over all shards; may exceed their number.
        num_threads: threads, each making a batch; by default one for each core that the process may use, at most 16.
        shard: (index, count): which part of each batch to make.

    Returns:
        An iterator over {"image": (n, h, w, c), "label": int32 (n,), "mask": float32 (n,)} with
        n = batch_size / count. Its threads end when it does.

    Raises:
        ValueError: an argument is out of its range.
        DataError: (from the iterator) an image cannot be read.
    """
    rows = _shard_rows(batch_size, shard)
    size = rows.stop - rows.start
    all_labels = _labels(source)
    threads = _threads(num_threads)
    buffers = Buffers(most=threads + 2)

    def batch(step: int) -> Batch:
        chosen = list(range(len(source))[step * batch_size :][rows])
        # A batch of padding only takes its shape from the first example.
        images = _stack((_view(source, i, transform) for i in chosen or [0]), size, buffers)
        images[len(chosen) :] = 0
        labels = all_labels[chosen]
        padding = size - len(chosen)
        return {
            "image": images,
            "label": np.concatenate([labels, np.zeros((padding, *labels.shape[1:]), labels.dtype)]),
            "mask": np.array([1] * len(chosen) + [0] * padding, np.float32),
        }

    return _until_exhausted(_prefetched(batch, math.ceil(len(source) / batch_size), threads))


def _stack(images: Iterator[np.ndarray], size: int, buffers: Buffers) -> np.ndarray:
    """(size, h, w, c), begun with images as they come: each is copied while the processor has it at hand."""
    first = next(images)
    batch = buffers.empty((size, *first.shape), first.dtype)
    batch[0] = first
    for place, image in enumerate(images, 1):
        if image.shape != first.shape or image.dtype != first.dtype:  # which NumPy would repeat or round
            kinds = " and ".join(f"{each.dtype} {each.shape}" for each in (first, image))
            raise ValueError(f"transform: expected all images of a batch alike, got {kinds}")
        batch[place] = image
    return batch


def _view(source: Source, index: int, transform: Callable[..., np.ndarray], *rng: np.random.Generator) -> np.ndarray:
    image = source[index]["image"]
    try:
        return transform(image, *rng)
    except DataError:  # which names it
        raise
    except Exception as error:
        error.add_note(f"in the transform of {source.name(index)}")
        raise


def _labels(source: Source) -> np.ndarray:
    """int32 (n,), or float32 (n, classes) where an example may have several; read here, before threads ask for them."""
    return source.labels.astype(np.int32 if source.labels.ndim == 1 else np.float32)


def _shard_rows(batch_size: int, shard: tuple[int, int]) -> slice:
    """Which rows of the job's batch a shard makes."""
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard: expected (index, count) with 0 <= index < count, got {shard}")
    if batch_size < 1 or batch_size % count:
        raise ValueError(f"batch_size: expected a multiple of {count} (the shards), got {batch_size}")
    rows = batch_size // count
    return slice(index * rows, (index + 1) * rows)


def _threads(given: int | None) -> int:
    threads = default_threads() if given is None else given
    if threads < 1:
        raise ValueError(f"num_threads: expected 1 or more, got {threads}")
    return threads


def _prefetched(batch: Callable[[int], Batch], steps: int, threads: int) -> grain.DatasetIterator[Batch]:
    # A batch in the making a thread and one ready: more would only hold memory.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    return iter(grain.MapDataset.range(steps).map(batch).to_iter_dataset(options))


def _until_exhausted(batches: grain.DatasetIterator[Batch]) -> Iterator[Batch]:
    with closing(batches):
        yield from batches
