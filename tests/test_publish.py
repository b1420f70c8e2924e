"""`vit-cls publish`: all models of a list or none, a collection of them, and a second run that goes on."""

import itertools
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml
from conftest import tiny_model
from local_hub import Repository

from hub_scripts.__main__ import main
from hub_scripts.zoo import read_zoo
from modeling_vit_cls import ConfigError
from modeling_vit_cls.cards import write_card

pytestmark = pytest.mark.world

TOKEN = os.environ["HF_TOKEN"]
NAMES = ["first", "second", "third"]
ZOO = {
    "organisation": "zoo-org",
    "title": "A small zoo",
    "description": "Two animals and a third.",
    "models": [{"folder": f"models/{name}", "name": f"vit-{name}"} for name in NAMES],
}
IDS = [f"zoo-org/vit-{name}" for name in NAMES]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Three classifiers of different sizes with results and cards."""
    folder = tmp_path_factory.mktemp("zoo") / "models"
    for number, name in enumerate(NAMES):
        tiny_model(num_labels=3 + number).save_pretrained(folder / name)
        (folder / name / "results.json").write_text(json.dumps({"metrics": {"accuracy": 0.5}}))
        write_card(folder / name)
    return folder


@pytest.fixture
def place(models, tmp_path, hub):
    """A folder with the list and its models, and a Hub that holds nothing."""
    shutil.copytree(models, tmp_path / "models")
    write(tmp_path)
    hub.faults = iter(())
    hub.repositories.clear()
    hub.collections.clear()
    yield tmp_path
    hub.faults = iter(())
    hub.repositories.clear()
    hub.collections.clear()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def write(place: Path, **changes) -> None:
    (place / "zoo.yaml").write_text(yaml.safe_dump({**ZOO, **changes}))


def publish(place: Path, capsys, *options: str) -> tuple[int, list[str], str]:
    """Exit status, lines of the report, and the error, without a token in either."""
    status = main(["publish", str(place / "zoo.yaml"), *options])
    shown = capsys.readouterr()
    assert TOKEN not in shown.out + shown.err
    assert shown.err.count("\n") == (status != 0)
    return status, shown.out.splitlines(), shown.err


def states(lines: list[str]) -> list[str]:
    """The state in each line of a report."""
    return [re.split(r"  +", line)[0] for line in lines]


def commits(hub) -> dict[str, int]:
    """The number of commits to each repository, without the one that creates it."""
    return {repo_id: len(repository.history) - 1 for repo_id, repository in hub.repositories.items()}


def listed(hub) -> list[str]:
    """The models of the only collection."""
    (collection,) = hub.collections.values()
    return [item["id"] for item in collection["items"]]


def changes(hub, since: int) -> list[str]:
    return [path for method, path in hub.requests[since:] if method not in ("GET", "HEAD")]


def test_all_models_are_pushed_and_listed_and_a_second_run_changes_nothing(place, hub, capsys):
    status, lines, _ = publish(place, capsys)
    assert (status, states(lines)) == (0, ["checked"] * 3 + ["pushed"] * 3 + ["updated"])
    assert commits(hub) == dict.fromkeys(IDS, 1)
    for name, repo_id in zip(NAMES, IDS):
        files = hub.files(repo_id)
        assert files["model.safetensors"] == (place / "models" / name / "model.safetensors").read_bytes()
        assert f'from_pretrained("{repo_id}")' in files["README.md"].decode()
    (collection,) = hub.collections.values()
    assert (collection["title"], collection["description"]) == (ZOO["title"], ZOO["description"])
    assert (listed(hub), collection["private"]) == (IDS, False)
    assert collection["slug"] in lines[-1]

    before = len(hub.requests)
    status, lines, _ = publish(place, capsys)
    assert (status, states(lines)) == (0, ["checked"] * 3 + ["unchanged"] * 4)
    assert changes(hub, before) == []


def test_a_dry_run_shows_what_a_run_does_and_changes_nothing(place, hub, capsys):
    before = len(hub.requests)
    status, lines, _ = publish(place, capsys, "--dry_run")
    assert (status, states(lines)) == (0, ["checked"] * 4)
    assert all(f"{repo_id}: " in line and "in a new repository" in line for repo_id, line in zip(IDS, lines))
    assert lines[-1].endswith("'A small zoo': models to add: 3, in a new collection")
    assert changes(hub, before) == []
    publish(place, capsys)
    before = len(hub.requests)
    status, lines, _ = publish(place, capsys, "--dry_run", "--json")
    report = json.loads(lines[0])
    assert report["dry_run"]
    assert [model["name"] for model in report["models"]] == IDS
    assert not any(model["creates_repository"] for model in report["models"])
    assert (report["collection"]["adds"], report["collection"]["creates_collection"]) == ([], False)
    assert changes(hub, before) == []


def test_the_collection_is_brought_up_to_date_and_keeps_what_others_added(place, hub, capsys):
    publish(place, capsys)
    hub.repositories["zoo-org/another"] = Repository()
    (collection,) = hub.collections.values()
    others = [{"id": "zoo-org/another", "type": "model", "_id": f"{n}", "position": 0} for n in range(4)]
    collection["items"] = [*others, collection["items"][2]]  # a list of collections shows the first four
    write(place, description="Another text.")
    status, lines, _ = publish(place, capsys)
    assert (status, states(lines)[-1]) == (0, "updated")
    assert listed(hub) == ["zoo-org/another"] * 4 + [IDS[2], IDS[0], IDS[1]]
    assert collection["description"] == "Another text."
    write(place, description=None)
    assert states(publish(place, capsys)[1])[-1] == "unchanged"
    assert commits(hub)[IDS[0]] == 1


def test_private_is_for_all(place, hub, capsys):
    write(place, private=True)
    assert publish(place, capsys)[0] == 0
    (collection,) = hub.collections.values()
    assert collection["private"]
    assert all(repository.private for repository in hub.repositories.values())
    collection["private"] = False
    status, _, error = publish(place, capsys)
    assert status == 1
    assert "is public; make it private in its settings" in error


def damage_tensor(file: Path) -> None:
    """Change the last byte of the last tensor."""
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


BROKEN = {
    "no card": (lambda folder: (folder / "README.md").unlink(), "has no README.md"),
    "no folder": (shutil.rmtree, "there is no such folder"),
    "a tensor that changed": (
        lambda folder: damage_tensor(folder / "model.safetensors"),
        "differs from what was saved",
    ),
    "results that cannot be read": (lambda folder: (folder / "results.json").write_text("{"), "results.json"),
    "a token": (
        lambda folder: (folder / "recipe.yaml").write_text(f"hub_token: {TOKEN}\n"),
        "holds a token of the Hub",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_nothing_is_pushed_if_one_model_is_not_fit(case, place, hub, capsys):
    damage, words = BROKEN[case]
    damage(place / "models" / "second")
    before = len(hub.requests)
    for options in ((), ("--dry_run",), ("--json",)):
        status, lines, error = publish(place, capsys, *options)
        assert status == 1
        assert "1 of 3 models cannot be published, and nothing was pushed" in error
        assert words in error
        if "--json" in options:
            assert [model["state"] for model in json.loads(lines[0])["models"]] == ["checked", "refused", "checked"]
        else:
            assert states(lines) == ["checked", "refused", "checked"]
    assert changes(hub, before) == []


def test_a_public_repository_is_found_before_the_first_push(place, hub, capsys):
    write(place, private=True)
    hub.repositories[IDS[2]] = Repository()
    before = len(hub.requests)
    status, lines, error = publish(place, capsys)
    assert (status, states(lines)) == (1, ["checked", "checked", "refused"])
    assert f"{IDS[2]}: is public" in error
    assert changes(hub, before) == []


def number_of_requests(place, hub, capsys) -> int:
    before = len(hub.requests)
    publish(place, capsys)
    number = len(hub.requests) - before
    hub.repositories.clear()
    hub.collections.clear()
    return number


@pytest.mark.parametrize("fault", ["403", "500", "lost before", "lost after"])
def test_a_second_run_goes_on_wherever_the_first_stopped(fault, place, hub, capsys):
    """From each seventh request on, the Hub answers no more; the report is compared with what it holds."""
    for number in range(0, number_of_requests(place, hub, capsys), 7):
        hub.faults = itertools.chain([""] * number, itertools.repeat(fault))
        status, lines, error = publish(place, capsys)
        hub.faults = iter(())
        assert status == 1
        last = {repo_id: state for state, line in zip(states(lines), lines) for repo_id in IDS if repo_id in line}
        done = [repo_id for repo_id in IDS if last.get(repo_id) == "pushed"]
        if "refused" not in last.values():
            assert f"On the Hub: {', '.join(done) or 'none'}; not done: " in error
            assert "run the command again to go on" in error
        for repo_id in done:
            assert "model.safetensors" in hub.files(repo_id)
        if fault != "lost after":
            whole = [repo_id for repo_id in hub.repositories if "model.safetensors" in hub.files(repo_id)]
            assert whole == done
        assert publish(place, capsys)[0] == 0
        assert commits(hub) == dict.fromkeys(IDS, 1)
        assert listed(hub) == IDS
        hub.repositories.clear()
        hub.collections.clear()


def test_a_collection_that_fails_leaves_the_models_on_the_hub(place, hub, capsys):
    before = len(hub.requests)
    publish(place, capsys)
    number = [path for _, path in hub.requests[before:]].index("/api/collections")
    hub.repositories.clear()
    hub.collections.clear()
    hub.faults = iter([""] * number + ["403"])
    status, lines, error = publish(place, capsys)
    assert (status, states(lines)) == (1, ["checked"] * 3 + ["pushed"] * 3 + ["failed"])
    assert "collection 'A small zoo' of zoo-org: the token may not write to it" in error
    assert f"On the Hub: {', '.join(IDS)}; not done: collection 'A small zoo'" in error
    status, lines, _ = publish(place, capsys)
    assert (status, states(lines)) == (0, ["checked"] * 3 + ["unchanged"] * 3 + ["updated"])
    assert listed(hub) == IDS


@pytest.mark.parametrize("fault", ["500", "429", "lost before", "lost after"])
def test_one_fault_anywhere_is_overcome(fault, place, hub, capsys):
    for number in range(1, number_of_requests(place, hub, capsys), 5):
        hub.faults = iter([""] * number + [fault])
        status, _, error = publish(place, capsys)
        assert (status, error) == (0, "")
        assert commits(hub) == dict.fromkeys(IDS, 1)
        assert listed(hub) == IDS
        hub.repositories.clear()
        hub.collections.clear()


def test_a_dry_run_needs_no_network(place, hub, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    status, lines, _ = publish(place, capsys, "--dry_run")
    assert (status, states(lines)) == (0, ["checked"] * 3)
    assert all("the Hub could not be asked" in line for line in lines)
    status, lines, error = publish(place, capsys)
    assert (status, states(lines)) == (1, ["checked"] * 3 + ["failed"] + ["not done"] * 3)
    assert "On the Hub: none; not done: " in error


WRONG = [
    (
        {"organization": "x", "organisation": None},
        "organization='x': {}: is not a field of the list; did you mean",
    ),
    ({"organisation": None}, "organisation=None: {}: is needed"),
    ({"title": 3}, "title=3: {}: must be a text"),
    ({"description": "x" * 151}, "at most 150 characters"),
    ({"private": "yes"}, "private='yes': {}: must be true or false"),
    ({"models": []}, "models=[]: {}: must be a list of models"),
    ({"models": ["x"]}, "models[0]='x': {}: must be a mapping of folder, name"),
    ({"models": [{"folder": "x"}]}, "models[0].name=None: {}: is needed"),
    ({"models": [{"folder": "x", "name": "a", "revison": "b"}]}, "models[0].revison='b': {}: is not a field"),
    (
        {"models": [{"folder": "x", "nam": "a"}]},
        "models[0].nam='a': {}: is not a field of the list; did you mean",
    ),
    ({"models": [{"folder": 1, "name": "a"}]}, "models[0].folder=1: {}: must be a text"),
    ({"models": [{"folder": "x", "name": "a b"}]}, "models[0].name='a b': {}: 'zoo-org/a b' must be the name of a rep"),
    ({"models": [{"folder": "x", "name": "b/a"}]}, "models[0].name='b/a'"),
    ({"models": [{"folder": "x", "name": "a"}] * 2}, "models[1].name='a': {}: is the name of an earlier model too"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=str)
def test_a_wrong_list_is_named_by_file_and_field(fields, message, place, hub, capsys):
    write(place, **fields)
    before = len(hub.requests)
    status, lines, error = publish(place, capsys)
    assert (status, lines) == (1, [])
    assert message.format(place / "zoo.yaml") in error
    assert hub.requests[before:] == []


@pytest.mark.parametrize("text", ["- a", "a: [", "", "!!python/object:x {}"])
def test_what_is_no_list_is_said(text, place):
    (place / "zoo.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^list=.*zoo\.yaml: "):
        read_zoo(place / "zoo.yaml")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        read_zoo(place / "nowhere.yaml")


def test_folders_are_beside_the_list(place):
    (place / "elsewhere").mkdir()
    models = [{"folder": "../models/first", "name": "a"}, {"folder": str(place / "models"), "name": "b"}]
    write(place, models=models)
    shutil.move(place / "zoo.yaml", place / "elsewhere")
    zoo = read_zoo(place / "elsewhere" / "zoo.yaml")
    assert zoo.models[0].folder.resolve() == place / "models" / "first"
    assert zoo.models[1].folder == place / "models"
