"""`vit-cls push FOLDER REPO_ID`: push a trained model to the Hub in one commit."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any


def run(arguments: argparse.Namespace) -> None:
    """Push the folder, or with `--dry_run` plan the push, and print the changes."""
    from modeling_vit_cls.hub.push import plan_push, push_folder
    from modeling_vit_cls.names import CARD

    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    options: dict[str, Any] = {"private": arguments.private or None, "revision": arguments.revision}
    options |= {"with_results": True}
    if (folder / CARD).is_file():
        from modeling_vit_cls.cards import card_to_push  # before the Hub is reached, as its extra may be missing

        options["card"] = card_to_push(folder, arguments.repo_id)
    if not arguments.dry_run:
        push = push_folder(folder, arguments.repo_id, commit_message=arguments.message, **options)
        _report(arguments, push, {})
        return
    push, texts = plan_push(folder, arguments.repo_id, **options), {}
    if "card" in options:
        card = options["card"].get(CARD) or (folder / CARD).read_bytes()
        texts = {"card": card.decode(errors="replace")}
    _report(arguments, push, texts)


def _report(arguments: argparse.Namespace, push: Any, texts: dict[str, str]) -> None:
    """Print the changes of a push or of a plan, with the text of the card for a plan."""
    if arguments.json:
        print(json.dumps({**asdict(push), "is_needed": push.is_needed, "dry_run": arguments.dry_run, **texts}))
        return
    for change in push.changes:
        print(f"{change.action:<10}{change.size:>15,}  {change.path}")
    for name, text in texts.items():
        print(f"\n--- {name} ---\n{text.rstrip()}\n--- end of {name} ---\n")
    action = "would be pushed" if arguments.dry_run else "pushed"
    print(f"{push.repo_id}: {action if push.is_needed else 'holds all of it already'}: {push.url}")
    if push.not_asked:
        print(f"The Hub could not be asked what it holds already: {push.not_asked}")
