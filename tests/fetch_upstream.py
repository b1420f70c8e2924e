"""Fetch transformers' own common tests from its source releases into this environment: python tests/fetch_upstream.py.

4.57.6 has the tests of configs; those of Flax models were last published with 4.52.4, and the classes that they test
are still in 4.57.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(sys.prefix) / "share" / "transformers-tests"
FILES = {"4.57.6": "test_configuration_common.py", "4.52.4": "test_modeling_flax_common.py"}


def fetch() -> None:
    """Download each release and keep the one file of it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "__init__.py").touch()  # the test of configs looks for it
    for version, name in FILES.items():
        if (FOLDER / name).exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
            subprocess.run([*command, "--dest", folder, f"transformers=={version}"], check=True)
            with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
                member = archive.extractfile(f"transformers-{version}/tests/{name}")
                assert member is not None
                (FOLDER / name).write_bytes(member.read())


if __name__ == "__main__":
    fetch()
