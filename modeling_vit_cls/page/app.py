"""The page itself, in Gradio: an upload, the choices, and what the models saw. Nothing of it leaves the machine."""

import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import BadImageError, ConfigError
from ..install import needs

# Gradio reads these when it is imported and when it starts.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"
try:
    import gradio as gr  # pyright: ignore[reportMissingImports] # the tests install it for `make test-page` alone
except ImportError as error:
    raise needs("gradio", "to show the page", "demo") from error
# After Gradio, so that its error names the extra that has all that the page needs.
from .markup import CSS, message, sections, summary
from .seen import PageModel

MAX_FILE_SIZE = 20 * 2**20  # bytes of an uploaded file
MAX_WAITING = 100  # requests in the queue; more are refused with a message
MAX_SESSIONS = 100  # visitors whose last image is kept in memory
FILE_SECONDS = 60  # an uploaded file is deleted when it is older; equal uploads of several visitors are one file
_SECONDS = 600  # that the last image of a visitor is kept in memory
_OWN, _LAST, _MEAN = "each model's own", "last", "mean of all"
_WORDS = """# What the models see
Drop an image: you see its classes, and where each model looks. Only the machine that runs this page reads it, and
deletes it after ten minutes."""
# For screen readers: the line above the results is read out when it changes, and the group of readouts has a name.
_SCRIPT = """() => {
    document.getElementById("status")?.setAttribute("aria-live", "polite");
    document.getElementById("readout")?.setAttribute("aria-label", "Readout");
}"""


def build(models: Sequence[PageModel], neighbours: Sequence[Any] = ()) -> gr.Blocks:
    """The page of these models, and of embedded datasets (`Neighbours`). They compute one request at a time."""

    def look(
        upload: bytes | None, image: bytes | None, readout: str, block: str, head: str
    ) -> tuple[None, bytes | None, str, str]:
        """Show an uploaded image, or the last one with other choices: -> no upload, the image, a line, the results."""
        image = upload or image
        if image is None:
            return None, None, "Choose an image first.", ""
        chosen = {
            "readout": None if readout == _OWN else readout,
            "block": None if block == _LAST else int(block),
            "head": None if head == _MEAN else int(head),
        }
        try:
            seen = [(model, model.see(image, **chosen), _nearest(model, neighbours, image)) for model in models]
        except (BadImageError, FloatingPointError) as error:
            return None, None, message(error), ""
        return None, image, "<br>".join(summary(model, view) for model, view, _ in seen), sections(seen)

    readouts = dict.fromkeys(readout for model in models for readout in model.readouts)
    page = gr.Blocks(
        title="vit-cls",
        analytics_enabled=False,
        delete_cache=(FILE_SECONDS, FILE_SECONDS),
    )
    with page:
        gr.Markdown(_WORDS)
        image = gr.State(None, time_to_live=_SECONDS)
        upload = gr.File(label="Image", type="binary", file_types=["image"], height=150, elem_id="upload")
        with gr.Row():
            readout = gr.Radio([_OWN, *readouts], value=_OWN, label="Readout", elem_id="readout")
            block = _choice("Block of the attention", _LAST, max(model.blocks for model in models), "block")
            head = _choice("Head of the attention", _MEAN, max(model.heads for model in models), "head")
        line = gr.HTML("Choose an image.", elem_id="status")
        results = gr.HTML("", elem_id="results", apply_default_css=False)
        gr.on(
            [upload.upload, readout.input, block.input, head.input],
            look,
            [upload, image, readout, block, head],
            [upload, image, line, results],
            api_name="look",
            trigger_mode="always_last",
            show_progress="minimal",
            show_progress_on=[line],
        )
        page.load(None, js=_SCRIPT)  # `js` of launch does nothing in Gradio 6.17
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    return page


def _choice(label: str, default: str, count: int, name: str) -> gr.Dropdown:
    return gr.Dropdown([default, *map(str, range(1, count + 1))], value=default, label=label, elem_id=name)


def _nearest(model: PageModel, neighbours: Sequence[Any], image: bytes) -> list[Any]:
    return [neighbour for dataset in neighbours if dataset.model is model for neighbour in dataset.nearest(image)]


def serve(
    models: Sequence[PageModel],
    neighbours: Sequence[Any] = (),
    host: str = "127.0.0.1",
    port: int | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the page until Ctrl-C, then delete what was uploaded.

    Args:
        models: the models to show side by side.
        neighbours: embedded datasets, each of one of the models (`Neighbours`).
        host: the address to listen on; "0.0.0.0" for all of the machine's.
        port: default: the first free one from 7860 on.
        ready: what to do with the address of the page.

    Raises ConfigError for a port that is not free, and for an address that is not this machine's.
    """
    with tempfile.TemporaryDirectory(prefix="vit-cls-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(models, neighbours)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=MAX_FILE_SIZE,
                state_session_capacity=MAX_SESSIONS,
                footer_links=[],
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                css=CSS,
            )
        except OSError as error:
            rule = f"cannot be used on {host}: another program listens there, or it is no address of this machine"
            raise ConfigError("port", port or "7860 to 7959", rule) from error
        try:
            ready(address)
            threading.Event().wait()
        finally:
            page.close(verbose=False)
