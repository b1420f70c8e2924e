"""`python -m benchmarks.zoo [NAME ...]`: make the models of the zoo, and compare with the committed figures."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from hub_scripts.__main__ import main as vit_cls
from hub_scripts.zoo import read_zoo
from modeling_vit_cls.cards import render_card
from modeling_vit_cls.files.folder import replace_file
from modeling_vit_cls.names import RECIPE, RESULTS, TRAINER_STATE
from modeling_vit_cls.results import Results
from modeling_vit_cls.training.recipe import read_recipe

from .study.record import essentials

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "model_cards"
ZOO = ROOT / "build/zoo"

# Linear classifiers on the features of another model of the zoo, by the readout that is best on held-out images.
PROBES = {"vit_cls_digits_probe": ("vit_cls_digits_mean", "digits")}
# Another processor rounds otherwise, and a training ends elsewhere, as with another seed.
TOLERANCES = {"digits": 0.02, "fashion_mnist": 0.01}
LARGEST = 8_000_000  # bytes of a model's weights
_COMMITTED = ("config.json", RESULTS, RECIPE, TRAINER_STATE)


def names() -> list[str]:
    """The models of the zoo, in the order in which they are made."""
    return [model.folder.name for model in read_zoo(CARDS / "zoo.yaml").models]


def make(name: str) -> Results:
    """Make a model of the zoo, and what it is made of, unless it is there. Raises SystemExit if a command fails."""
    if name not in PROBES:
        return train(name, ZOO / name)
    backbone, dataset = PROBES[name]
    make(backbone)
    return fit_probe(ZOO / backbone, dataset, ZOO / name)


def train(name: str, folder: Path, *options: str) -> Results:
    """Train by a recipe, changed by options, into a folder, unless it has been. A training that was stopped goes on."""
    results = folder / RESULTS
    is_made = results.exists() and essentials(read_recipe(folder / RECIPE)) == essentials(read_recipe(name, options))
    if not is_made:
        _run("train", name, "--resume_from_checkpoint", "true", *options, "--output_dir", str(folder))
    return Results.read(results)


def fit_probe(backbone: Path, dataset: str, folder: Path) -> Results:
    """Fit a probe to the features of a model, into a folder, which is replaced: it takes seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    _run("benchmark", str(backbone), "--method", "probe", "--dataset_name", dataset, "--output_dir", str(folder))
    return Results.read(folder / RESULTS)


def compare(name: str) -> bool:
    """Make a model and print how it differs from the committed one. Returns whether it is as good."""
    results = make(name)
    committed = Results.read(CARDS / name / RESULTS)
    size = sum(file.stat().st_size for file in (ZOO / name).glob("*.safetensors"))
    wrong = problem(results, committed, size)
    print(f"{name}: {wrong or 'good'}; accuracy {_accuracies(results, committed)}, {size / 1e6:.1f} MB", flush=True)
    return wrong is None


def problem(results: Results, committed: Results, size: int) -> str | None:
    """What is wrong with results beside the committed ones, and with the size of the weights in bytes; or None."""
    tolerance = TOLERANCES[committed.dataset.name or ""]
    if abs(results.metrics["accuracy"] - committed.metrics["accuracy"]) > tolerance:
        return f"the accuracy differs from the committed one by more than {tolerance}"
    return f"the weights have more than {LARGEST / 1e6:.0f} MB" if size > LARGEST else None


def commit(name: str) -> None:
    """Copy what a card is made of to `model_cards`, and write the card there; without pictures, which stay out."""
    made, kept = ZOO / name, CARDS / name
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / name
        whole.mkdir()
        for file in filter(Path.exists, (made / file for file in _COMMITTED)):  # a probe has no recipe
            shutil.copy(file, kept)
            shutil.copy(file, whole)
        for weights in made.glob("*.safetensors"):
            (whole / weights.name).symlink_to(weights)
        replace_file(CARDS / f"{name}.md", render_card(whole).encode())


def main() -> int:
    """Make the models and compare, or commit. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of model_cards/zoo.yaml; default: all")
    parser.add_argument("--commit", action="store_true", help="write the figures to model_cards instead of comparing")
    given = parser.parse_args()
    wanted = given.names or names()
    if unknown := set(wanted) - set(names()):
        parser.error(f"not in model_cards/zoo.yaml: {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    if not given.commit:
        are_good = [compare(name) for name in wanted]
        return 0 if all(are_good) else 1
    for name in wanted:
        make(name)
        commit(name)
    return 0


def _accuracies(results: Results, committed: Results) -> str:
    return f"{results.metrics['accuracy']:.4f} (committed: {committed.metrics['accuracy']:.4f})"


def _run(*words: str) -> None:
    """Run a command of `vit-cls`. Raises SystemExit if it fails."""
    if status := vit_cls([*words]):
        sys.exit(status)


if __name__ == "__main__":
    sys.exit(main())
