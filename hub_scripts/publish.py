"""`vit-cls publish LIST`: push every model of a list to the Hub, one commit each, and a collection that lists them."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modeling_vit_cls.cards import card_to_push
from modeling_vit_cls.errors import CheckpointError
from modeling_vit_cls.hub.collection import CollectionUpdate, Page, plan_collection, update_collection
from modeling_vit_cls.hub.push import Push, plan_push, push_folder
from modeling_vit_cls.names import CARD

from .verify import check_tensors
from .zoo import Zoo, ZooModel, read_zoo


def run(arguments: argparse.Namespace) -> None:
    """Check all models; then push them one after the other, and update the collection.

    Raises CheckpointError, before anything is pushed, if a model cannot be published. If a push or the collection
    fails, the error names what is on the Hub and what is not.
    """
    publication = _Publication(read_zoo(Path(arguments.list)), arguments.json)
    try:
        publication.check()
        if not arguments.dry_run:
            publication.push()
        publication.collect(arguments.dry_run)
    finally:
        publication.print_json(arguments.dry_run)


class _Publication:
    """One run of the verb: each line of its report is printed as it comes, or all as JSON in the end."""

    def __init__(self, zoo: Zoo, as_json: bool):
        self.zoo, self.as_json = zoo, as_json
        self.collection = f"collection {zoo.title!r}"
        self.options: dict[str, dict[str, Any]] = {}  # of the push of each model, by id
        self.report: dict[str, dict[str, Any]] = {}  # the last line on each model, by id, and on the collection
        self.is_asked = True  # whether the Hub could be read

    def check(self) -> None:
        """Compare the tensors of each model with their digests, render its card, and plan its push."""
        refused: list[CheckpointError] = []
        for model in self.zoo.models:
            try:
                count, plan = self._check(model)
            except CheckpointError as error:
                refused.append(error)
                self._note(model.repo_id, "refused", str(error))
            else:
                self.is_asked = self.is_asked and plan.not_asked is None
                self._note(model.repo_id, "checked", f"{count} tensors are as they were saved; {_planned(plan)}", plan)
        if refused:
            counts = f"{len(refused)} of {len(self.zoo.models)} models cannot be published, and nothing was pushed"
            raise CheckpointError(f"{counts}: {'; '.join(map(str, refused))}")

    def push(self) -> None:
        """Push the models in order, up to the first that fails."""
        names = [model.repo_id for model in self.zoo.models]
        for number, model in enumerate(self.zoo.models):
            try:
                push = push_folder(model.folder, model.repo_id, **self.options[model.repo_id])
            except CheckpointError as error:
                self._note(model.repo_id, "failed", str(error))
                for name in [*names[number + 1 :], self.collection]:
                    self._note(name, "not done")
                raise _stopped(error, names[:number], [*names[number:], self.collection]) from error
            self._note(model.repo_id, "pushed" if push.is_needed else "unchanged", push.url, push)

    def collect(self, dry_run: bool) -> None:
        """Update the collection, or plan that."""
        names = [model.repo_id for model in self.zoo.models]
        page = Page(self.zoo.organisation, self.zoo.title, self.zoo.description, self.zoo.private)
        if dry_run:
            if self.is_asked:
                plan = plan_collection(page, names)
                self._note(self.collection, "checked", _planned_page(plan), plan)
            return
        try:
            update = update_collection(page, names)
        except CheckpointError as error:
            self._note(self.collection, "failed", str(error))
            raise _stopped(error, names, [self.collection]) from error
        self._note(self.collection, "updated" if update.is_needed else "unchanged", str(update.url), update)

    def print_json(self, dry_run: bool) -> None:
        """Print the report as JSON if that is wanted."""
        if self.as_json:
            models = [self.report[model.repo_id] for model in self.zoo.models if model.repo_id in self.report]
            print(json.dumps({"dry_run": dry_run, "models": models, "collection": self.report.get(self.collection)}))

    def _check(self, model: ZooModel) -> tuple[int, Push]:
        folder = model.folder
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: there is no such folder")
        if not (folder / CARD).is_file():
            raise CheckpointError(f"{folder}: has no {CARD}; `vit-cls train` and trainer.create_model_card() write one")
        count, _ = check_tensors(folder)
        options = {"private": self.zoo.private or None, "with_results": True}
        options["card"] = card_to_push(folder, model.repo_id)
        self.options[model.repo_id] = options
        return count, plan_push(folder, model.repo_id, **options)

    def _note(self, name: str, state: str, text: str = "", facts: Push | CollectionUpdate | None = None) -> None:
        """Print a line of the report, or keep it for the JSON."""
        self.report[name] = {"name": name, "state": state, "text": text, **({} if facts is None else asdict(facts))}
        if not self.as_json:
            named = text if text.startswith(name) else f"{name}: {text}".removesuffix(": ")  # an error names it already
            print(f"{state:<11}{named}", flush=True)


def _planned(plan: Push) -> str:
    """What a push of a model would do."""
    if plan.not_asked:
        return f"the Hub could not be asked what it holds already: {plan.not_asked}"
    if not plan.is_needed:
        return "the Hub holds all of it already"
    count = sum(change.is_needed for change in plan.changes)
    return f"files to change: {count}" + (", in a new repository" if plan.creates_repository else "")


def _planned_page(plan: CollectionUpdate) -> str:
    """What an update of the collection would do."""
    if not plan.is_needed:
        return "the Hub has it already"
    return f"models to add: {len(plan.adds)}" + (", in a new collection" if plan.creates_collection else "")


def _stopped(error: CheckpointError, done: Sequence[str], rest: Sequence[str]) -> CheckpointError:
    """The error for a publication that stopped."""
    remedy = "run the command again to go on"
    return CheckpointError(f"{error}. On the Hub: {', '.join(done) or 'none'}; not done: {', '.join(rest)}; {remedy}")
