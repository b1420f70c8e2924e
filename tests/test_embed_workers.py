"""Workers that embed: a partition of the shards, and the same bytes after any kill."""

import json
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import tiny_model
from embedded import content, finish, go, pictures, small_backbone, started, undisturbed, whole_shards
from matrix import SOAK

from hub_scripts.__main__ import main
from modeling_vit_cls.embed import embed
from modeling_vit_cls.files.folder import replace_file

pytestmark = pytest.mark.world


@pytest.fixture(scope="module")
def backbone():
    return small_backbone()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, bytes]:
    return undisturbed(tmp_path_factory.mktemp("unbroken"))


def test_a_run_that_is_killed_goes_on_with_the_same_bytes(unbroken, tmp_path):
    """Killed after a random number of shards, and a random part of the time that one takes."""
    chance = random.Random(0)
    for number in range(SOAK):
        folder = tmp_path / str(number)
        for stop in sorted(chance.sample(range(50), 3)):
            process = started(folder)
            go(process)
            while whole_shards(folder) < stop and process.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            finish(process)
            for name, file in content(folder).items() if folder.is_dir() else ():
                assert name.startswith((".part-", ".embed.json.tmp-")) or file == unbroken[name]
        process = started(folder)
        go(process)
        assert finish(process) == 0
        files = {name: file for name, file in content(folder).items() if not name.startswith(".embed.json.tmp-")}
        assert files == unbroken


def test_two_workers_at_once_give_the_same_bytes(unbroken, tmp_path):
    folder = tmp_path / "out"
    processes = [started(folder, worker, 2) for worker in range(2)]
    for process in processes:
        go(process)
    assert [finish(process) for process in processes] == [0, 0]
    assert content(folder) == unbroken


def test_workers_share_the_shards(backbone, tmp_path):
    dataset = pictures(11)
    embed(backbone, dataset, tmp_path / "one", shards=5, disable_tqdm=True)
    states = [embed(backbone, dataset, tmp_path / "two", shards=5, worker=(k, 3), disable_tqdm=True) for k in range(3)]
    assert [(state.written, state.whole) for state in states] == [(2, 2), (2, 4), (1, 5)]
    assert sum(state.rows for state in states) == 11
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_workers_come_from_the_option_or_from_slurm(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    tiny_model(num_channels=1).save_pretrained("my-vit")
    command = ["embed", "my-vit", "digits", "--split", "test", "--output", "out", "--shards", "4", "--json"]

    def done(*more: str) -> int:
        assert main([*command, *more]) == 0
        return json.loads(capsys.readouterr().out)["whole"]

    for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert done("--worker", "3/4") == 1
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert done() == 3
    assert main([*command, "--worker", "1:2"]) == 1
    assert "worker='1:2': must be K/N" in capsys.readouterr().err
    monkeypatch.delenv("SLURM_PROCID")  # in the shell of `salloc`
    assert done() == 4


@pytest.mark.parametrize(("process", "tasks"), [("x", "4"), ("3", ""), ("3", "2")])
def test_variables_of_slurm_that_make_no_sense_are_named(process, tasks, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_PROCID", process)
    monkeypatch.setenv("SLURM_NTASKS", tasks)
    assert main(["embed", "m", "digits", "--output", "f"]) == 1
    assert "is given by Slurm's variables" in capsys.readouterr().err


def test_writers_with_one_process_number_do_not_take_each_others_files(tmp_path):
    """As in containers, where each worker is process 1; here they are threads."""
    file, contents = tmp_path / "a", [bytes([number]) * 1000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(25):
            list(threads.map(lambda content: replace_file(file, content), contents))
            assert file.read_bytes() in contents
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
