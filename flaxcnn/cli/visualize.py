"""Show what a network looks at, and what is in it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from flaxcnn.cli.command_line import Parser
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.network import Network, add_network_arguments, check_network_arguments, read_network
from flaxcnn.config import ConfigError
from flaxcnn.data.transforms import to_pixels
from flaxcnn.errors import did_you_mean
from flaxcnn.inference import (
    dead_units,
    default_layer,
    feature_maps,
    features,
    grad_cam,
    grad_cam_plus_plus,
    integrated_gradients,
    make_fired_step,
    occlusion,
    saliency,
)
from flaxcnn.inference.predict import find_images, open_image
from flaxcnn.visual.attribution import attribution_figure
from flaxcnn.visual.network import (
    dead_units_figure,
    embed,
    embedding_figure,
    feature_maps_figure,
    filters_figure,
    histograms_figure,
)

DESCRIPTION = """Show what a network looks at in images, a picture an image, or what is in it.

  grad_cam, grad_cam_plus_plus   where a layer finds what speaks for the class
  saliency                       the pixels that the answer changes with most
  integrated_gradients           how much each pixel adds to the answer, from a picture of the mean colour
  occlusion                      how much the answer falls when a part is covered
  feature_maps                   a layer's channels
  filters                        the first convolution's
  weights, activations           histograms by layer; activations of all images together
  dead_units                     ReLU units that fire in none of the images
  embedding                      images in a plane, by their pooled features, coloured by the folder they are in"""
_BATCH_SIZE = 32
_TITLES = {
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "saliency": "saliency",
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
}


def main(argv: Sequence[str]) -> int:
    """`visualize WHAT --workdir DIR | --model NAME [--weights FILE] [--layer NAME] [--output DIR] [IMAGE...]`."""
    parser = Parser("visualize", DESCRIPTION)
    parser.add_argument("what", metavar="WHAT", choices=_WHAT, help=f"one of {', '.join(_WHAT)}")
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="files, folders, or patterns such as 'photos/*.jpg'")
    add_network_arguments(parser)
    parser.add_argument("--layer", metavar="NAME", help="such as layer4.1 (default: the last map before the pooling)")
    parser.add_argument("--class", dest="label", metavar="NAME", help="to explain (default: the most probable)")
    parser.add_argument("--projection", default="pca", choices=["pca", "tsne"], help="of embedding (default: pca)")
    parser.add_argument("--output", default="pictures", metavar="DIR", help="where PNGs go (default: pictures)")
    known = parser.parse_intermixed_args(argv)
    check_network_arguments(known)
    if not known.images and known.what not in ("filters", "weights"):
        raise ConfigError(f"{known.what} needs at least one IMAGE")
    files = find_images(known.images)
    output = Path(known.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output: cannot write {output}: {error.strerror}") from error
    set_up_jax(known.device)
    network = read_network(known)
    known.shape = (1, network.preprocessing.size, network.preprocessing.size, network.preprocessing.channels)
    if known.layer is not None:
        maps = feature_maps(network.model, known.shape)
        if known.layer not in maps:
            raise ConfigError(f"--layer: no map is called {known.layer!r}{did_you_mean(known.layer, maps)}")
    for name, figure in _WHAT[known.what](network, files, known):
        path = output / f"{name}.png"
        figure.savefig(path)
        print(path)
    return 0


_Figures = Any
"""An iterator over names of files and their figures."""


def _explain(network: Network, files: Sequence[str], known: Namespace) -> _Figures:
    functions: dict[str, Callable[..., Any]] = {
        "grad_cam": partial(grad_cam, layer=known.layer),
        "grad_cam_plus_plus": partial(grad_cam_plus_plus, layer=known.layer),
        "saliency": saliency,
        "integrated_gradients": integrated_gradients,
        "occlusion": partial(occlusion, patch=max(known.shape[1] // 7, 1), stride=max(known.shape[1] // 14, 1)),
    }
    explain = jax.jit(partial(functions[known.what], network.model))
    answer = jax.jit(partial(network.model.apply, train=False))
    layer = known.layer or default_layer(network.model, known.shape)
    title = _TITLES[known.what] + (f" at {layer}" if known.what.startswith("grad_cam") else "")
    names = list(network.class_names)
    if known.label is not None and known.label not in names:
        raise ConfigError(f"--class: there is no class {known.label!r}{did_you_mean(known.label, names)}")
    for name, image in _named(network, files):
        probabilities = network.probabilities(np.asarray(answer(network.variables, image), np.float64))[0]
        chosen = int(probabilities.argmax()) if known.label is None else names.index(known.label)
        heat = np.asarray(explain(network.variables, image, np.array([chosen])))[0]
        if heat.ndim == 3:
            heat = np.abs(heat.sum(axis=-1))
        said = f"{name}: {names[chosen]} {probabilities[chosen]:.1%}\n{title}"
        yield f"{name}_{known.what}", attribution_figure(_pixels(network, image), heat, title=said)


def _feature_maps(network: Network, files: Sequence[str], known: Namespace) -> _Figures:
    layer = known.layer or next(iter(feature_maps(network.model, known.shape)))
    compute = jax.jit(partial(features, network.model, names=[layer]))
    for name, image in _named(network, files):
        maps = np.asarray(compute(network.variables, image)[layer], np.float32)[0]
        yield f"{name}_feature_maps", feature_maps_figure(maps, title=f"{name}: {layer}")


def _filters(network: Network, files: Sequence[str], known: Namespace) -> _Figures:
    kernels = _kernels(network)
    # In the network's order: a kernel belongs to the first module with a map that has one.
    name = next(name for name in feature_maps(network.model, known.shape) if name in kernels)
    yield "filters", filters_figure(kernels[name], title=f"filters of {name}")


def _weights(network: Network, files: Sequence[str], known: Namespace) -> _Figures:
    yield "weights", histograms_figure(_kernels(network), title="weights")


def _activations(network: Network, files: Sequence[str], known: Namespace) -> _Figures:
    images = np.concatenate([image for _, image in _named(network, files[:_BATCH_SIZE])])
    outputs = jax.jit(partial(features, network.model))(network.variables, images)
    named = {name: np.asarray(outputs[name], np.float32) for name in _kernels(network) if name in outputs}
    yield "activations", histograms_figure(named, title=f"outputs of layers for {len(images)} images")


def _dead_units(network: Network, files: Sequence[str], known: Namespace) -> _Figures:
    dead = dead_units(jax.jit(make_fired_step(network.model)), network.variables, _batches(network, files))
    if not dead:
        raise ConfigError("this network has no ReLU")
    number, total = sum(units.sum() for units in dead.values()), sum(units.size for units in dead.values())
    title = f"{number:,} of {total:,} ReLU channels never fire in {len(files):,} images"
    yield "dead_units", dead_units_figure(dead, title=title)


def _embedding(network: Network, files: Sequence[str], known: Namespace) -> _Figures:
    if len(files) < 3:
        raise ConfigError(f"embedding needs at least three images, not {len(files)}")
    pooled = jax.jit(partial(network.model.clone(num_classes=0).apply, train=False))
    rows = [np.asarray(pooled(network.variables, batch["image"])) for batch in _batches(network, files)]
    points = embed(np.concatenate(rows)[: len(files)], known.projection)
    title = f"{len(files):,} images by their pooled features, {'PCA' if known.projection == 'pca' else 't-SNE'}"
    yield "embedding", embedding_figure(points, [Path(file).parent.name for file in files], title=title)


_WHAT: dict[str, Callable[[Network, Sequence[str], Namespace], _Figures]] = {
    **dict.fromkeys(_TITLES, _explain),
    "feature_maps": _feature_maps,
    "filters": _filters,
    "weights": _weights,
    "activations": _activations,
    "dead_units": _dead_units,
    "embedding": _embedding,
}


def _named(network: Network, files: Sequence[str]) -> Any:
    """Each file's name without its suffix, with a number where it is taken, and its image (1, h, w, c)."""
    taken: dict[str, int] = {}
    for file in files:
        stem = Path(file).stem
        taken[stem] = taken.get(stem, 0) + 1
        name = stem if taken[stem] == 1 else f"{stem}-{taken[stem] - 1}"
        yield name, network.preprocessing(open_image(file))[None]


def _batches(network: Network, files: Sequence[str]) -> Any:
    """Padded and masked batches of all files."""
    size = min(_BATCH_SIZE, len(files))
    for start in range(0, len(files), size):
        images = [network.preprocessing(open_image(file)) for file in files[start : start + size]]
        padding = size - len(images)
        mask = np.array([1] * len(images) + [0] * padding, np.float32)
        yield {"image": np.stack([*images, *[np.zeros_like(images[0])] * padding]), "mask": mask}


def _kernels(network: Network) -> dict[str, np.ndarray]:
    """The kernels of convolutions and fully connected layers, by the names of these."""
    params = flatten_dict(network.variables["params"])
    return {".".join(path[:-1]): np.asarray(kernel) for path, kernel in params.items() if path[-1] == "kernel"}


def _pixels(network: Network, image: np.ndarray) -> np.ndarray:
    return to_pixels(image[0], network.preprocessing.mean, network.preprocessing.std)
