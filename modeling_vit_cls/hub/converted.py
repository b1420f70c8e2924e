"""The safetensors that the Hub's converter offers, as a pull request, to a repository of pickled weights."""

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from ..errors import CheckpointError

_BOT, _TITLE = "SFconvertbot", "Adding `safetensors` variant of this model"


def converted_revision(api: HfApi, repo_id: str, pickled: list[str], others: list[str]) -> str | None:
    """The revision, refs/pr/N, with the safetensors of a repository's pickled weights; None if there is none.

    The pull request must be open and made by the Hub's converter. Its files `pickled`, all weights, must be those of
    the main branch, which shows that the safetensors were made from these weights.

    Raises CheckpointError if one of the files `others`, which are read from the pull request too, has changed since.
    """
    try:
        for request in api.get_repo_discussions(repo_id, author=_BOT, discussion_type="pull_request"):
            reference = request.git_reference
            if not reference or (request.author, request.title, request.status) != (_BOT, _TITLE, "open"):
                continue
            if _content(api, repo_id, pickled, reference) == _content(api, repo_id, pickled, "main"):
                _check_unchanged(api, repo_id, others, reference)
                return reference
    except HfHubHTTPError:  # the repository may have no discussions
        pass
    return None


def _check_unchanged(api: HfApi, repo_id: str, names: list[str], reference: str) -> None:
    """Raise CheckpointError, with the remedy, if files of the main branch are not those of a pull request."""
    here, there = (_content(api, repo_id, names, revision) for revision in ("main", reference))
    changed = sorted(name for name in names if here.get(name) != there.get(name))
    if changed:
        raise CheckpointError(
            f"{repo_id}: it has pickled weights only, and the safetensors in {reference} come with another "
            f"{' and '.join(changed)} than the main branch: give revision={reference!r} to read all of it from there"
        )


def _content(api: HfApi, repo_id: str, names: list[str], revision: str) -> dict[str, str]:
    """The identifiers of the files' contents at a revision, by name; without those that are not there."""
    files = api.get_paths_info(repo_id, names, revision=revision)
    return {file.path: file.blob_id for file in files if isinstance(file, RepoFile)}
