"""A collection: a page of the Hub that lists models. It is found by its title, created, and brought up to date."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from huggingface_hub import Collection, HfApi

from ..errors import CheckpointError
from .attempts import persist
from .push_errors import collection_error


@dataclass(frozen=True)
class Page:
    """The collection with this title of an owner, who has no other with it.

    `description` None leaves that of the Hub. `private` is for a new collection; True is an error for a public one.
    """

    owner: str
    title: str
    description: str | None = None
    private: bool = False


@dataclass(frozen=True)
class CollectionUpdate:
    """What an update will change or has changed. `url` is None for a collection that does not exist yet."""

    url: str | None
    creates_collection: bool
    adds: tuple[str, ...]
    changes_description: bool

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to change."""
        return self.creates_collection or bool(self.adds) or self.changes_description


def plan_collection(page: Page, models: Sequence[str], token: str | bool | None = None) -> CollectionUpdate:
    """What `update_collection` would change. The Hub is only read."""
    api = HfApi(token=token)
    return _persist(page, api, lambda: _compared(page, _find(api, page), models))


def update_collection(page: Page, models: Sequence[str], token: str | bool | None = None) -> CollectionUpdate:
    """Create the collection if it is missing, set its description, and add the models (ids) that it does not list.

    What else it lists stays. Temporary failures are tried again, four times in all. Raises CheckpointError with the
    collection and the reason in one line.
    """
    api = HfApi(token=token)
    return _persist(page, api, partial(_update, api, page, models))


def _persist(page: Page, api: HfApi, attempt: Callable[[], CollectionUpdate]) -> CollectionUpdate:
    name = f"collection {page.title!r} of {page.owner}"
    return persist(attempt, lambda error: collection_error(error, name, api.token))


def _find(api: HfApi, page: Page) -> Collection | None:
    """The collection with all of its items, of which a list has the first four."""
    slugs = (entry.slug for entry in api.list_collections(owner=page.owner) if entry.title == page.title)
    slug = next(slugs, None)
    return None if slug is None else api.get_collection(slug)


def _compared(page: Page, collection: Collection | None, models: Sequence[str]) -> CollectionUpdate:
    if collection is None:
        return CollectionUpdate(None, True, tuple(models), page.description is not None)
    if page.private and not collection.private:
        problem = "is public; make it private in its settings, then publish again"
        raise CheckpointError(f"collection {page.title!r} of {page.owner}: {problem}")
    listed = {item.item_id for item in collection.items if item.item_type == "model"}
    adds = tuple(model for model in models if model not in listed)
    changes_description = page.description is not None and page.description != (collection.description or "")
    return CollectionUpdate(collection.url, False, adds, changes_description)


def _update(api: HfApi, page: Page, models: Sequence[str]) -> CollectionUpdate:
    collection = _find(api, page)
    update = _compared(page, collection, models)
    if collection is None:
        collection = api.create_collection(
            page.title, namespace=page.owner, description=page.description, private=page.private, exists_ok=True
        )
    elif update.changes_description:
        api.update_collection_metadata(collection.slug, description=page.description)
    for model in update.adds:
        api.add_collection_item(collection.slug, model, "model", exists_ok=True)
    return CollectionUpdate(collection.url, update.creates_collection, update.adds, update.changes_description)
