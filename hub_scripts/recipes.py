"""`vit-cls recipes [PATTERN]`: list the recipes of the package."""

import argparse
import json
from dataclasses import asdict

from modeling_vit_cls.training.packaged import packaged_recipes, read_head

from .matching import matching


def run(arguments: argparse.Namespace) -> None:
    """Print the head of each matching recipe. Raises ValueError if none matches."""
    recipes = matching(packaged_recipes, arguments.pattern, "recipe", "recipes")
    heads = {recipe.stem: asdict(read_head(recipe)) for recipe in recipes}
    if arguments.json:
        print(json.dumps([{"name": name, **head} for name, head in heads.items()], indent=2))
        return
    for name, head in heads.items():
        print("\n".join([name, *(f"  {key:<10}{text}" for key, text in head.items())]))
