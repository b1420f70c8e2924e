"""What a model sees in an image: attention and features of the patches, as numbers (view.py) and as PNG (explained.py)."""

from .explained import attention_picture, features_picture, rollout_picture, similarity_picture
from .view import View, attention_rollout, patch_colours, patch_similarity, view

__all__ = [
    "View",
    "attention_picture",
    "attention_rollout",
    "features_picture",
    "patch_colours",
    "patch_similarity",
    "rollout_picture",
    "similarity_picture",
    "view",
]
