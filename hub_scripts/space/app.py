"""A Space of the Hub that shows the page of `vit-cls demo`. The variable MODELS of the Space names the models."""

import os

from modeling_vit_cls.page.app import serve
from modeling_vit_cls.page.seen import load_models

models = load_models(os.environ.get("MODELS", "facebook/deit-tiny-patch16-224").split())
serve(models, host="0.0.0.0", port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
