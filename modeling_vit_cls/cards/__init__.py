"""Model cards of trained folders, written from recorded results only."""

from .card import MAX_IMAGES, card_to_push, render_card, write_card

__all__ = ["MAX_IMAGES", "card_to_push", "render_card", "write_card"]
