"""Folders of IDX files, the format of MNIST, and the built-in name "fashion_mnist" (Xiao et al. 2017).

The format is described on the page of MNIST: a magic number, the sizes as big-endian integers of 32 bits, then one byte
for each pixel or label. The files may be compressed by gzip.
"""

import gzip
import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ConfigError
from ..install import needs

try:
    import datasets
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

FASHION_MNIST = "fashion_mnist"
FASHION_MNIST_ON_THE_HUB = "zalando-datasets/fashion_mnist"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
_CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
_SPLITS = {"train": "train", "test": "t10k"}  # our name of a split -> the beginning of its files' names
_FILES = ("images-idx3-ubyte", "labels-idx1-ubyte")
# SHA-256 of Fashion-MNIST's four files, not compressed.
_DIGESTS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_MAX_BYTES = 2**30  # of one file, not compressed; ImageNet is not kept in this format


def fashion_mnist_folder(data_dir: str | None) -> Path | None:
    """The folder of Fashion-MNIST's files: `data_dir`, or that of Debian's package. None if neither is there."""
    if data_dir is None:
        return _DEBIAN if is_idx_folder(_DEBIAN) else None
    folder = Path(data_dir).expanduser()
    if not is_idx_folder(folder):
        names = ", ".join(f"{name}[.gz]" for name in _DIGESTS)
        raise ConfigError("data_dir", data_dir, f"must be a folder with the files {names}")
    return folder


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds the images of a split as an IDX file."""
    return any(_file(folder, split, _FILES[0]) for split in _SPLITS.values())


def idx_splits(folder: Path) -> list[str]:
    """The splits of a folder of IDX files: those of "train" and "test" whose images are there."""
    return [split for split, stem in _SPLITS.items() if _file(folder, stem, _FILES[0])]


def load_idx(folder: Path, split: str, is_fashion_mnist: bool = False) -> "datasets.Dataset":
    """One split of a folder of IDX files as rows {"image": {"bytes", "path"}, "label": int}.

    The classes of Fashion-MNIST have names; those of other folders are numbers, as in MNIST.

    Raises ConfigError, naming the file, for a split that is not there and for files that are missing, damaged, or, with
    `is_fashion_mnist`, not those of Fashion-MNIST.
    """
    if split not in idx_splits(folder):
        raise ConfigError("split", split, f"must be one of {folder}: {', '.join(idx_splits(folder))}")
    pixels, labels = (_read(folder, _SPLITS[split], name, is_fashion_mnist) for name in _FILES)
    if pixels.ndim != 3 or labels.shape != pixels.shape[:1] or 0 in pixels.shape:
        shapes = f"images {pixels.shape} and labels {labels.shape}"
        rule = f"{split}: must have grey images (N, H, W), and as many labels as images, not {shapes}"
        raise ConfigError("dataset_name", str(folder), rule)
    names = _CLASSES if is_fashion_mnist else [str(i) for i in range(max(_largest_label(folder), 9) + 1)]
    images = [{"bytes": _png(image), "path": f"{split}/{row:05d}.png"} for row, image in enumerate(pixels)]
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict({"image": images, "label": labels.tolist()}, features=features)


def _largest_label(folder: Path) -> int:
    """The largest label of all splits, so that a class has one number in each of them."""
    labels = [_read(folder, _SPLITS[split], _FILES[1]) for split in idx_splits(folder)]
    return max(int(array.max(initial=0)) for array in labels)


def _read(folder: Path, stem: str, name: str, is_fashion_mnist: bool = False) -> np.ndarray:
    """The numbers of an IDX file, uint8."""
    file = _file(folder, stem, name)
    if file is None:
        raise ConfigError("dataset_name", str(folder), f"has no file {stem}-{name} or {stem}-{name}.gz")
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
        _, kind, axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise ConfigError(
            "dataset_name", str(folder), f"{file.name} cannot be read as an IDX file ({error})"
        ) from error
    numbers = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if kind != 8 or numbers.size != np.prod(shape, dtype=object):
        rule = f"{file.name} must hold {shape} bytes, but it holds {numbers.size:,} numbers of type {kind:#x}"
        raise ConfigError("dataset_name", str(folder), rule)
    if is_fashion_mnist and hashlib.sha256(content).hexdigest() != _DIGESTS[f"{stem}-{name}"]:
        raise ConfigError("data_dir", str(folder), f"{file.name} is not that of Fashion-MNIST: its SHA-256 differs")
    return numbers.reshape(shape)


def _file(folder: Path, stem: str, name: str) -> Path | None:
    """The file of a split, compressed or not; also by the name with a dot that some copies have."""
    names = [f"{stem}-{name}", f"{stem}-{name}".replace("-idx", ".idx")]
    files = [folder / f"{name}{suffix}" for name in names for suffix in ("", ".gz")]
    return next((file for file in files if file.is_file()), None)


def _png(image: np.ndarray) -> bytes:
    """An image (H, W) -> a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()
