"""A push holds card, pictures and `.eval_results` of one results.json, whatever has changed in the folder since."""

import json
import re

import numpy as np
import yaml
from huggingface_hub import ModelCard

from hub_scripts.__main__ import main
from modeling_vit_cls.cards import write_card
from modeling_vit_cls.cards.pictures import confusion_matrix
from modeling_vit_cls.names import EVAL_RESULTS

MEASURED = {
    "dataset": {"name": "someone/flowers", "source": "hub", "split": "test", "examples": 5},
    "metrics": {"accuracy": 1.0},
    "confusion_matrix": np.eye(5, dtype=int).tolist(),
}


def shown(files: dict[str, bytes]) -> list[float]:
    """The accuracy that a repository's card, its table, and `.eval_results` show."""
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results is not None
    (table,) = re.findall(r"\| accuracy \| ([\d.]+) \|", card.text)
    return [card.data.eval_results[0].metric_value, float(table), yaml.safe_load(files[EVAL_RESULTS])[0]["value"]]


def test_card_pictures_and_eval_results_are_pushed_from_one_results_json(hub, folder, model):
    repo_id = "user/of-one-results"
    (folder / "results.json").write_text(json.dumps(MEASURED))
    write_card(folder, [np.zeros((8, 8, 3), np.uint8)], model=model)
    labels = [str(model.config.id2label[number]) for number in range(5)]
    (folder / "training_curve.png").write_bytes(b"of another run")  # the card does not show it
    assert main(["push", str(folder), repo_id]) == 0
    assert shown(hub.files(repo_id)) == [1.0] * 3
    assert "training_curve.png" not in hub.files(repo_id)

    # Measured again, and the card not written again: all three are renewed.
    matrix = np.roll(np.eye(5, dtype=int), 1, axis=1).tolist()
    again = {**MEASURED, "metrics": {"accuracy": 0.25}, "confusion_matrix": matrix}
    (folder / "results.json").write_text(json.dumps(again))
    before = {entry: entry.read_bytes() for entry in folder.rglob("*") if entry.is_file()}
    assert main(["push", str(folder), repo_id]) == 0
    files = hub.files(repo_id)
    assert shown(files) == [0.25] * 3
    assert json.loads(files["results.json"]) == again
    assert files["confusion_matrix.png"] == confusion_matrix(matrix, labels)
    assert files["attention.png"] == (folder / "attention.png").read_bytes()
    assert before == {entry: entry.read_bytes() for entry in before}, "the folder is as it was"

    # A folder that has no card renews none of them.
    card = (folder / "README.md").read_bytes()
    (folder / "README.md").unlink()
    (folder / "results.json").write_text(json.dumps({**MEASURED, "metrics": {"accuracy": 0.5}}))
    assert main(["push", str(folder), repo_id]) == 0
    assert {**hub.files(repo_id), "results.json": b""} == {**files, "results.json": b""}

    # What the results no longer hold goes, in the commit that brings the new card.
    (folder / "README.md").write_bytes(card)
    (folder / "results.json").write_text(json.dumps({"metrics": {"accuracy": 0.75}, "dataset": {"name": "digits"}}))
    count = len(hub.repositories[repo_id].history)
    assert main(["push", str(folder), repo_id]) == 0
    assert len(hub.repositories[repo_id].history) == count + 1
    assert not {EVAL_RESULTS, "confusion_matrix.png"} & set(hub.files(repo_id))
    assert "| accuracy | 0.7500 |" in hub.files(repo_id)["README.md"].decode()

    # A card that somebody edited goes with the files that lie beside it, all of the first results.
    (folder / "README.md").write_bytes(card + b"Mine.")
    assert main(["push", str(folder), repo_id]) == 0
    assert shown(hub.files(repo_id)) == [1.0] * 3
