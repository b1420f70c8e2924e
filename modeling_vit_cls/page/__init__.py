"""The page of `vit-cls demo`: what one or more models see in an image. `app.py` alone needs Gradio."""
