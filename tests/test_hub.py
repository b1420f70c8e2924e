"""Push and pull over HTTP, with the real huggingface_hub against the Hub of local_hub.py."""

import itertools
import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from conftest import assert_same, pixels, tiny_config, tiny_model
from local_hub import Repository
from test_families import GOLDEN
from transformers import AutoConfig, AutoImageProcessor

from modeling_vit_cls import (
    CheckpointError,
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    check_pretrained,
)

pytestmark = pytest.mark.world

_numbers = itertools.count()


@pytest.fixture
def repo_id() -> str:
    return f"user/model-{next(_numbers)}"


def commits(hub, repo_id) -> int:
    return len(hub.repositories[repo_id].history)


def test_push_and_pull_by_id(hub, model, repo_id):
    url = model.push_to_hub(repo_id, commit_message="Trained")
    assert url.startswith(f"{hub.url}/{repo_id}/commit/")
    assert commits(hub, repo_id) == 2, "one commit after the repository's first"
    assert set(hub.files(repo_id)) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    for kind in (FlaxAutoModelForImageClassification, FlaxViTClsForImageClassification):
        loaded = kind.from_pretrained(repo_id)
        np.testing.assert_array_equal(loaded(pixels()).logits, model(pixels()).logits)
    assert isinstance(FlaxAutoModel.from_pretrained(repo_id), FlaxViTClsModel)
    assert AutoConfig.from_pretrained(repo_id).to_dict().keys() == model.config.to_dict().keys()
    assert AutoImageProcessor.from_pretrained(repo_id).size == {"height": 8, "width": 8}


def test_shards_over_one_file_leave_no_stale_weights(hub, model, repo_id):
    model.push_to_hub(repo_id)
    model.push_to_hub(repo_id, max_shard_size="4KB")
    names = set(hub.files(repo_id))
    assert "model.safetensors" not in names
    assert "model.safetensors.index.json" in names
    loaded = FlaxViTClsForImageClassification.from_pretrained(repo_id)
    np.testing.assert_array_equal(loaded(pixels()).logits, model(pixels()).logits)


def test_save_pretrained_can_push(hub, model, repo_id, tmp_path):
    (tmp_path / "secret.env").write_text("mine")
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id=repo_id)
    assert set(hub.files(repo_id)) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert hub.files(repo_id)["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()


def test_revisions_are_different_models(hub, model, repo_id):
    model.push_to_hub(repo_id)
    huggingface_hub.HfApi().create_tag(repo_id, tag="v1")
    other = tiny_model()
    other.params = {**other.params, "classifier": {n: 2 * leaf for n, leaf in other.params["classifier"].items()}}
    other.push_to_hub(repo_id)
    first = FlaxAutoModelForImageClassification.from_pretrained(repo_id, revision="v1")
    latest = FlaxAutoModelForImageClassification.from_pretrained(repo_id)
    np.testing.assert_array_equal(first(pixels()).logits, model(pixels()).logits)
    np.testing.assert_allclose(latest(pixels()).logits, 2 * model(pixels()).logits, rtol=1e-5)


def test_subfolder_of_a_repository(hub, model, repo_id, tmp_path):
    model.save_pretrained(tmp_path)
    api = huggingface_hub.HfApi()
    api.create_repo(repo_id)
    api.upload_folder(repo_id=repo_id, folder_path=tmp_path, path_in_repo="models/small")
    loaded = FlaxAutoModelForImageClassification.from_pretrained(repo_id, subfolder="models/small")
    np.testing.assert_array_equal(loaded(pixels()).logits, model(pixels()).logits)
    for number, spelt in enumerate(("./models/small", "models/small/.", "models//small/")):
        FlaxViTClsModel.from_pretrained(repo_id, subfolder=spelt, cache_dir=tmp_path / f"cache-{number}")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        FlaxViTClsModel.from_pretrained(repo_id)


def test_local_files_only_asks_the_network_nothing(hub, model, repo_id):
    model.push_to_hub(repo_id)
    FlaxViTClsModel.from_pretrained(repo_id)
    before = len(hub.requests)
    loaded = FlaxViTClsForImageClassification.from_pretrained(repo_id, local_files_only=True)
    assert len(hub.requests) == before
    np.testing.assert_array_equal(loaded(pixels()).logits, model(pixels()).logits)


# huggingface_hub before 1.0 reads HF_HUB_OFFLINE once, when its session is opened.
reads_offline_late = pytest.mark.skipif(
    huggingface_hub.__version__ < "1", reason="HF_HUB_OFFLINE was read before the test"
)


@pytest.mark.parametrize("is_set", [False, pytest.param(True, marks=reads_offline_late)])
def test_offline_it_is_told_that_the_cache_has_no_weights(hub, model, repo_id, monkeypatch, caplog, is_set):
    model.push_to_hub(repo_id)
    huggingface_hub.hf_hub_download(repo_id, "config.json")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", is_set)
    before = len(hub.requests)
    with pytest.raises(CheckpointError, match="holds no weights"):
        FlaxAutoModelForImageClassification.from_pretrained(repo_id, **({} if is_set else {"local_files_only": True}))
    assert f"{repo_id}: no weights of it are in the cache of the Hub, and this is offline" in caplog.text
    assert len(hub.requests) == before


def test_cache_dir_and_force_download(hub, model, repo_id, tmp_path):
    model.push_to_hub(repo_id)
    FlaxViTClsModel.from_pretrained(repo_id, cache_dir=tmp_path)
    assert list(tmp_path.glob("models--*/snapshots/*/model.safetensors"))
    seen = [request for request in hub.requests if request[1].endswith("model.safetensors")]
    FlaxViTClsModel.from_pretrained(repo_id, cache_dir=tmp_path, force_download=True)
    assert len([r for r in hub.requests if r[1].endswith("model.safetensors") and r[0] == "GET"]) > len(seen) // 2


def test_nothing_but_the_checkpoint_is_downloaded(hub, model, repo_id, tmp_path):
    model.push_to_hub(repo_id)
    api = huggingface_hub.HfApi()
    for name in ("evil.py", "pytorch_model.bin", "README.md"):
        api.upload_file(repo_id=repo_id, path_or_fileobj=b"x", path_in_repo=name)
    FlaxViTClsModel.from_pretrained(repo_id, cache_dir=tmp_path)
    names = {path.name for path in tmp_path.glob("models--*/snapshots/*/*")}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("user/nowhere", {}, "nor a repository on the Hub"),
        ("user/nowhere", {"local_files_only": True}, "is not in the cache"),
        ("not a name!", {}, "neither a local folder nor the name of a Hub repository"),
    ],
)
def test_what_cannot_be_had_is_one_clear_line(hub, name, arguments, words):
    with pytest.raises(CheckpointError, match=words) as error:
        FlaxViTClsModel.from_pretrained(name, **arguments)
    assert "\n" not in str(error.value)
    assert "hf_x" not in str(error.value)


def test_unknown_revision_is_named(hub, model, repo_id):
    model.push_to_hub(repo_id)
    with pytest.raises(CheckpointError, match="has no revision 'v9' on the Hub"):
        FlaxViTClsModel.from_pretrained(repo_id, revision="v9")


def test_repository_of_another_kind_of_model(hub, repo_id):
    api = huggingface_hub.HfApi()
    api.create_repo(repo_id)
    fields = {**tiny_config().to_dict(), "model_type": "bert"}
    api.upload_file(repo_id=repo_id, path_or_fileobj=json.dumps(fields).encode(), path_in_repo="config.json")
    with pytest.raises(CheckpointError, match="model_type='bert'"):
        FlaxViTClsModel.from_pretrained(repo_id)


def push_files(hub, repo_id, files: dict[str, Path]) -> None:
    """Another library's repository, as the Hub has it."""
    hub.repositories[repo_id] = Repository()
    hub.repositories[repo_id].commit({name: file.read_bytes() for name, file in files.items()}, "theirs", "main")


def downloads(hub, repo_id) -> set[str]:
    """Files of a repository that were asked for."""
    asked = (path.partition(f"{repo_id}/resolve/")[2] for _, path in hub.requests)
    return {path.partition("/")[2] for path in asked if path}


def test_another_librarys_repository_is_pulled_by_id(hub, repo_id):
    flax, vit = GOLDEN / "flax_vit", GOLDEN / "vit"
    weights = {"model.safetensors": vit / "model.safetensors", "flax_model.msgpack": flax / "flax_model.msgpack"}
    push_files(hub, repo_id, {"config.json": vit / "config.json", **weights, "pytorch_model.bin": vit / "versions.txt"})
    assert FlaxViTClsForImageClassification.from_pretrained(repo_id).config.hidden_size == 24
    assert downloads(hub, repo_id) == {"config.json", "model.safetensors"}, "one format is enough"


def test_where_there_are_no_safetensors_msgpack_and_npz_are_pulled(hub, repo_id):
    folder = GOLDEN / "flax_vit"
    push_files(hub, repo_id, {name: folder / name for name in ("config.json", "flax_model.msgpack")})
    FlaxViTClsForImageClassification.from_pretrained(repo_id)
    push_files(hub, f"{repo_id}-npz", {"S_16.npz": GOLDEN / "npz_augreg" / "checkpoint.npz"})
    loaded = FlaxViTClsForImageClassification.from_pretrained(f"{repo_id}-npz")
    assert loaded.config.hidden_act == "gelu_pytorch_tanh"


def pickled(hub, repo_id: str, **changes: object) -> None:
    """A repository of pickled weights, and the converter's pull request with safetensors, or one that is `changes`."""
    vit = GOLDEN / "vit"
    weights = {"config.json": vit / "config.json", "pytorch_model.bin": vit / "versions.txt"}
    weights |= dict.fromkeys(("optimizer.pt", "checkpoint-5/model.safetensors", "a/b.bin"), vit / "config.json")
    push_files(hub, repo_id, weights)
    files = {**hub.files(repo_id), "model.safetensors": (vit / "model.safetensors").read_bytes()}
    repository = hub.repositories[repo_id]
    repository.commit(
        {**files, **({"pytorch_model.bin": b"old"} if changes.pop("old", False) else {})}, "pr", "refs/pr/7"
    )
    request = {"num": 7, "title": "Adding `safetensors` variant of this model", "author": {"name": "SFconvertbot"}}
    request |= {
        "status": "open",
        "isPullRequest": True,
        "createdAt": "2024-01-01T00:00:00.000Z",
        "repo": {"name": repo_id, "type": "model"},
    }
    repository.discussions.append({**request, **changes})


def test_pickled_weights_are_read_from_the_converters_pull_request(hub, repo_id, caplog):
    pickled(hub, repo_id)
    report = check_pretrained(repo_id)
    files = hub.files(repo_id, "refs/pr/7")
    assert report.loads
    assert report.download_size == sum(len(files[name]) for name in ("config.json", "model.safetensors"))
    words = "has pickled weights only, which are never read; the Hub's converter offers safetensors in refs/pr/7"
    assert report.notes == [f"{repo_id}: {words}"]
    assert downloads(hub, repo_id) == {"config.json", "model.safetensors"}
    for revision in (None, "main"):
        model = FlaxViTClsForImageClassification.from_pretrained(repo_id, revision=revision)
        assert words in caplog.text
    assert_same(model.params, FlaxViTClsForImageClassification.from_pretrained(GOLDEN / "vit").params)
    assert (
        FlaxViTClsModel.from_pretrained(repo_id, revision="refs/pr/7", local_files_only=True).config.hidden_size == 24
    )
    assert downloads(hub, repo_id) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    "changes",
    [
        {"author": {"name": "somebody"}},
        {"title": "Adding better weights"},
        {"status": "closed"},
        {"isPullRequest": False},
        {"old": True},
    ],
    ids=str,
)
def test_another_pull_request_is_not_trusted(hub, repo_id, changes):
    pickled(hub, repo_id, **changes)
    with pytest.raises(CheckpointError, match=rf"^{repo_id}/pytorch_model.bin: pickled weights are never read"):
        FlaxViTClsModel.from_pretrained(repo_id)
    assert "pickled weights are never read" in str(check_pretrained(repo_id).problem)


def test_a_config_that_changed_after_the_pull_request_is_not_passed_over(hub, repo_id):
    pickled(hub, repo_id)
    changed = json.loads((GOLDEN / "vit" / "config.json").read_text()) | {"id2label": {"0": "cat", "1": "dog"}}
    hub.repositories[repo_id].commit(
        {**hub.files(repo_id), "config.json": json.dumps(changed).encode()}, "later", "main"
    )
    words = "the safetensors in refs/pr/7 come with another config.json than the main branch: give revision='refs/pr/7'"
    with pytest.raises(CheckpointError, match=words):
        FlaxViTClsModel.from_pretrained(repo_id)
    assert words in str(check_pretrained(repo_id).problem)
    assert FlaxViTClsModel.from_pretrained(repo_id, revision="refs/pr/7").config.hidden_size == 24


def test_the_pull_request_is_for_the_main_branch_alone(hub, repo_id):
    pickled(hub, repo_id)
    huggingface_hub.HfApi().create_tag(repo_id, tag="v1")
    with pytest.raises(CheckpointError, match="pickled weights are never read"):
        FlaxViTClsModel.from_pretrained(repo_id, revision="v1")


def test_a_repository_of_pickles_alone_is_refused_with_the_remedy(hub, repo_id):
    vit = GOLDEN / "vit"
    push_files(hub, repo_id, {"config.json": vit / "config.json", "pytorch_model.bin": vit / "model.safetensors"})
    with pytest.raises(CheckpointError, match=rf"^{repo_id}/pytorch_model.bin: pickled weights are never read"):
        FlaxViTClsModel.from_pretrained(repo_id)
    assert downloads(hub, repo_id) == {"config.json"}


def test_a_repository_of_another_format_alone_is_refused_with_its_name(hub, repo_id):
    vit = GOLDEN / "vit"
    push_files(hub, repo_id, {"config.json": vit / "config.json", "model.onnx": vit / "versions.txt"})
    with pytest.raises(CheckpointError, match=rf"^{repo_id}/model.onnx: is ONNX; expected model.safetensors"):
        FlaxViTClsModel.from_pretrained(repo_id)
    assert "model.onnx: is ONNX" in str(check_pretrained(repo_id).problem)
