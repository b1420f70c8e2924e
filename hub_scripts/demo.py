"""`make demo`: train a model for each of two readouts, reload it with an Auto class, and classify test images."""

import sys
from pathlib import Path
from typing import Any

from .__main__ import main

RECIPES = ("vit_cls_digits_cls", "vit_cls_digits_mean")
IMAGES = 5  # test images to classify


def run() -> int:
    """Train, benchmark, write cards and pictures, reload and predict. Returns the exit status."""
    for stem in RECIPES:
        if status := main(["train", stem, "--output_dir", f"build/{stem}"]):
            return status

    from modeling_vit_cls import FlaxAutoModelForImageClassification, ImageClassificationPipeline
    from modeling_vit_cls.images.sources import load_images, open_image
    from modeling_vit_cls.names import RESULTS
    from modeling_vit_cls.results import Results

    for stem in RECIPES:
        folder = Path("build", stem)
        accuracy = Results.read(folder / RESULTS).metrics["accuracy"]
        print(f"\n{stem}: test accuracy {accuracy:.4f}, card {folder / 'README.md'}")
        print("  pictures: " + ", ".join(str(picture) for picture in sorted(folder.glob("*.png"))))
        classify = ImageClassificationPipeline(FlaxAutoModelForImageClassification.from_pretrained(str(folder)))
        test: Any = load_images("digits", "test").select(range(IMAGES))
        for row, (best,) in zip(test, classify([open_image(row["image"]) for row in test], top_k=1)):
            print(f"  {row['image']['path']} is a {row['label']}: {best['label']} ({best['score']:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(run())
