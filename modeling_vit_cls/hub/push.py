"""Pushing a folder to the Hub in one commit: read the repository, compare, commit the difference, check."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # that of requests in 0.36, of httpx later
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from ..errors import CheckpointError
from ..files.nested_processor import hides_processor
from ..files.ownership import is_our_card
from ..names import CARD, NESTED_PROCESSOR, PROCESSOR
from .attempts import persist
from .changes import Change, Content, compare, files_to_push, is_generated, unasked
from .push_errors import MALFORMED, is_temporary, is_unreachable, unwrapped, upload_error

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Push:
    """What a push will change or has changed.

    Attributes:
        url: of the newest commit, or of the repository if there is none yet.
        creates_repository: None if the Hub was not reached.
        not_asked: why the Hub was not reached, for a plan without it.
    """

    repo_id: str
    url: str
    creates_repository: bool | None
    changes: tuple[Change, ...]
    not_asked: str | None = None

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to change."""
        return any(change.is_needed for change in self.changes)


@dataclass(frozen=True)
class _Remote:
    """A repository at one commit, `head`; None if it does not exist.

    Without the branch of the push, `has_branch` is False and the rest is that of main.
    """

    head: str | None
    files: tuple[RepoFile, ...] = ()
    has_branch: bool = False
    private: bool | None = None


def plan_push(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    with_results: bool = False,
    card: Mapping[str, bytes | None] | None = None,
) -> Push:
    """What `push_folder` would change. The Hub is only read; if it cannot be reached, all files count as changes."""
    files = files_to_push(folder, with_results, card)
    pusher = _Pusher(HfApi(token=token), repo_id, revision, files, with_results, private)

    def plan() -> Push:
        try:
            return pusher.plan()
        except CheckpointError:
            raise
        except (HTTPError, OSError, ValueError, LookupError, RuntimeError) as error:
            if not is_unreachable(error):
                raise
            line = upload_error(error, repo_id, revision, pusher.api.token, unsure=False)
            url = f"{pusher.api.endpoint}/{repo_id}"
            return Push(repo_id, url, None, tuple(unasked(files)), line)

    return persist(plan, pusher.message)


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload model",
    commit_description: str | None = None,
    with_results: bool = False,
    card: Mapping[str, bytes | None] | None = None,
) -> Push:
    """Push the checkpoint in a folder in one commit. A missing repository or branch is created.

    The same commit deletes our files that the folder no longer has (old shards). Other files in the repository stay,
    and other files in the folder are not pushed. There is no commit if the repository is up to date.

    Args:
        private: for a new repository. True is an error for an existing public one.
        with_results: also push what training and benchmark wrote: card, results, recipe, training log and pictures.
        card: the card, its pictures and `.eval_results` by path, pushed instead of the folder's; None leaves one out.

    Temporary failures are tried again, four times in all. Raises CheckpointError with the repository and the reason in
    one line: no access, no answer, another commit meanwhile. The repository is then unchanged or completely new.
    """
    files = files_to_push(folder, with_results, card)
    pusher = _Pusher(HfApi(token=token), repo_id, revision, files, with_results, private)
    commit = {"commit_message": commit_message, "commit_description": commit_description, "create_pr": create_pr}
    return persist(partial(pusher.push, commit), pusher.message)


class _Pusher:
    """One push, over all its attempts. Each attempt reads first, to see a commit whose answer was lost."""

    def __init__(
        self,
        api: HfApi,
        repo_id: str,
        revision: str | None,
        files: dict[str, Content],
        with_results: bool,
        private: bool | None,
    ):
        self.api, self.repo_id, self.revision = api, repo_id, revision
        self.files, self.with_results, self.private = files, with_results, private
        self.parent: str | None = None  # the commit that was read first, the only one that ours may follow
        self.created = False
        self.keeps_card = False  # whether a warning has named the card that stays
        self.sent = False  # whether a commit was sent that may have arrived

    def message(self, error: Exception) -> str:
        """The message of the error that ends the push."""
        return upload_error(error, self.repo_id, self.revision, self.api.token, unsure=self.sent)

    def plan(self) -> Push:
        """Read the repository and compare."""
        return self._compared(self._read())

    def push(self, commit: dict[str, Any]) -> Push:
        """Read, compare, and commit what differs."""
        remote = self._read()
        push = self._compared(remote)
        if remote.has_branch and not push.is_needed:
            return push
        if self.parent is None:
            remote = self._make(remote)
            self.parent = remote.head
        elif remote.head != self.parent:
            remedy = "look at that commit, and push again to replace its files"
            raise CheckpointError(f"{self.repo_id}: somebody else has committed to it meanwhile; {remedy}")
        push = self._compared(remote)
        return self._commit(push, commit) if push.is_needed else push

    def _read(self) -> _Remote:
        if "/" not in self.repo_id:
            self.repo_id = f"{self.api.whoami()['name']}/{self.repo_id}"
        has_branch = True
        try:
            info = self.api.model_info(self.repo_id, revision=self.revision)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError as error:
            if error.response.status_code == 401:  # without access, nobody can tell whether it exists
                raise
            return _Remote(None)
        except RevisionNotFoundError:
            info, has_branch = self.api.model_info(self.repo_id), False
        return _Remote(info.sha, self._tree(info.sha), has_branch, info.private)

    def _tree(self, commit: str | None) -> tuple[RepoFile, ...]:
        entries = self.api.list_repo_tree(self.repo_id, recursive=True, revision=commit)
        return tuple(entry for entry in entries if isinstance(entry, RepoFile))

    def _changes(self, remote: tuple[RepoFile, ...], commit: str | None) -> list[Change]:
        """What is to be changed at a commit. An image processor that readers would prefer to the pushed one is too.

        A card that somebody wrote or edited in the repository is replaced only by a card of the user.
        """
        names, outdated, keep_card = {file.path for file in remote}, set(), False
        if CARD in self.files and CARD in names and is_generated(self.files[CARD]):
            file = self.api.hf_hub_download(self.repo_id, CARD, revision=commit)
            keep_card = not is_our_card(Path(file))
        if keep_card and not self.keeps_card:
            rule = "was written or edited there and is kept, with its pictures and .eval_results: to replace it, save"
            _log.warning("%s: its %s %s it into the folder with your changes, and push again", self.repo_id, CARD, rule)
        self.keeps_card = keep_card
        if PROCESSOR in self.files and NESTED_PROCESSOR in names:
            file = self.api.hf_hub_download(self.repo_id, NESTED_PROCESSOR, revision=commit)
            outdated = {NESTED_PROCESSOR} if hides_processor(Path(file)) else set()
        return compare(self.files, remote, self.with_results, outdated, keep_card)

    def _compared(self, remote: _Remote) -> Push:
        if self.private and remote.private is False:
            raise CheckpointError(f"{self.repo_id}: is public; make it private in its settings, then push again")
        url = f"{self.api.endpoint}/{self.repo_id}" + (f"/commit/{remote.head}" if remote.head else "")
        changes = self._changes(remote.files, remote.head)
        return Push(self.repo_id, url, self.created or remote.head is None, tuple(changes))

    def _make(self, remote: _Remote) -> _Remote:
        """Create the repository and the branch if they are missing, and read what the Hub put into them."""
        if remote.head is None:
            self.created = True
            self.api.create_repo(self.repo_id, private=self.private, exist_ok=True)
            remote = self._read()
        if not remote.has_branch and self.revision is not None:
            self.api.create_branch(self.repo_id, branch=self.revision, exist_ok=True)
            remote = self._read()
        return remote

    def _commit(self, push: Push, commit: dict[str, Any]) -> Push:
        operations: list[Any] = []
        for change in push.changes:
            if change.action == "delete":
                operations.append(CommitOperationDelete(change.path))
            elif change.is_needed:
                content = self.files[change.path]
                operations.append(
                    CommitOperationAdd(change.path, content if isinstance(content, bytes) else str(content))
                )
        try:
            answer = self.api.create_commit(
                self.repo_id, operations, revision=self.revision, parent_commit=self.parent, **commit
            )
        except (HTTPError, OSError, json.JSONDecodeError, LookupError, RuntimeError, *MALFORMED) as raised:
            error = unwrapped(raised)
            self.sent = self.sent or is_temporary(error)
            if commit["create_pr"] and self.sent:  # a pull request cannot be seen in main
                line = upload_error(error, self.repo_id, self.revision, self.api.token, unsure=True)
                raise CheckpointError(f"{line}; look at its pull requests first") from None
            raise
        self.sent = True
        changes = self._changes(self._tree(answer.oid), answer.oid)
        names = [change.path for change in changes if change.is_needed]
        if names:
            problem = f"the Hub did not accept {', '.join(names)} as pushed; check the repository's .gitignore"
            raise CheckpointError(f"{self.repo_id}: {problem}")
        return Push(self.repo_id, answer.commit_url, push.creates_repository, push.changes)
