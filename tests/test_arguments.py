"""TrainingArguments: every field means what its name says, in Python as on the command line, and as in transformers."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import transformers
import yaml
from conftest import tiny_model
from transformers.trainer_utils import IntervalStrategy, SchedulerType

from hub_scripts.__main__ import main
from modeling_vit_cls import ConfigError
from modeling_vit_cls.training import TrainingArguments
from modeling_vit_cls.training.foreign import IDLE, INSTEAD, RENAMED
from modeling_vit_cls.training.optimizer import make_optimizer, make_schedule
from modeling_vit_cls.training.packaged import find_recipe, packaged_recipes
from modeling_vit_cls.training.recipe import DataArguments, EvaluationArguments, ModelArguments, read_recipe

pytestmark = pytest.mark.world


def choices(part, name) -> tuple[str, ...]:
    """The values that a field may have, where its annotation lists them."""
    kind = get_type_hints(part)[name]
    return next((get_args(one_kind) for one_kind in (kind, *get_args(kind)) if get_origin(one_kind) is Literal), ())


OWN = {field.name for field in dataclasses.fields(TrainingArguments)}
CHOSEN = [
    (part, field.name)
    for part in (TrainingArguments, ModelArguments, DataArguments, EvaluationArguments)
    for field in dataclasses.fields(part)
    if choices(part, field.name)
]
RECIPE = "{output_dir: out, dataset_name: digits}"


def recipe_of(tmp_path, text: str, *words: str):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return read_recipe(file, words)


def one(part, name, value):
    """A part of a recipe with one field set."""
    needed = (
        {"output_dir": "x"} if part is TrainingArguments else {"dataset_name": "x"} if part is DataArguments else {}
    )
    return getattr(part(**{**needed, name: value}), name)


@pytest.mark.parametrize(("part", "name"), CHOSEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_value_that_is_not_among_the_choices_is_refused_by_name_everywhere(part, name, tmp_path):
    for value in choices(part, name):
        recipe_of(tmp_path, RECIPE, f"--{name}", value)
    for wrong in ("adamw_torhc", "", "None", 1, True, [], *([] if name == "readout" else [None])):
        with pytest.raises(ConfigError, match="must be one of") as error:
            one(part, name, wrong)
        assert error.value.field == name
    with pytest.raises(ConfigError, match=f"{name}='adamw_torhc': must be one of"):
        recipe_of(tmp_path, RECIPE, f"--{name}", "adamw_torhc")
    with pytest.raises(ConfigError, match=f"{name}='adamw_torhc': .*recipe.yaml: must be one of"):
        recipe_of(tmp_path, f"{{output_dir: out, dataset_name: digits, {name}: adamw_torhc}}")


WRONG = ["3", "true", True, 2.5, -1, 10**400, math.nan, math.inf, None, [], {}, [1], b"x", object(), np.array([1, 2])]


def test_a_value_of_any_type_is_taken_for_what_it_is_or_refused_by_the_name_of_its_field(tally):
    kinds = {"int": int, "float": int | float, "bool": bool, "str": str | bool}  # resume_from_checkpoint: true
    for field in dataclasses.fields(TrainingArguments):
        kind = TrainingArguments.__annotations__[field.name]
        for value in WRONG:
            outcome = tally.attempt(lambda name=field.name, value=value: one(TrainingArguments, name, value))
            if isinstance(outcome, ConfigError):
                assert outcome.field in (field.name, "load_best_model_at_end")  # which needs an eval_strategy
                tally.note("refused by name")
            else:
                name = str(getattr(kind, "__name__", kind)).split(" | ")[0]
                expected = kinds.get(name, object)
                assert outcome is None or isinstance(outcome, expected), (field.name, value, outcome)
                assert not (expected in (int, int | float) and isinstance(outcome, bool))
                tally.note("taken")
    assert tally.outcomes.total() == len(OWN) * len(WRONG)


def test_every_argument_of_transformers_is_known(tally):
    """Of the installed transformers: each is ours, another name, ignored, or refused with a remedy."""
    assert not (IDLE & set(INSTEAD)) | (IDLE & OWN) | (set(INSTEAD) & OWN) | (set(RENAMED) & OWN)
    for field in dataclasses.fields(transformers.TrainingArguments):
        name = field.name
        known = [
            kind
            for kind, names in (("ours", OWN), ("renamed", RENAMED), ("idle", IDLE), ("refused", INSTEAD))
            if name in names
        ]
        assert len(known) == 1, name
        tally.note(known[0])
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        if name not in ("optim", "lr_scheduler_type"):
            TrainingArguments(
                **{"output_dir": "x", name: default}
            )  # transformers' own default changes nothing, or means the same
        if known == ["refused"]:
            with pytest.raises(ConfigError, match="is not an argument here: ") as error:
                TrainingArguments("x", **{name: "another"})
            assert error.value.field == name
    assert tally.outcomes["ours"] >= 30


def test_names_of_other_versions_are_the_same_argument(caplog):
    for old, new in RENAMED.items():
        value = {"warmup_ratio": 0.1, "evaluation_strategy": "epoch", "push_to_hub_model_id": "me/vit"}.get(old, 1)
        value = True if old == "activation_checkpointing" else value
        assert TrainingArguments("x", **{old: value}) == TrainingArguments("x", **{new: value})
        with pytest.raises(ConfigError, match=f"another name of {new}"):
            TrainingArguments("x", **{old: value, new: value})
    with pytest.raises(ConfigError, match="warmup_ratio=1.0: must be a share"):
        TrainingArguments("x", warmup_ratio=1.0)
    TrainingArguments("x", remove_unused_columns=False, dataloader_pin_memory=False, do_train=None)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "remove_unused_columns, dataloader_pin_memory"
    ]


def test_an_unknown_argument_is_refused_with_the_nearest_one(tmp_path):
    with pytest.raises(ConfigError, match="learning_rte=1: .*did you mean 'learning_rate'"):
        TrainingArguments("x", learning_rte=1)
    for option, remedy in (("fp16", "give bf16=True"), ("evaluation_strategy", "is called eval_strategy here")):
        with pytest.raises(ConfigError, match=f"--{option}='true': .*{remedy}"):
            recipe_of(tmp_path, RECIPE, f"--{option}", "true")
    with pytest.raises(ConfigError, match=r"fp16=True: .*recipe\.yaml: .*give bf16=True"):
        recipe_of(tmp_path, "{output_dir: out, dataset_name: digits, fp16: true}")
    renamed = recipe_of(tmp_path, "{output_dir: out, dataset_name: digits, evaluation_strategy: epoch}")
    assert renamed.training.eval_strategy == "epoch"


def test_forms_that_transformers_takes_are_one_form_here():
    taken = {
        "num_train_epochs": [(3, 3), (3.0, 3.0), (0.5, 0.5), (np.float32(2), 2.0), (np.int64(2), 2)],
        "per_device_train_batch_size": [(8.0, 8), (np.int64(8), 8)],
        "report_to": [(None, []), ("none", []), (["none"], []), ("tensorboard", ["tensorboard"]), ((), [])],
        "save_total_limit": [(0, None), (-1, None), (2, 2), (None, None)],
        "eval_strategy": [(IntervalStrategy.EPOCH, "epoch")],
        "lr_scheduler_type": [(SchedulerType.LINEAR, "linear"), ("constant_with_warmup", "constant")],
        "optim": [("adamw_torch", "adamw"), ("adamw_torch_fused", "adamw"), ("sgd", "sgd")],
        "resume_from_checkpoint": [(None, False), (True, True), ("true", True), ("a/checkpoint-3", "a/checkpoint-3")],
        "metric_for_best_model": [(None, "loss"), ("eval_loss", "eval_loss")],
        "output_dir": [(Path("a/b"), "a/b"), (None, "trainer_output")],
        "disable_tqdm": [(None, False), (np.bool_(True), True)],
    }
    for name, pairs in taken.items():
        for value, expected in pairs:
            found = one(TrainingArguments, name, value)
            assert (found, type(found)) == (expected, type(expected)), name
    assert set(TrainingArguments("x", report_to="all").report_to) == set(
        TrainingArguments("x", report_to=["all"]).report_to
    )
    assert TrainingArguments("x", report_to="all").report_to
    with pytest.raises(ConfigError, match="report_to='wandbb': .*did you mean 'wandb'"):
        TrainingArguments("x", report_to=["wandbb"])


@dataclasses.dataclass
class Mine(TrainingArguments):
    notes: dict | str | None = None
    when: complex = 1j


def test_arguments_are_copied_extended_and_parsed_as_those_of_transformers(tmp_path):
    arguments = TrainingArguments("x", num_train_epochs=2, evaluation_strategy="epoch", resume_from_checkpoint=True)
    assert dataclasses.replace(arguments, num_train_epochs=5).num_train_epochs == 5
    assert dataclasses.replace(arguments) == arguments
    assert TrainingArguments(**arguments.to_dict()) == arguments
    assert Mine("x", notes={"a": 1}, seed=3.0).seed == 3
    with pytest.raises(ConfigError, match="seed='3'"):
        Mine("x", seed="3")
    words = ["--output_dir", "x", "--num_train_epochs", "2", "--eval_strategy", "epoch", "--resume_from_checkpoint"]
    (parsed,) = transformers.HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(words)
    assert parsed == arguments


def test_steps_are_numbers_or_shares_of_all_and_evaluations_follow_the_log():
    assert TrainingArguments("x", eval_strategy="steps", logging_steps=7).eval_steps == 7
    assert TrainingArguments("x", eval_strategy="steps", eval_steps=0, logging_steps=0.1).eval_steps == 0.1
    for name in ("logging_steps", "eval_steps", "save_steps", "warmup_steps"):
        with pytest.raises(ConfigError, match=f"{name}=2.5: must be a whole number of updates"):
            TrainingArguments("x", eval_strategy="steps", **{name: 2.5})
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    for evaluate, save, good in ((0.1, 0.2, True), (0.1, 0.25, False), (0.1, 10, False), (5, 10, True), (5, 12, False)):
        if good:
            TrainingArguments("x", eval_steps=evaluate, save_steps=save, **best)
        else:
            with pytest.raises(ConfigError, match="a multiple of eval_steps"):
                TrainingArguments("x", eval_steps=evaluate, save_steps=save, **best)


def test_a_number_that_is_too_large_is_refused_with_the_range():
    for name, value in (("learning_rate", 1e30), ("learning_rate", float("inf")), ("seed", -(2**60))):
        with pytest.raises(ConfigError, match=rf"{name}=.*number between -2\*\*53 and 2\*\*53"):
            TrainingArguments("x", **{name: value})


@pytest.mark.parametrize("share", [0, 0.05, 0.1, 0.3, 0.7, 0.999, 1, 5])
def test_a_share_of_warm_up_is_rounded_up_as_in_transformers(share):
    for total in (1, 5, 7, 10, 12, 30, 63):
        theirs = transformers.TrainingArguments("x", use_cpu=True)
        theirs.warmup_steps, theirs.warmup_ratio = (share, 0.0) if share >= 1 else (0, share)
        if not hasattr(transformers.TrainingArguments, "warmup_ratio"):
            theirs.warmup_steps = share
        warmup = theirs.get_warmup_steps(total)
        schedule = make_schedule(TrainingArguments("x", warmup_steps=share, learning_rate=1.0), total)
        rates = [float(np.asarray(schedule(step))) for step in range(warmup + 1)]
        assert rates == pytest.approx([step / max(warmup, 1) for step in range(warmup)] + [1.0], abs=1e-6)


def test_each_name_of_an_optimiser_is_that_optimiser():
    params = tiny_model().params
    for name, moments in {"adamw": "mu", "adamw_torch": "mu", "adamw_hf": "mu", "sgd": "trace"}.items():
        arguments = TrainingArguments("x", optim=name)
        assert moments in str(make_optimizer(arguments, params, 10).init(params))
    arguments.optim = "lion"
    with pytest.raises(ConfigError, match="optim='lion'"):
        make_optimizer(arguments, params, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: [1, 2]", "learning_rate=.*must be one value, not a list"),
        ("run_name: yes", "run_name=True: .*quote it"),
        ("learning_rate: fast", r"learning_rate='fast': .*recipe\.yaml: invalid float value"),
        ("per_device_train_batch_size: yes", "per_device_train_batch_size='True'"),
        ("learning_rate: .nan", "learning_rate=nan: must be a number"),
        ("max_train_samples: 0", "max_train_samples=0: must be positive"),
        ("2: 3", "2=3: .*is not an argument"),
        (
            "seed: 1\nbf16: true\nseed: 2",
            r"cannot be read as YAML \(line 5: the key 'seed' is given twice, first in line 3: keep one\)",
        ),
        ("config_overrides: {num_labels: 3, num_labels: 4}", "line 3: the key 'num_labels' is given twice, first in"),
        ("config_overrides: {a: 2026-01-01}", "config_overrides={'a': .*must have only texts, finite numbers"),
        ("config_overrides: {2026-01-01: a}", "config_overrides={.*must have only texts"),
        ("config_overrides: {a: !!binary aGVsbG8=}", "config_overrides={'a': .*must have only texts"),
        ("config_overrides: {a: !!set {b, c}}", "config_overrides={'a': .*must have only texts"),
        ("config_overrides: {a: .nan}", "config_overrides={'a': nan}: .*must have only texts"),
        ("config_overrides: &a {a: *a}", "config_overrides={'a': {...}}: .*must have only texts"),
    ],
)
def test_what_yaml_makes_of_a_value_is_not_taken_for_another(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        recipe_of(tmp_path, f"output_dir: out\ndataset_name: digits\n{text}")


def test_what_yaml_merges_is_no_key_given_twice(tmp_path):
    text = (
        "about: &defaults {seed: 3, learning_rate: 1e-3}\n<<: *defaults\noutput_dir: out\ndataset_name: digits\nseed: 4"
    )
    training = recipe_of(tmp_path, text).training
    assert (training.seed, training.learning_rate) == (4, 1e-3)


@pytest.mark.parametrize("number", ["1e-6", "1.0e-6", "0.000001", "1E-6", ".1e-5"])
def test_numbers_of_config_overrides_are_numbers_in_any_form_and_texts_stay_texts(number, tmp_path):
    overrides = f"{{layer_norm_eps: {number}, id2label: {{0: '1e-6', 1: b}}}}"
    text = "output_dir: 1e-3\ndataset_name: digits\ndataset_revision: 123e4567\nrun_name: 1e-6\n"
    recipe = recipe_of(tmp_path, f"{text}config_overrides: {overrides}")
    assert (recipe.training.output_dir, recipe.training.run_name) == ("1e-3", "1e-6")
    assert recipe.data.dataset_revision == "123e4567"
    again = recipe_of(tmp_path, yaml.safe_dump(recipe.to_dict()))
    given = recipe_of(tmp_path, text, "--config_overrides", overrides)
    for one in (recipe, again, given):
        assert one.model.overrides["layer_norm_eps"] == 1e-6
        assert list(one.model.overrides["id2label"].values()) == ["1e-6", "b"]
    assert again == recipe


@pytest.mark.parametrize("folder", ["", " "])
def test_an_empty_folder_name_is_refused(folder, tmp_path):
    rule = "output_dir=.*must not be empty"
    with pytest.raises(ConfigError, match=rule):
        TrainingArguments(folder)
    with pytest.raises(ConfigError, match=rule):
        recipe_of(tmp_path, "{output_dir: out, dataset_name: digits}", "--output_dir", folder)


def test_a_negative_number_on_the_command_line_is_a_value(tmp_path):
    text = "{output_dir: out, dataset_name: digits}"
    with pytest.raises(ConfigError, match=r"learning_rate=-0\.0001: must be positive"):
        recipe_of(tmp_path, text, "--learning_rate", "-1e-4")
    assert recipe_of(tmp_path, text, "--max_steps", "-1", "--seed", "3").training.max_steps == -1
    with pytest.raises(ConfigError, match="learning_rat.*did you mean --learning_rate"):
        recipe_of(tmp_path, text, "--learning_rat", "-1e-4")


def test_words_that_yaml_reads_as_false_and_empty_lists_are_taken(tmp_path):
    text = (
        "output_dir: 2026-01-01\ndataset_name: digits\nsave_strategy: no\neval_strategy: no\nreport_to: []\nmetrics: []"
    )
    recipe = recipe_of(tmp_path, text)
    assert (recipe.training.save_strategy, recipe.training.eval_strategy) == ("no", "no")
    assert (recipe.training.report_to, recipe.evaluation.metrics) == ([], [])
    assert recipe.training.output_dir == "2026-01-01"


def test_from_scratch_on_ones_own_images_is_one_command():
    fine_tuned = read_recipe("fine_tune", ["--dataset_name", "photos"])
    assert fine_tuned.model.model_name_or_path == "google/vit-base-patch16-224"
    scratch = read_recipe("fine_tune", ["--variant", "vit_cls_tiny_patch16_224", "--dataset_name", "photos"])
    assert (scratch.model.variant, scratch.model.model_name_or_path) == ("vit_cls_tiny_patch16_224", None)
    assert scratch.training == fine_tuned.training
    for words in (["--model_name_or_path", "null"], ["--model-name-or-path=null"]):
        assert read_recipe("fine_tune", words).model.model_name_or_path is None
    with pytest.raises(ConfigError, match="not both"):
        read_recipe("fine_tune", ["--variant", "a", "--model_name_or_path", "b"])


def test_the_command_line_unsets_what_contradicts_it_in_the_recipe(tmp_path):
    text = "{output_dir: out, dataset_name: digits, variant: a, learning_rate: 0.5}"
    other = recipe_of(tmp_path, text, "--model_name_or_path", "b")
    assert (other.model.variant, other.model.model_name_or_path) == (None, "b")
    assert recipe_of(tmp_path, text, "--learning_rate", "null").training.learning_rate == 5e-4
    with pytest.raises(ConfigError, match="output_dir=None: is needed"):
        recipe_of(tmp_path, text, "--output_dir", "null")


def test_recipes_of_the_package_have_names():
    names = [recipe.stem for recipe in packaged_recipes()]
    assert "fine_tune" in names
    for name in names:
        assert yaml.safe_load(find_recipe(name).read_text())
        read_recipe(name)
    with pytest.raises(ConfigError, match="recipe='fine_tuen': .*did you mean 'fine_tune'"):
        find_recipe("fine_tuen")


def test_help_is_the_recipes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "mine.yaml").write_text("{dataset_name: photos, bf16: true, learning_rate: 0.25, scan_layers: false}")
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(tmp_path / "mine.yaml"), "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: vit-cls train {tmp_path / 'mine.yaml'} [--FIELD VALUE ...]")
    text = " ".join(text.split())
    lines = {entry.split()[0].rstrip(","): entry for entry in re.split(r"(?<!,|s) (?=--)", text)}
    assert "default: photos" in lines["--dataset_name"]
    assert "default: 0.25" in lines["--learning_rate"]
    assert "default: True" in lines["--bf16"]
    assert "default: False" in lines["--scan_layers"]
    assert "Needed: the recipe has none." in lines["--output_dir"]
    assert "default" not in lines["--output_dir"]
    assert lines["--max_train_samples"].startswith("--max_train_samples N Train on")
    assert lines["--bf16"].startswith("--bf16 [BOOL] Compute")
    assert "--max-train-samples" not in text
    assert "default: None" not in text
    assert (
        read_recipe(tmp_path / "mine.yaml", ["--output-dir=x", "--max-train-samples", "7"]).data.max_train_samples == 7
    )
    with pytest.raises(SystemExit) as stopped:
        main(["train"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("the following arguments are required: RECIPE\n")
