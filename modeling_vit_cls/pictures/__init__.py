"""What a model sees in an image: attention and features of its patches, as numbers and as PNG."""

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
