"""Accuracy of kNN and probes on features of a trained and of a random backbone: `python -m benchmarks.features DATA`.

Trains the backbone by `vit-cls train`, and measures every readout. Writes results/features-DATA.md.
"""

import argparse
import shlex
import tempfile
import time
from pathlib import Path

from hub_scripts.__main__ import main as vit_cls
from modeling_vit_cls import FlaxViTClsModel, ViTClsConfig
from modeling_vit_cls.evaluation.features import extract
from modeling_vit_cls.evaluation.methods import evaluate_features
from modeling_vit_cls.images.sampling import sample_rows
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.results import Results

from .report import write

RECIPE = "vit_cls_digits_cls"
FASHION = "{hidden_size: 64, num_hidden_layers: 4, num_attention_heads: 4, intermediate_size: 256, image_size: 28, "
FASHION += "patch_size: 4, num_channels: 1, initializer_range: 0.125}"
TRAINING = {  # the options that differ from the recipe
    "digits": [],
    "fashion_mnist": [
        *("--dataset_name", "fashion_mnist", "--max_steps", "600", "--per_device_train_batch_size", "128"),
        *("--eval_strategy", "no", "--random_resized_crop_scale", "1"),
        *("--config_overrides", FASHION),
    ],
}
KS = (10, 20, 200)
PROBED = 10_000  # a probe is fitted to at most so many training images, drawn by class
HEAD = """| backbone | method | cls | mean | cls_mean | C | seconds of the processor |
|---|---|---|---|---|---|---|"""


def rows(name: str, backbone: FlaxViTClsModel, data: str) -> list[str]:
    """Lines of the table for one backbone; C is that of the best readout, the seconds are of all readouts."""
    train, test = (load_images(data, split) for split in ("train", "test"))
    features = [extract(backbone, images, batch_size=256) for images in (train, test)]
    by_readout = evaluate_features("knn", *features).by_readout
    lines = []
    for k in KS:
        accuracies = [f"{metrics[f'knn_{k}_accuracy']:.4f}" for metrics in by_readout.values()]
        lines.append(f"| {name} | kNN, k = {k} | {' | '.join(accuracies)} | | |")
    if len(train) > PROBED:
        features[0] = extract(backbone, train.select(sample_rows(train["label"], PROBED, 0)), batch_size=256)
    start = time.process_time()
    probes = evaluate_features("probe", *features)
    seconds = time.process_time() - start
    accuracies = [f"{metrics['accuracy']:.4f}" for metrics in probes.by_readout.values()]
    assert probes.probe is not None
    c = f"{probes.probe.c:,.0f}" if probes.probe.c > 1 else f"{probes.probe.c:.3g}"
    images = f"probe, {len(features[0].labels):,} images"
    lines.append(f"| {name} | {images} | {' | '.join(accuracies)} | {c} | {seconds:.1f} |")
    return lines


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=TRAINING)
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "trained"
        training = ["train", RECIPE, *TRAINING[data]]
        assert vit_cls([*training, "--output_dir", str(folder)]) == 0
        head = Results.read(folder / "results.json").metrics["accuracy"]
        backbones = {"random": FlaxViTClsModel(ViTClsConfig.from_pretrained(folder))}
        backbones["trained"] = FlaxViTClsModel.from_pretrained(folder)
        lines = [f"The trained backbone is that of `{shlex.join(['vit-cls', *training])}`;"]
        lines += [f"the accuracy of its own head is {head:.4f}.", "", *HEAD.splitlines()]
        lines += [line for name, backbone in backbones.items() for line in rows(name, backbone, data)]
    write(f"features-{data}", lines)


if __name__ == "__main__":
    main()
