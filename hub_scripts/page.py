"""`vit-cls demo MODEL...`: a page in the browser that shows what models see in an image."""

import argparse
import json
import signal
import sys

from modeling_vit_cls.errors import ConfigError

from .messages import no_bars_in_files


def run(arguments: argparse.Namespace) -> None:
    """Load the models and the embedded datasets, and serve the page until Ctrl-C."""
    # Imported here because Gradio takes a second.
    from modeling_vit_cls.page.app import serve
    from modeling_vit_cls.page.seen import load_models

    if arguments.port is not None and not 0 < arguments.port < 65536:
        raise ConfigError("port", arguments.port, "must be a number from 1 to 65535")
    if arguments.revision is not None and len(arguments.models) > 1:
        raise ConfigError("revision", arguments.revision, "is that of one model: give a single one")
    no_bars_in_files()
    models = load_models(arguments.models, arguments.revision)
    neighbours = []
    if arguments.neighbours:
        from modeling_vit_cls.page.neighbours import Neighbours

        neighbours = [Neighbours(folder, models) for folder in arguments.neighbours]

    def ready(address: str) -> None:
        print(json.dumps({"url": address}) if arguments.json else f"{address}   (Ctrl-C ends)", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that uploads are deleted then too
    serve(models, neighbours, arguments.host, arguments.port, ready)
