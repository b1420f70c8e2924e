"""The command line as people type it: spelling, versions, pipes, Ctrl-C, and one line for whatever goes wrong."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import huggingface_hub
import pytest
from conftest import tiny_model
from PIL import Image

import hub_scripts.command
from hub_scripts import (
    benchmark,
    check,
    embed,
    exchange,
    explain,
    page,
    plan,
    predict,
    publish,
    push,
    recipes,
    train,
    variants,
    verify,
)
from hub_scripts.__main__ import _interruptible, main
from hub_scripts.verbs import command_line
from modeling_vit_cls import FlaxViTClsForImageClassification, __version__, list_pretrained, list_variants
from modeling_vit_cls.names import EMBED
from modeling_vit_cls.results import Results
from modeling_vit_cls.training import TrainingArguments

pytestmark = pytest.mark.world

VERBS = {
    "benchmark": ["m", "--dataset_name", "digits"],
    "check": ["m"],
    "demo": ["m"],
    "explain": ["m", "x.jpg", "--output", "f"],
    "plan": ["m"],
    "predict": ["m", "x.jpg"],
    "embed": ["m", "digits", "--output", "f"],
    "publish": ["zoo.yaml"],
    "push": ["f", "user/name"],
    "import": ["a", "b"],
    "export": ["a", "b", "--to", "timm"],
    "models": [],
    "recipes": [],
    "variants": [],
    "verify": ["m"],
}


def stopped(arguments: list[str], capsys) -> tuple[int, str, str]:
    """Exit status and output of a command that ends while it reads its arguments."""
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return int(exit.value.code or 0), shown.out, shown.err


def options(verb: str, capsys) -> list[str]:
    """The long options of a verb, by its help."""
    status, out, _ = stopped([verb, "--help"], capsys)
    assert status == 0
    return sorted(set(re.findall(r"--[a-z_]+", out.partition("example:")[0])) - {"--help"})


LIGHT = """
import sys
from hub_scripts.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit as stopped:
    assert not stopped.code, stopped.code
heavy = {name.partition(".")[0] for name in sys.modules} & {"jax", "flax", "numpy", "transformers", "modeling_vit_cls"}
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in ("train", "launch", *VERBS))], ids=" ".join
)
def test_help_and_version_load_no_library(arguments):
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("usage: vit-cls", "vit-cls "))


def test_versions_are_one_line(capsys):
    status, out, err = stopped(["--version"], capsys)
    assert (status, err) == (0, "")
    assert out.startswith(f"vit-cls {__version__} (jax ")
    assert "transformers " in out
    assert out.count("\n") == 1


@pytest.mark.parametrize("verb", ["launch", *VERBS])
def test_help_shows_each_option_with_the_type_of_its_value(verb, capsys):
    out = " ".join(stopped([verb, "--help"], capsys)[1].split())
    for option in options(verb, capsys):
        assert f"{option} {option.removeprefix('--').upper()}" not in out
    shown = {"plan": "--per_device_train_batch_size, --batch N as", "predict": "--top_k N number"}
    assert shown.get(verb, "") in out


@pytest.mark.parametrize("verb", VERBS)
def test_dashes_are_as_good_as_underscores(verb, capsys):
    """The missing value of the option is what is said, not that there is no such option."""
    for option in options(verb, capsys):
        for spelt in (option, option.replace("_", "-")):
            status, _, err = stopped([verb, *VERBS[verb], spelt, "--no_such_option"], capsys)
            assert status == 2
            assert "there is no option --no_such_option" in err
            assert f"there is no option {spelt}" not in err


@pytest.mark.parametrize("verb", VERBS)
def test_a_typing_error_is_answered_by_the_verb_with_the_nearest_option(verb, capsys, tally):
    for option in options(verb, capsys):
        name = option.removeprefix("--")
        typos = {name[:-2] + name[-1] + name[-2], name[1:], name + "s", name.replace("_", "")} - {name}
        for typo in typos:
            status, out, err = stopped([verb, *VERBS[verb], f"--{typo}"], capsys)
            assert (status, out) == (2, "")
            assert err.startswith(f"usage: vit-cls {verb} ")
            if f"did you mean {option}?" in err:
                tally.note("the option that was meant is named")
            else:  # an abbreviation, or nearer to another option
                assert re.search(r"did you mean --\w+\?|expected (one|at least one) argument|there is no option", err)
                tally.note("another one, or none, is named")


@pytest.mark.parametrize(
    ("typed", "meant"), [("predct", "predict"), ("bench_mark", "benchmark"), ("variant", "variants"), ("zzz", None)]
)
def test_a_verb_that_is_not_there(typed, meant, capsys):
    status, _, err = stopped([typed, "x"], capsys)
    assert status == 2
    assert f"there is no verb {typed!r}" + (f"; did you mean {meant}?" if meant else "") in err


def test_values_are_no_options(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(predict, "run", given.append)
    assert main(["predict", "m", "--top-k=3", "--", "--top-k", "-1"]) == 0
    assert (given[0].images, given[0].top_k) == (["--top-k", "-1"], 3)
    assert "unexpected 'c'" in stopped(["import", "a", "b", "c"], capsys)[2]


def test_a_part_of_a_name_finds_variants(capsys):
    assert main(["variants", "tiny", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list_variants("*tiny*")
    assert main(["variants", "vit_cls_tiny_patch16_224", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["gflops_per_image"], row["gmacs_per_image"]) == (2.51, 1.254)
    assert main(["variants", "tiny?"]) == 1
    assert "no variant matches 'tiny?'" in capsys.readouterr().err
    assert main(["variants", "base_patch16_224"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert "GFLOPs (2 per multiply-add)" in head
    assert "GMACs (papers: GFLOPs)" in head
    assert line.split()[2:4] == ["35.1", "17.6"], "the papers' 17.6 for a ViT-B/16"


def test_models_are_found_by_a_wildcard_or_a_part_of_their_id(capsys):
    assert main(["models", "timm/vit_*dino*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["hub_id"] for row in rows] == [row.hub_id for row in list_pretrained("timm/vit_*dino*")]
    assert main(["models", "vit_base_patch16_224.augreg_in21k_ft_in1k"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "Hub id"
    assert re.split("  +", line) == [
        "timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
        "timm ViT",
        "vit_base_patch16_224",
        "86,567,656",
        "224x224",
        "84.5",
        "apache-2.0",
        "ImageNet-21k, then ImageNet-1k",
    ]
    assert main(["models", "resnet"]) == 1
    assert "no checkpoint matches 'resnet'; `vit-cls models` lists them all" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error():
    command = [sys.executable, "-m", "hub_scripts", "variants"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # as `| head -0` does
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), said) == (141, "")


@pytest.mark.parametrize(
    "module",
    [benchmark, check, embed, exchange, explain, plan, predict, publish, push, recipes, train, variants, verify],
)
def test_ctrl_c_is_one_line(module, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    name, arguments = module.__name__.rpartition(".")[2], VERBS.get(module.__name__.rpartition(".")[2], [])
    if module is exchange:
        name, arguments = "import", VERBS["import"]
    if module is train:
        arguments = ["recipe.yaml", "--learning_rate", "1"]
    monkeypatch.setattr(module, "run_import" if module is exchange else "run", interrupted)
    assert main([name, *arguments]) == 130
    assert capsys.readouterr().err == "vit-cls: interrupted\n"


def test_ctrl_c_before_a_verb_is_read_is_one_line_too(monkeypatch, capsys):
    for said, shown in (((), "vit-cls: interrupted\n"), (("stopped, and said so",), "")):

        def interrupted(_, said=said):
            raise KeyboardInterrupt(*said)

        monkeypatch.setattr(hub_scripts.command, "run_command", interrupted)
        assert main(["variants"]) == 130
        assert capsys.readouterr().err == shown


def test_ctrl_c_that_a_callback_swallows_is_not_lost():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), _interruptible(), suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "error", [RuntimeError("out\nof memory"), KeyError("x"), MemoryError("x"), ZeroDivisionError("no")]
)
def test_an_error_that_nobody_expects_is_one_line(error, monkeypatch, capsys):
    def fails(_):
        raise error

    monkeypatch.setattr(variants, "run", fails)
    assert main(["variants"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"vit-cls: {type(error).__name__}: ")
    assert said.endswith("; `vit-cls --debug ...` shows where\n")
    assert said.count("\n") == 1
    for debug in (["--debug", "variants"], ["variants", "--debug"]):
        with pytest.raises(type(error)):
            main(debug)


def test_a_broken_pipe_that_is_not_the_output_is_an_error(monkeypatch, capsys):
    def fails(_):
        raise BrokenPipeError("of a worker")

    monkeypatch.setattr(variants, "run", fails)
    assert main(["variants"]) == 1
    assert capsys.readouterr().err == "vit-cls: of a worker\n"


@pytest.mark.parametrize("place", [0, 1, 3])
def test_json_and_debug_are_taken_wherever_they_stand(place, tmp_path, monkeypatch, capsys):
    seen = []

    def run_recipe(recipe, go_on):
        seen.append((recipe.training.max_steps, go_on))
        return Results(metrics={"accuracy": 0.5})

    def fails(recipe, go_on):
        raise ValueError("broken")

    (tmp_path / "r.yaml").write_text(f"output_dir: {tmp_path / 'out'}\ndataset_name: digits\n")
    words = [str(tmp_path / "r.yaml"), "--max_steps", "3"]
    for flag, runs in (("--json", run_recipe), ("--debug", fails)):
        given = [*words[:place], flag, *words[place:]]
        monkeypatch.setattr("modeling_vit_cls.training.run.run_recipe", runs)
        if flag == "--debug":
            with pytest.raises(ValueError, match="broken"):
                main(["train", *given])
        else:
            assert main(["train", *given]) == 0
            assert json.loads(capsys.readouterr().out)["metrics"] == {"accuracy": 0.5}
    assert seen == [(3, f"vit-cls train {words[0]} --max_steps 3 --resume_from_checkpoint true")]


def test_a_home_is_found_wherever_a_folder_is_given(tmp_path, monkeypatch, model_folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, tmp_path / "vit")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert main(["predict", "~/vit", "~/a.png"]) == 0
    assert main(["import", "~/vit", "~/again"]) == 0
    assert main(["explain", "~/vit", "~/a.png", "--output=~/pictures"]) == 0
    FlaxViTClsForImageClassification.from_pretrained("~/vit").save_pretrained("~/saved")
    assert {entry.name for entry in tmp_path.glob("[!.]*")} == {"vit", "a.png", "again", "pictures", "saved"}
    words = ["benchmark", "~/vit", "--dataset_name", "digits", "--output", "~/a.json", "--output_dir", "~/probe"]
    parsed = command_line().parse_args(words)
    assert [parsed.model, parsed.output, parsed.output_dir] == [
        str(tmp_path / name) for name in ("vit", "a.json", "probe")
    ]
    arguments = TrainingArguments("~/run", resume_from_checkpoint="~/run/checkpoint-1")
    assert arguments.resume_from_checkpoint == str(tmp_path / "run" / "checkpoint-1")


RECODED = """
import sys
from hub_scripts.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


OF_A_REVISION = {
    "predict": ["MODEL", "photos/test/0/0.png"],
    "benchmark": ["MODEL", "--dataset_name", "photos", "--output", "results.json"],
    "benchmark probe": ["MODEL", "--method", "probe", "--dataset_name", "photos", "--output_dir", "probe"],
    "embed": ["MODEL", "photos", "--output", "embedded"],
    "explain": ["MODEL", "photos/test/0/0.png", "--output", "pictures"],
    "import": ["MODEL", "imported"],
    "export": ["MODEL", "exported", "--to", "timm"],
    "verify": ["MODEL"],
    "check": ["MODEL"],
    "plan": ["MODEL"],
    "demo": ["MODEL"],
}


@pytest.mark.parametrize("verb", OF_A_REVISION)
def test_a_verb_takes_the_revision_of_a_model(verb, hub, model, tmp_path, monkeypatch, capsys):
    """The main branch is empty, so only its branch v1 has a model."""
    repo_id, served = f"user/{verb.replace(' ', '-')}", []
    model.push_to_hub(repo_id, revision="v1")
    monkeypatch.chdir(tmp_path)
    app = SimpleNamespace(serve=lambda models, *_: served.extend(models))  # the real one needs Gradio
    monkeypatch.setitem(sys.modules, "modeling_vit_cls.page.app", app)
    monkeypatch.setattr(page, "signal", SimpleNamespace(signal=lambda *_: None, SIGTERM=15))
    for split in ("train", "test"):
        for label in range(2):
            for number in range(8):
                (tmp_path / "photos" / split / str(label)).mkdir(parents=True, exist_ok=True)
                colour = (99 * label, 9 * number, 99 * (split == "test"))
                Image.new("RGB", (9, 9), colour).save(tmp_path / "photos" / split / str(label) / f"{number}.png")
    words = [verb.split()[0], *(repo_id if word == "MODEL" else word for word in OF_A_REVISION[verb])]
    assert main(words) == 1
    assert repo_id in capsys.readouterr().err
    assert main([*words, "--revision", "v1"]) == 0, capsys.readouterr().err
    if verb == "benchmark":
        assert Results.read(tmp_path / "results.json").model.revision == "v1"
    if verb == "benchmark probe":
        assert Results.read(tmp_path / "probe" / "results.json").training.base_model.revision == "v1"
    if verb == "embed":
        recorded = json.loads((tmp_path / "embedded" / EMBED).read_text())["model"]
        assert recorded["revision"] == huggingface_hub.HfApi().model_info(repo_id, revision="v1").sha
    if verb == "demo":
        assert [each.name for each in served] == [repo_id]
        assert main([*words, repo_id, "--revision", "v1"]) == 1
        assert "revision='v1': is that of one model" in capsys.readouterr().err


@pytest.mark.parametrize(("closed", "out"), [(False, b"\\u732b"), (True, b"")])
def test_results_are_not_lost_for_an_output_that_cannot_take_them(tmp_path, closed, out):
    model = tiny_model(id2label=dict(enumerate(["猫", "b", "c", "d", "e"])))
    model.save_pretrained(tmp_path / "vit")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    words = [sys.executable, "-c", RECODED, "predict", str(tmp_path / "vit"), str(tmp_path / "a.png")]
    shell = shlex.join(words) + (" >&-" if closed else "")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(shell, shell=True, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert out in done.stdout


def test_compiled_programs_that_a_kill_damaged_are_made_anew(tmp_path, model_folder):
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.png")
    command = [sys.executable, "-m", "hub_scripts", "predict", str(model_folder), str(tmp_path / "photo.png")]

    def run() -> tuple[str, str, dict[str, int]]:
        environment = {**os.environ, "HF_HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, env=environment, text=True, check=True)
        return done.stdout, done.stderr, {path.name: path.stat().st_size for path in tmp_path.rglob("*-cache")}

    scores, said, programs = run()
    assert (bool(programs), said) == (True, "")
    for program in tmp_path.rglob("*-cache"):
        os.truncate(program, 9)
    again, said, mended = run()
    assert again == scores
    assert re.fullmatch(r"vit-cls: warning: compiled programs in .* were deleted, and are made anew: .*\n", said)
    assert set(mended) == set(programs)
    assert min(mended.values()) > 9


def test_a_working_folder_that_was_deleted_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert main(["variants"]) == 1
    assert capsys.readouterr().err == "vit-cls: the working folder was deleted: change to another one\n"


@pytest.mark.parametrize(
    "words",
    [
        ["embed", "MODEL", "digits", "--split", "test", "--output", "FILE/new"],
        ["benchmark", "no model", "--dataset_name", "digits", "--output", "FILE/new/results.json"],
        ["benchmark", "no model", "--dataset_name", "digits", "--method", "probe", "--output_dir", "FILE/new"],
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(words, folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([word.replace("FILE", str(tmp_path / "file")).replace("MODEL", str(folder)) for word in words]) == 1
    option = next(word for word in words if word.startswith("--output"))[2:]
    said = capsys.readouterr().err
    assert said.startswith(f"vit-cls: {option}='/")
    assert said.endswith(": cannot be written (Not a directory): give another folder\n")
    assert said.count("\n") == 1
