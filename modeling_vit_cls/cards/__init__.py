"""The model card of a trained folder, from what was measured and nothing else."""

from .card import card_to_push, render_card, write_card

__all__ = ["card_to_push", "render_card", "write_card"]
