"""`python -m benchmarks.zoo [NAME ...]`: make the models of the zoo, and compare with the committed figures."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import yaml

from hub_scripts.__main__ import main as vit_cls
from modeling_vit_cls.cards import render_card
from modeling_vit_cls.files.folder import replace_file
from modeling_vit_cls.names import RECIPE, RESULTS, TRAINER_STATE
from modeling_vit_cls.results import Results
from modeling_vit_cls.training.recipe import read_recipe

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "model_cards"
ZOO = ROOT / "build/zoo"

# A probe is a linear classifier on the features of another model of the zoo, for classes that it was not trained on.
PROBES = {"vit_cls_digits_probe": ("vit_cls_fashion_mnist_cls_mean", "digits")}
# Another processor rounds otherwise, and a training ends elsewhere, as with another seed.
TOLERANCES = {"digits": 0.02, "fashion_mnist": 0.01}
LARGEST = 8_000_000  # bytes of a model's weights
_COMMITTED = ("config.json", RESULTS, RECIPE, TRAINER_STATE)
_ELSEWHERE = ["--output_dir", "out", "--run_name", "out", "--disable_tqdm", "false"]


def names() -> list[str]:
    """The models of the zoo, in the order in which they are made."""
    return [entry["name"] for entry in yaml.safe_load((CARDS / "zoo.yaml").read_text())["models"]]


def make(name: str, folder: Path, *options: str) -> Results:
    """Train a model, or fit a probe, into a folder, unless it is there. Raises SystemExit if a command fails.

    `options` change the recipe. A training that was stopped goes on.
    """
    if name in PROBES:
        backbone, dataset = PROBES[name]
        words = ["benchmark", str(ZOO / backbone), "--method", "probe", "--dataset_name", dataset]
    else:
        words = ["train", name, "--resume_from_checkpoint", "true", *options]
    if not _is_made(name, folder, options) and (status := vit_cls([*words, "--output_dir", str(folder)])):
        sys.exit(status)
    return Results.read(folder / RESULTS)


def compare(name: str) -> bool:
    """Make a model and print how it differs from the committed one. Returns whether it is as good."""
    results = make(name, ZOO / name)
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
        make(name, ZOO / name)
        commit(name)
    return 0


def _accuracies(results: Results, committed: Results) -> str:
    return f"{results.metrics['accuracy']:.4f} (committed: {committed.metrics['accuracy']:.4f})"


def _is_made(name: str, folder: Path, options: tuple[str, ...]) -> bool:
    """Whether a folder has the results of a model by the present recipe."""
    if not (folder / RESULTS).exists():
        return False
    if name in PROBES:
        return True
    return read_recipe(folder / RECIPE, _ELSEWHERE) == read_recipe(name, [*options, *_ELSEWHERE])


if __name__ == "__main__":
    sys.exit(main())
