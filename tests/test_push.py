"""Pushing a folder: one commit or none, whatever fails on the way; over HTTP, against the Hub of local_hub.py."""

import itertools
import json
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
from conftest import tiny_model
from local_hub import LocalHub, Repository

from hub_scripts.__main__ import main
from modeling_vit_cls import CheckpointError, FlaxViTClsForImageClassification
from modeling_vit_cls.cards import write_card
from modeling_vit_cls.files.ownership import signed
from modeling_vit_cls.hub.changes import EVAL_RESULTS
from modeling_vit_cls.hub.push import plan_push, push_folder

pytestmark = [
    pytest.mark.world,
    # huggingface_hub 2.4 uploads to LFS with an argument that its own HTTP library has renamed (2026-11-23).
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

TOKEN = "hf_" + "x" * 34
RESULTS = {
    "README.md": b"---\nlibrary_name: vit-cls\n---\n# A card\n",
    "results.json": b'{"metrics": {"accuracy": 0.5}, "dataset": {"name": "someone/flowers"}}',
    "recipe.yaml": b"learning_rate: 0.001\n",
    "trainer_state.json": b"{}",
    "training_curve.png": b"a picture",
    EVAL_RESULTS: b"- value: 0.5\n",
}
CHECKPOINT = {"config.json", "model.safetensors", "preprocessor_config.json"}
_numbers = itertools.count()


@pytest.fixture
def repo_id() -> str:
    return f"user/pushed-{next(_numbers)}"


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory) -> Path:
    """A folder as training leaves it, its own checkpoints and somebody's notes in it."""
    folder = tmp_path_factory.mktemp("push") / "trained"
    model.save_pretrained(folder)
    model.save_pretrained(folder / "checkpoint-10")
    for name, content in {**RESULTS, "notes.txt": b"mine", "events.out.tfevents.1": b"log"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def trained_again(trained, tmp_path_factory) -> Path:
    """The same folder after another training: other weights, and one picture less."""
    folder = tmp_path_factory.mktemp("push") / "again"
    shutil.copytree(trained, folder)
    tiny_model(num_labels=6).save_pretrained(folder)  # what was measured of the old weights goes with them
    (folder / "training_curve.png").unlink()  # which no card of ours shows, so that it stayed
    for name, content in RESULTS.items():
        if name != "training_curve.png":
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "trained"))


@pytest.fixture
def other(trained_again, tmp_path) -> Path:
    return Path(shutil.copytree(trained_again, tmp_path / "again"))


@pytest.fixture(autouse=True)
def a_good_hub(hub):
    """What one test does to the server is undone for the next."""
    yield
    hub.lfs, hub.faults = False, iter(())


@pytest.fixture(params=[False, True], ids=["regular", "lfs"])
def storage(request, hub) -> None:
    """Both ways in which a repository can hold weights."""
    hub.lfs = request.param


@pytest.fixture
def lfs(hub) -> None:
    """Weights in LFS, which takes more requests; all else is regular there too."""
    hub.lfs = True


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Every pause that is made, none of them waited for."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def pushed(folder: Path) -> dict[str, bytes]:
    """What of a folder goes to the Hub."""
    return {name: (folder / name).read_bytes() for name in {*CHECKPOINT, *RESULTS} if (folder / name).exists()}


def commits(hub: LocalHub, repo_id: str) -> int:
    return len(hub.repositories[repo_id].history) if repo_id in hub.repositories else 0


def writes(hub: LocalHub, since: int) -> list[str]:
    return [f"{method} {path}" for method, path in hub.requests[since:] if method not in ("GET", "HEAD")]


def test_a_trained_folder_is_one_commit(hub, folder, repo_id, storage):
    push = push_folder(folder, repo_id, with_results=True)
    assert hub.files(repo_id) == pushed(folder)
    assert commits(hub, repo_id) == 2, "one commit after the repository's first"
    assert push.url == f"{hub.url}/{repo_id}/commit/{hub.repositories[repo_id].history[-1]}"
    assert push.creates_repository
    assert {change.action for change in push.changes} == {"add"}


def test_a_card_that_was_edited_in_the_repository_stays_with_its_pictures(hub, folder, repo_id, caplog):
    (folder / "README.md").write_text(signed("# A card\n"))
    push_folder(folder, repo_id, with_results=True)
    edited = signed("# A card\n").replace("# A card", "# A card\n\nThe images are CC BY 4.0.").encode()
    hub.repositories[repo_id].commit({**hub.files(repo_id), "README.md": edited}, "edited on the page", "main")
    (folder / "README.md").write_text(signed("# A card with new numbers\n"))
    (folder / "training_curve.png").write_bytes(b"new")
    (folder / "results.json").write_text(json.dumps({"metrics": {}}))
    plan = plan_push(folder, repo_id, with_results=True)
    push = push_folder(folder, repo_id, with_results=True)
    assert plan.changes == push.changes
    assert {change.path: change.action for change in push.changes if change.action != "unchanged"} == {
        "README.md": "keep",
        "results.json": "replace",
    }
    files = hub.files(repo_id)
    assert files["README.md"] == edited
    assert files["training_curve.png"] == RESULTS["training_curve.png"]
    assert caplog.text.count("its README.md was written or edited there and is kept") == 2, "once for each"
    assert not push_folder(folder, repo_id, with_results=True).is_needed

    (folder / "README.md").write_bytes(edited + b"More of mine.\n")
    push_folder(folder, repo_id, with_results=True)
    assert hub.files(repo_id)["README.md"].endswith(b"More of mine.\n"), "a card of the user replaces it"


def test_the_same_again_is_no_commit_and_says_where_it_is(hub, folder, repo_id, storage):
    first = push_folder(folder, repo_id, with_results=True)
    before = len(hub.requests)
    again = push_folder(folder, repo_id, with_results=True)
    assert commits(hub, repo_id) == 2
    assert writes(hub, before) == []
    assert again.url == first.url
    assert not again.is_needed


def test_what_is_outdated_goes_and_what_is_anothers_stays(hub, folder, other, repo_id, storage):
    theirs = {
        "README.txt": b"x",
        ".eval_results/imagenet.yaml": b"- {}",
        "flax_model.msgpack": b"",
        "sub/config.json": b"{}",
    }
    huggingface_hub.HfApi().create_repo(repo_id)
    hub.repositories[repo_id].commit(theirs, "theirs", "main")
    tiny = FlaxViTClsForImageClassification.from_pretrained(folder)
    tiny.save_pretrained(folder, max_shard_size="4KB")
    push_folder(folder, repo_id, with_results=True)
    push = push_folder(other, repo_id, with_results=True)
    assert hub.files(repo_id) == {**theirs, **pushed(other)}
    assert commits(hub, repo_id) == 4
    by_action = {a: {c.path for c in push.changes if c.action == a} for a in ("add", "delete", "replace", "unchanged")}
    assert by_action["add"] == {"model.safetensors", "trainer_state.json"}  # the latter went with the plain save
    assert {"training_curve.png", "model.safetensors.index.json"} <= by_action["delete"]
    assert by_action["replace"] == {"config.json"}
    unchanged = {"preprocessor_config.json", *RESULTS} - {"training_curve.png", "trainer_state.json"}
    assert by_action["unchanged"] == unchanged


@pytest.mark.parametrize(
    ("content", "stays"),
    [
        ('{"image_processor": {"image_processor_type": "ViTImageProcessor", "image_mean": [0.1]}}', False),
        ('{"processor_class": "CLIPProcessor"}', True),
        ("no JSON", False),
    ],
)
def test_an_image_processor_that_would_hide_the_pushed_one_goes(hub, folder, repo_id, content, stays):
    huggingface_hub.HfApi().create_repo(repo_id)
    hub.repositories[repo_id].commit({"processor_config.json": content.encode()}, "theirs", "main")
    plan = plan_push(folder, repo_id)
    push = push_folder(folder, repo_id)
    assert ("processor_config.json" in hub.files(repo_id)) is stays
    assert push.changes == plan.changes
    assert {change.path for change in push.changes if change.action == "delete"} == {"processor_config.json"} - {
        "processor_config.json" if stays else ""
    }


def test_a_models_own_push_leaves_results_alone(hub, folder, repo_id):
    push_folder(folder, repo_id, with_results=True)
    tiny_model(num_labels=6).push_to_hub(repo_id)
    assert set(hub.files(repo_id)) == CHECKPOINT | set(RESULTS)


def test_a_card_is_not_deleted(hub, folder, repo_id):
    push_folder(folder, repo_id, with_results=True)
    (folder / "README.md").unlink()
    assert not push_folder(folder, repo_id, with_results=True).is_needed
    assert "README.md" in hub.files(repo_id)


def test_a_plan_says_what_the_push_does_and_changes_nothing(hub, folder, other, repo_id, storage):
    before = len(hub.requests)
    plan = plan_push(folder, repo_id, with_results=True)
    assert plan.creates_repository
    assert repo_id not in hub.repositories
    assert plan.changes == push_folder(folder, repo_id, with_results=True).changes
    before = len(hub.requests)
    plan = plan_push(other, repo_id, with_results=True)
    assert writes(hub, before) == []
    assert {c.path: c.size for c in plan.changes if c.action == "replace"} == {
        name: len(content) for name, content in pushed(other).items() if content != pushed(folder)[name]
    }
    assert plan.changes == push_folder(other, repo_id, with_results=True).changes


def test_plan_of_a_new_repository_writes_nothing(hub, folder, repo_id):
    before = len(hub.requests)
    plan_push(folder, repo_id)
    plan_push(folder, repo_id.removeprefix("user/"))
    assert writes(hub, before) == []
    assert repo_id not in hub.repositories


def test_a_branch_that_is_missing_is_made(hub, folder, other, repo_id):
    push_folder(folder, repo_id)
    push_folder(other, repo_id, revision="v2")
    assert hub.files(repo_id, "v2")["config.json"] == (other / "config.json").read_bytes()
    assert hub.files(repo_id)["config.json"] == (folder / "config.json").read_bytes()


def test_a_pull_request_leaves_main_alone(hub, folder, other, repo_id, waits):
    push_folder(folder, repo_id)
    model = tiny_model(num_labels=6)
    assert model.push_to_hub(repo_id, create_pr=True).startswith(hub.url)
    assert hub.files(repo_id)["config.json"] == (folder / "config.json").read_bytes()
    hub.faults = iter(["", "", "", "lost after"])  # info, tree, preupload, commit
    with pytest.raises(CheckpointError, match="look at its pull requests first"):
        push_folder(other, repo_id, create_pr=True)
    assert len([ref for ref in hub.repositories[repo_id].refs if ref.startswith("refs/pr/")]) == 2


def test_private_stays_private(hub, folder, repo_id):
    push_folder(folder, repo_id, private=True)
    assert hub.repositories[repo_id].private
    hub.repositories[repo_id].private = False
    with pytest.raises(CheckpointError, match=f"^{repo_id}: is public"):
        push_folder(folder, repo_id, private=True)


def holding(hub, repo_id, folder) -> None:
    """A repository that holds what of a folder is pushed."""
    hub.objects.clear()
    hub.repositories[repo_id] = Repository()
    hub.repositories[repo_id].commit(pushed(folder), "pushed", "main")


def number_of_requests(hub, folder, other, name) -> int:
    """How many requests the push of `other` over `folder` makes."""
    holding(hub, name, folder)
    before = len(hub.requests)
    push_folder(other, name, with_results=True)
    return len(hub.requests) - before


def the_state(hub, repo_id, folder, other) -> str:
    """Old or new: nothing else may be there."""
    files = hub.files(repo_id)
    return {True: "old"}.get(files == pushed(folder)) or {True: "new"}[files == pushed(other)]


@pytest.mark.parametrize("fault", ["500", "429", "lost before", "lost after"])
def test_a_fault_at_any_request_is_overcome_in_one_commit(hub, folder, other, repo_id, lfs, waits, caplog, fault):
    for number in range(number_of_requests(hub, folder, other, f"{repo_id}-count")):
        name = f"{repo_id}-{number}"
        holding(hub, name, folder)
        hub.faults = iter([""] * number + [fault])
        push = push_folder(other, name, with_results=True)
        assert the_state(hub, name, folder, other) == "new"
        assert commits(hub, name) == 3
        assert push.url == f"{hub.url}/{name}/commit/{hub.repositories[name].history[-1]}"
    if fault == "429":
        assert max(waits) >= 7, "as long as the Hub asks"
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("fault", ["500", "lost before", "lost after"])
def test_a_fault_that_lasts_leaves_the_old_or_the_new(hub, folder, other, repo_id, lfs, waits, caplog, fault):
    states = []
    for number in range(number_of_requests(hub, folder, other, f"{repo_id}-count")):
        name = f"{repo_id}-{number}"
        holding(hub, name, folder)
        hub.faults = itertools.chain([""] * number, itertools.repeat(fault))
        with pytest.raises(CheckpointError, match=f"^{name}: ") as error:
            push_folder(other, name, with_results=True)
        hub.faults = iter(())
        states.append(the_state(hub, name, folder, other))
        assert commits(hub, name) == {"old": 2, "new": 3}[states[-1]]
        assert "\n" not in str(error.value)
        assert TOKEN not in str(error.value) + caplog.text
        if states[-1] == "new":
            assert "what has arrived is not sent twice" in str(error.value)
        push_folder(other, name, with_results=True)
        assert the_state(hub, name, folder, other) == "new"
        assert commits(hub, name) == 3
    assert set(states) == {"old", "new"}


@pytest.mark.parametrize("fault", ["lost before", "lost after", "500"])
def test_a_first_push_overcomes_faults_too(hub, folder, repo_id, waits, fault):
    before = len(hub.requests)
    push_folder(folder, f"{repo_id}-count")
    for number in range(len(hub.requests) - before):
        name = f"{repo_id}-{number}"
        hub.faults = iter([""] * number + [fault])
        push_folder(folder, name, with_results=True)
        assert hub.files(name) == pushed(folder)
        assert commits(hub, name) == 2


@pytest.mark.parametrize(
    ("fault", "words"), [("401", "set HF_TOKEN"), ("403", "may not write"), ("400", "refuses"), ("422", "refuses")]
)
def test_what_does_not_pass_is_one_line_at_once(hub, folder, other, repo_id, lfs, waits, fault, words):
    requests = number_of_requests(hub, folder, other, f"{repo_id}-count")
    waits.clear()
    for number in range(requests):
        name = f"{repo_id}-{number}"
        holding(hub, name, folder)
        hub.faults = iter([""] * number + [fault])
        with pytest.raises(CheckpointError) as error:
            push_folder(other, name, with_results=True)
        assert str(error.value).startswith(f"{name}: ")
        assert words in str(error.value)
        assert "\n" not in str(error.value)
        assert TOKEN not in str(error.value)
        assert error.value.__cause__ is None
    assert waits == []


def test_no_hub_at_all(hub, folder, repo_id, waits, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=f"^{repo_id}: the Hub does not answer .*; nothing was pushed$"):
        push_folder(folder, repo_id)
    assert [wait for wait in waits if wait] == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("name", ["not a name!", "a/b/c"])
def test_what_is_no_name(hub, folder, name):
    with pytest.raises(CheckpointError, match=r"is not the name of a Hub repository"):
        push_folder(folder, name)


def test_a_long_wait_is_left_to_the_user(hub, folder, repo_id, waits, monkeypatch):
    monkeypatch.setattr("modeling_vit_cls.hub.attempts.LONGEST_WAIT", 5.0)
    hub.faults = iter(["429"])
    with pytest.raises(CheckpointError, match="the Hub asks to wait 7 s; nothing was pushed"):
        push_folder(folder, repo_id)
    assert waits == []


def test_somebody_elses_commit_is_not_run_over(hub, folder, other, repo_id, waits, monkeypatch):
    push_folder(folder, repo_id)
    create_commit = huggingface_hub.HfApi.create_commit

    def late(api, *arguments, **keywords):
        """The other push lands between our reading and our commit."""
        monkeypatch.undo()
        monkeypatch.setattr(time, "sleep", waits.append)
        tiny_model(num_labels=7).push_to_hub(repo_id)
        return create_commit(api, *arguments, **keywords)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", late)
    with pytest.raises(CheckpointError, match="somebody else has committed to it meanwhile"):
        push_folder(other, repo_id)
    assert json.loads(hub.files(repo_id)["config.json"])["id2label"].keys() == {str(i) for i in range(7)}
    assert commits(hub, repo_id) == 3


def test_what_the_repository_ignores_is_said(hub, folder, repo_id):
    huggingface_hub.HfApi().create_repo(repo_id)
    hub.repositories[repo_id].commit({".gitignore": b"results.json"}, "ignore", "main")
    with pytest.raises(CheckpointError, match=r"did not accept results\.json as pushed; .* \.gitignore"):
        push_folder(folder, repo_id, with_results=True)


def test_a_text_with_a_token_is_not_sent(hub, folder, repo_id):
    (folder / "recipe.yaml").write_text(f"hub_token: {TOKEN}\n")
    before = len(hub.requests)
    with pytest.raises(CheckpointError, match=r"recipe\.yaml: holds a token of the Hub") as error:
        push_folder(folder, repo_id, with_results=True)
    assert TOKEN not in str(error.value)
    assert hub.requests[before:] == []


def test_a_folder_without_a_whole_checkpoint_is_refused(hub, folder, repo_id, tmp_path):
    before = len(hub.requests)
    with pytest.raises(CheckpointError, match="no such folder"):
        push_folder(tmp_path / "nowhere", repo_id)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        push_folder(folder, repo_id, with_results=True)
    assert hub.requests[before:] == []


def test_the_verb_plans_pushes_and_has_nothing_left_to_do(hub, folder, repo_id, capsys):
    before = len(hub.requests)
    assert main(["push", str(folder), repo_id, "--dry_run", "--json"]) == 0
    assert writes(hub, before) == []
    plan = json.loads(capsys.readouterr().out)
    assert (plan["dry_run"], plan["is_needed"], plan["creates_repository"]) == (True, True, True)
    assert {change["path"] for change in plan["changes"]} == set(pushed(folder))

    assert main(["push", str(folder), repo_id, "--private", "--message", "Mine"]) == 0
    shown = capsys.readouterr()
    assert f"{repo_id}: pushed: {hub.url}/{repo_id}/commit/" in shown.out
    assert hub.repositories[repo_id].private
    assert main(["push", str(folder), repo_id]) == 0
    assert "holds all of it already" in capsys.readouterr().out
    assert commits(hub, repo_id) == 2
    assert TOKEN not in shown.out + shown.err


def test_the_verb_pushes_the_card_under_the_repositorys_name(hub, folder, repo_id, capsys):
    (folder / "README.md").unlink()
    write_card(folder)
    before = {name: (folder / name).read_bytes() for name in ("README.md", "config.json")}
    assert main(["push", str(folder), repo_id, "--revision", "v2"]) == 0
    assert f'from_pretrained("{repo_id}")' in hub.files(repo_id, "v2")["README.md"].decode()
    assert before == {name: (folder / name).read_bytes() for name in before}, "the folder is as it was"


def test_the_verb_fails_in_one_line(hub, folder, repo_id, capsys, tmp_path):
    assert main(["push", str(tmp_path / "nowhere"), repo_id]) == 1
    assert capsys.readouterr().err == f"vit-cls: {tmp_path / 'nowhere'}: there is no such folder\n"
    hub.faults = iter(["403"])
    assert main(["push", str(folder), repo_id]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"vit-cls: {repo_id}: the token may not write to it")
    assert error.count("\n") == 1
    assert TOKEN not in error
    with pytest.raises(SystemExit) as stopped:
        main(["push", str(folder)])
    assert stopped.value.code == 2
