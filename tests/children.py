"""Programs of the tests in processes of their own, with several devices each."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def start(*arguments: object, devices: int, processes: int = 1) -> list[subprocess.Popen]:
    """A Python program of the tests' folder, in so many processes that have so many devices together."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices // processes}"
    roots = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": roots}
    if processes > 1:
        environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
    command, pipe = [sys.executable, *map(str, arguments)], subprocess.PIPE
    own = [environment | ({"JAX_PROCESS_ID": str(index)} if processes > 1 else {}) for index in range(processes)]
    return [subprocess.Popen(command, cwd=TESTS, env=each, stdout=pipe, stderr=pipe, text=True) for each in own]


def finish(*started: subprocess.Popen) -> list[str]:
    """What the programs printed. Fails with their last lines if one of them failed."""
    results = [process.communicate() for process in started]
    assert not any(process.returncode for process in started), "\n".join(
        out[-5000:] + err[-5000:] for out, err in results
    )
    return [out for out, _ in results]
