"""A run that Ctrl-C or SIGTERM stops: it keeps its step, says how to go on, and goes on as if it had not."""

import os
import signal
import threading
from contextlib import suppress

import pytest
import yaml
from conftest import assert_same
from small_runs import At, base, run, steps_without_compiling, trainer
from transformers import TrainerCallback

from hub_scripts.__main__ import main
from modeling_vit_cls import FlaxViTClsForImageClassification

pytestmark = pytest.mark.world

__all__ = ["base", "steps_without_compiling"]  # fixtures, for this module too


@pytest.fixture
def handlers():
    """Those that Python itself gives, whatever this process was started with."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)]
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before):
        signal.signal(number, handler)


def send(number: int, times: int = 1):
    return lambda: [os.kill(os.getpid(), number) for _ in range(times)]


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_run_keeps_its_step_and_goes_on_as_if_it_had_not(tmp_path, capsys, handlers, number, error):
    whole = run(tmp_path / "whole", max_steps=3)
    capsys.readouterr()
    with pytest.raises(error) as stopped:
        (stopped_run := trainer(tmp_path / "run", callbacks=[At(2, send(number))], max_steps=3)).train()
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert f"stopped by {number.name} after step 2" in said[0]
    assert "trainer.train(resume_from_checkpoint=True)" in said[0]
    assert error is KeyboardInterrupt or stopped.value.code == 143
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-2"]
    saved = FlaxViTClsForImageClassification.from_pretrained(tmp_path / "run" / "checkpoint-2")
    assert_same(stopped_run.model.params, saved.params)
    again = run(tmp_path / "run", max_steps=3, resume_from_checkpoint=True)
    assert_same(again.model.params, whole.model.params)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_second_signal_ends_at_once_and_says_so(tmp_path, capsys, handlers, number, error):
    with pytest.raises(error):
        run(tmp_path / "run", callbacks=[At(1, send(number, 2))])
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == (
        f"stopped at once by a second signal, {number.name}: what was not saved yet is lost\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_step_loses_nothing_and_is_answered(tmp_path, capsys, handlers, number):
    class AtEnd(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            os.kill(os.getpid(), number)

    ended = run(tmp_path / "run", callbacks=[AtEnd])
    assert ended.state.global_step == 2
    assert_same(ended.model.params, run(tmp_path / "other").model.params)
    assert [line for line in capsys.readouterr().err.splitlines() if not line.startswith("step ")] == [
        f"{number.name} came after the last step and was ignored; send it again to stop what follows"
    ]


def test_a_programs_own_handlers_and_other_threads_are_left_alone(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        assert run(tmp_path / "a", callbacks=[At(1, send(signal.SIGTERM))]).state.global_step == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [1]
    thread = threading.Thread(target=lambda: seen.append(run(tmp_path / "b").state.global_step))
    thread.start()
    thread.join()
    assert seen == [1, 2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_the_command_line_says_which_command_goes_on(tmp_path, capsys, handlers, monkeypatch, number, status):
    launcher = "vit-cls" if number == signal.SIGINT else "vit-cls launch -n 1 --"  # which sets the variable
    if number == signal.SIGTERM:
        monkeypatch.setenv("VIT_CLS_LAUNCHER", launcher)
    recipe, folder, ended = tmp_path / "a recipe.yaml", tmp_path / "run", threading.Event()
    sizes = "{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32, image_size: 8, "
    fields = {"output_dir": str(folder), "dataset_name": "digits", "max_train_samples": 64, "max_eval_samples": 16}
    fields |= {"config_overrides": sizes + "patch_size: 4, num_channels: 1}", "disable_tqdm": True}
    fields |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 100_000, "save_total_limit": 1}
    recipe.write_text(yaml.dump(fields))

    def stop():
        while not list(folder.glob("checkpoint-*")) and not ended.wait(0.01):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        found = None
        with suppress(SystemExit) if number == signal.SIGINT else pytest.raises(SystemExit) as stopped:
            found = main(["train", str(recipe), "--seed", "3"])
        assert (found if number == signal.SIGINT else stopped.value.code) == status
    finally:
        ended.set()
        thread.join()
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "stopped by" in line]
    assert said.endswith(f"to go on: {launcher} train '{recipe}' --seed 3 --resume_from_checkpoint true")
