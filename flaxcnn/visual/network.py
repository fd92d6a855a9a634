"""A network's inside as pictures: filters, feature maps, histograms, dead units, embedded images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from flaxcnn.visual.grid import grid_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_MAPS = 64
_MOST_HISTOGRAMS = 48
_BLUE, _VERMILION = "#0072B2", "#D55E00"  # Okabe and Ito's


def filters_figure(kernel: np.ndarray, *, title: str) -> Figure:
    """A convolution's filters, all on one scale; in colours where there are three input channels.

    Args:
        kernel: (h, w, inputs, outputs); of more inputs than three, the mean over them is shown.
        title: of the whole.
    """
    most = np.abs(kernel).max()
    if kernel.shape[2] == 3:
        images = [0.5 + 0.5 * kernel[..., i] / most for i in range(kernel.shape[3])]
    else:
        images = [kernel[..., i].mean(axis=-1) for i in range(kernel.shape[3])]
        most = max(np.abs(image).max() for image in images)
    numbers = [str(i) for i in range(len(images))]
    return grid_figure(images, numbers, title=title, columns=12, cmap="RdBu_r", vmin=-most, vmax=most)


def feature_maps_figure(maps: np.ndarray, *, title: str) -> Figure:
    """A layer's channels for one image, each on a scale of its own; evenly chosen where there are many.

    Args:
        maps: (h, w, channels).
        title: of the whole.
    """
    channels = maps.shape[-1]
    shown = np.unique(np.linspace(0, channels - 1, min(channels, _MOST_MAPS)).astype(int))
    if len(shown) < channels:
        title = f"{title}, {len(shown)} of {channels} channels"
    return grid_figure([maps[..., i] for i in shown], [str(i) for i in shown], title=title, columns=12, cmap="gray")


def histograms_figure(arrays: Mapping[str, np.ndarray], *, title: str) -> Figure:
    """A histogram an array; evenly chosen where there are many.

    Args:
        arrays: name -> values of any shape; at least one.
        title: of the whole.
    """
    from matplotlib.figure import Figure

    names = list(arrays)
    shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_HISTOGRAMS)).astype(int))
    if len(shown) < len(names):
        title = f"{title}, {len(shown)} of {len(names)} layers"
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.1 * columns, 1.5 * rows + 0.5), dpi=100, layout="constrained")
    places = np.ravel(figure.subplots(rows, columns))
    for axes in places[len(shown) :]:
        axes.axis("off")
    for axes, i in zip(places, shown, strict=False):
        axes.hist(np.ravel(arrays[names[i]]), bins=50, color=_BLUE)
        axes.set_title(shorten(names[i], 30), fontsize=7)
        axes.set_yticks([])
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    return figure


def dead_units_figure(dead: Mapping[str, np.ndarray], *, title: str) -> Figure:
    """How many channels of each ReLU never fire.

    Args:
        dead: ReLU -> bool (channels,).
        title: of the whole.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6, 1.2 + 0.18 * len(dead)), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(dead)), [units.mean() for units in dead.values()], color=_VERMILION)
    names = [f"{name}  ({units.sum()} of {units.size})" for name, units in dead.items()]
    axes.set_yticks(range(len(dead)), names, fontsize=7)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel="channels that never fire", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10)
    return figure


def embed(features: np.ndarray, projection: Literal["pca", "tsne"] = "pca") -> np.ndarray:
    """Put images in a plane.

    Args:
        features: pooled, (n, features).
        projection: "pca" for the two directions of the largest variance, "tsne" for t-SNE.

    Returns:
        (n, 2); scikit-learn's.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if projection == "pca":
        return PCA(2, random_state=0).fit_transform(features)
    return TSNE(2, perplexity=min(30, (len(features) - 1) / 3), random_state=0).fit_transform(features)


def embedding_figure(points: np.ndarray, labels: Sequence[str], *, title: str) -> Figure:
    """Images as points in a plane, a colour and a marker a class.

    Args:
        points: (n, 2), from `embed`.
        labels: n names.
        title: of the whole.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    classes = sorted(set(labels))
    colours, markers = colormaps["tab10"].colors, "osD^vP*X"  # pyright: ignore[reportAttributeAccessIssue]
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(classes):
        own = points[[label == name for label in labels]]
        marker = markers[i // 10 % len(markers)]
        axes.scatter(own[:, 0], own[:, 1], 18, color=colours[i % 10], marker=marker, alpha=0.8, label=shorten(name))
    if len(classes) <= 40:
        figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    axes.set(xlabel="first direction", ylabel="second direction")
    axes.set_title(title, fontsize=10)
    return figure
