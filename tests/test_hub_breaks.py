"""Connections that break while a checkpoint is pulled or pushed: one line, with the repository's name and no token."""

import itertools

import huggingface_hub.constants
import pytest

from modeling_vit_cls import CheckpointError, FlaxViTClsModel

pytestmark = pytest.mark.world

_numbers = itertools.count()


@pytest.fixture
def breaking(hub, model, monkeypatch):
    """A repository whose every answer is broken from now on, and the Hub; nobody waits."""
    repo_id = f"user/breaks-{next(_numbers)}"
    model.push_to_hub(repo_id)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(huggingface_hub.constants, "DEFAULT_REQUEST_TIMEOUT", 0.2, raising=False)
    hub.patience.clear()
    yield hub, repo_id
    hub.faults = iter(())
    hub.patience.set()


FAULTS = ["portal", "redirects", "numbers", "null", "texts", "outside", "cut", "stalled", "lost before", "lost after"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_pull_is_one_line_and_leaves_nothing_outside_of_the_cache(breaking, fault, tmp_path):
    hub, repo_id = breaking
    hub.faults = itertools.repeat(fault)
    with pytest.raises(CheckpointError, match=repo_id) as error:
        FlaxViTClsModel.from_pretrained(repo_id, cache_dir=tmp_path / "deep" / "cache")
    assert "\n" not in str(error.value)
    assert "hf_x" not in str(error.value)
    assert not list(tmp_path.rglob("*x-of-1*"))
    hub.faults = iter(())
    hub.patience.set()
    cache = tmp_path / "deep" / ("other" if fault == "outside" else "cache")  # huggingface_hub 2 keeps listings
    assert FlaxViTClsModel.from_pretrained(repo_id, cache_dir=cache).config.hidden_size == 16


@pytest.mark.parametrize("fault", ["portal", "redirects", "numbers", "texts", "outside"])
def test_a_broken_push_is_one_line(breaking, model, fault):
    hub, repo_id = breaking
    hub.faults = itertools.repeat(fault)
    with pytest.raises(CheckpointError, match=repo_id) as error:
        model.push_to_hub(repo_id)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_missing_is_called_that(breaking):
    hub, _ = breaking
    hub.faults = itertools.repeat("lost before")
    with pytest.raises(CheckpointError, match=r"^nodir: there is no folder '/.*nodir', .*127.0.0.1"):
        FlaxViTClsModel.from_pretrained("nodir")
    with pytest.raises(CheckpointError, match=r"there is no folder '.*'.*the Hub was not asked"):
        FlaxViTClsModel.from_pretrained("nodir", local_files_only=True)
