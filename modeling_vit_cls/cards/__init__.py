"""Model cards of trained folders, written from recorded results only."""

from .card import card_to_push, render_card, write_card

__all__ = ["card_to_push", "render_card", "write_card"]
