"""Ten kills of workers of `embed` that share a folder. `make test` has three of a single worker."""

import random
import signal
import time
from pathlib import Path

from embedded import content, finish, go, read, started, undisturbed

ROUNDS, WORKERS, SHARDS = 5, 2, 50


def own_shards(folder: Path, worker: int) -> int:
    """How many whole shards a worker has in a folder."""
    return sum(int(file.name.split("-")[1]) % WORKERS == worker for file in folder.glob("part-*.parquet"))


def test_both_of_two_workers_are_killed_five_times_and_every_row_is_there_once(tmp_path):
    """In each round both run at once, and each is killed after a random number of its shards."""
    unbroken = undisturbed(tmp_path / "unbroken")
    chance, folder, codes = random.Random(0), tmp_path / "out", []
    stops = [sorted(chance.sample(range(15), ROUNDS)) for _ in range(WORKERS)]  # of the 25 shards of each
    for number in range(ROUNDS):
        workers = {worker: started(folder, worker, WORKERS) for worker in range(WORKERS)}
        for process in workers.values():
            go(process)
        while workers:
            for worker, process in list(workers.items()):
                if own_shards(folder, worker) >= stops[worker][number]:
                    time.sleep(chance.random() * 0.02)
                    process.send_signal(signal.SIGKILL)
                    codes.append(finish(process))
                    del workers[worker]
            time.sleep(0.002)
    assert codes.count(-signal.SIGKILL) > ROUNDS  # on a busy machine a few may have ended before
    workers = {worker: started(folder, worker, WORKERS) for worker in range(WORKERS)}
    for process in workers.values():
        go(process)
    assert [finish(process) for process in workers.values()] == [0] * WORKERS
    assert sorted(read(folder)["row"]) == [row for row in range(400) if row not in (7, 300)]
    assert {name: file for name, file in content(folder).items() if ".tmp-" not in name} == unbroken
