"""ViTClsConfig: the fields that define the architecture, checked when a config is made."""

from typing import Any

import numpy as np
from transformers import PretrainedConfig

from .config_call import check_call
from .config_rules import (
    FIELD_NAMES,
    Activation,
    ClassifierInput,
    Interpolation,
    MlpKind,
    NormPosition,
    Positions,
    PositionTokens,
    Readout,
    check_config,
    readout_size,
)
from .errors import ConfigError
from .label_maps import LABEL_FIELDS, labels_that_stay
from .variants import variant_fields

_BASE_FIELDS = (*LABEL_FIELDS, "problem_type")  # fields of transformers' base class that are checked here


class ViTClsConfig(PretrainedConfig):
    """Architecture of a Vision Transformer with a [CLS] token or another readout.

    Defaults are ViT-B/16 at 224 pixels (Dosovitskiy et al. 2021, table 1). Sizes are in pixels for `image_size`
    and `patch_size`, in features for `hidden_size`, `intermediate_size` and `representation_size`.

    The readout is the step from the encoder's tokens to one feature vector, which the classifier reads.

    Args:
        hidden_size: width D of the tokens; a multiple of `num_attention_heads`.
        num_hidden_layers: number L of Transformer blocks.
        num_attention_heads: number of heads of each attention.
        intermediate_size: width of the hidden layer of each MLP.
        image_size: side of a square image, or (height, width); a multiple of `patch_size`.
        patch_size: side of a square patch.
        num_channels: number of channels of an image, such as 1 for grey and 3 for RGB.
        patch_bias: bias of the patch embedding; CLIP has none.
        patch_padding: pixels of zeros before the first row and column, for which as many last ones are left out: the
            padding of the convolution in ViTPose (Xu et al. 2022).
        ignore_border: ignore the pixels at the right and the bottom that do not fill a patch, as the libraries of some
            checkpoints do (SigLIP's 384 pixels in patches of 14). Without it such an `image_size` is an error.
        dynamic_image_size: accept images of any size and resample the positions, as the libraries of some checkpoints
            do (DINOv2, DINOv3). Without it, another size needs interpolate_pos_encoding=True in the call.
        hidden_act: "gelu" is the exact function (erf), "gelu_pytorch_tanh" its tanh approximation.
        layer_norm_eps: number added to the variance in each LayerNorm.
        qkv_bias: bias of the query, key and value projections.
        key_bias: bias of the key projection; None means the same as `qkv_bias`.
        hidden_dropout_prob: dropout after the embeddings and on the outputs of attention and MLP, as in transformers,
            without the one inside the MLP of Dosovitskiy et al. 2021, appendix B.1.
        attention_probs_dropout_prob: dropout of the attention probabilities.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first (Huang et al. 2016).
        initializer_range: standard deviation of new parameters. 0.02 is for wide models; a narrow one that is trained
            from nothing learns faster with about hidden_size ** -0.5.
        readout: "cls" takes [CLS] (of several their mean), "mean" averages the patches without other tokens, "cls_mean"
            concatenates the two (2 x hidden_size wide), "cls_concat" concatenates the [CLS] tokens, as in C-RADIO,
            "map" pools by attention (Zhai et al. 2022, section 3.2).
        use_cls_token: a [CLS] token before the patches; readouts of patches alone need none.
        num_cls_tokens: number of [CLS] tokens, each with its own position, as in Pixio; counted with `use_cls_token`.
        num_register_tokens: number of registers, more learned tokens before the patches (Darcet et al. 2024).
        use_distillation_token: a token beside [CLS] that learns from a teacher (Touvron et al. 2021, section 4).
        use_distillation_head: a second classifier on the distillation token; the two are averaged (Touvron et al.
            2021, section 4). None means the same as `use_distillation_token`.
        position_embedding: "learned", "relative" (a bias of the attention scores in each block: BEiT, Bao et al. 2022),
            "sincos2d" (Beyer et al. 2022), "rope" (DINOv3, Simeoni et al. 2025) or "none".
        position_embedding_tokens: "all" gives positions to [CLS] and the distillation token too, "patches" does not.
            Registers never have one.
        position_interpolation: how learned and relative positions are resampled to another grid; each library has its
            own way.
            "bicubic" and "bilinear" are torch's without antialias (bicubic a=-0.75), "bicubic_antialias" (a=-0.5) and
            "bilinear_antialias" with it. "..._align_corners" aligns the centres of the corner patches instead of the
            edges of the image. "bicubic_offset" is that of Meta's DINO and DINOv2. "cpe" is "bilinear" to a square of
            the grid's longer side, of which the top left is taken (C-RADIO); "cpe_align_corners" likewise.
        rope_theta: base of the frequencies of rotary positions, 100 in DINOv3.
        layer_scale_init_value: initial value of LayerScale (Touvron et al. 2021, equation 4); None for no LayerScale.
        mlp: "mlp", or "swiglu" with a gate of width `intermediate_size` that passes through `hidden_act`.
        pre_norm: a LayerNorm before the first block, as in CLIP.
        norm_position: the final LayerNorm acts on all tokens ("before_readout") or on the readout ("after_readout");
            "none" for no final LayerNorm, as in InternViT and C-RADIO.
        representation_size: width of a tanh layer between readout and classifier; None for no such layer.
        projection_size: width of a projection of the readout, as in CLIP (output `image_embeds`); None for none.
        classifier_input: "readout", or "unit_embedding" for a zero-shot classifier: the embedding (the projection where
            there is one, else the readout) at length 1, so that logits are cosine similarities times a scale.
        num_labels, id2label, label2id: as in all models of transformers.
        problem_type: how logits become scores, as in transformers: "single_label_classification" (also None),
            "multi_label_classification" or "regression".

    Raises:
        ConfigError: for a value that breaks its field's rule, for fields that contradict each other, and for a keyword
            that is neither a field nor a keyword of transformers.
    """

    model_type = "vit_cls"

    def __init__(
        self,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_channels: int = 3,
        patch_bias: bool = True,
        patch_padding: int = 0,
        ignore_border: bool = False,
        dynamic_image_size: bool = False,
        hidden_act: Activation = "gelu",
        layer_norm_eps: float = 1e-6,
        qkv_bias: bool = True,
        key_bias: bool | None = None,
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        drop_path_rate: float = 0.0,
        initializer_range: float = 0.02,
        readout: Readout = "cls",
        use_cls_token: bool = True,
        num_cls_tokens: int = 1,
        num_register_tokens: int = 0,
        use_distillation_token: bool = False,
        use_distillation_head: bool | None = None,
        position_embedding: Positions = "learned",
        position_embedding_tokens: PositionTokens = "all",
        position_interpolation: Interpolation = "bicubic",
        rope_theta: float = 100.0,
        layer_scale_init_value: float | None = None,
        mlp: MlpKind = "mlp",
        pre_norm: bool = False,
        norm_position: NormPosition = "before_readout",
        representation_size: int | None = None,
        projection_size: int | None = None,
        classifier_input: ClassifierInput = "readout",
        **kwargs: Any,
    ):
        fields = {name: value for name, value in locals().items() if name not in ("self", "kwargs", "__class__")}
        fields = {name: value.item() if isinstance(value, np.generic) else value for name, value in fields.items()}
        if isinstance(image_size, list):  # JSON has no tuples
            fields["image_size"] = tuple(image_size)
        labels = check_call(fields, kwargs)
        problem_type = labels.pop("problem_type", None)
        super().__init__(**labels)
        self.problem_type = problem_type  # not passed on, because transformers 4.57 and 5 check it differently
        for name, value in fields.items():
            setattr(self, name, value)

    def __init_subclass__(cls, **kwargs: Any):
        """Give a subclass without an `__init__` ours: transformers 5 would make one of its annotations instead."""
        if "__init__" not in vars(cls):

            def __init__(self: Any, *args: Any, **fields: Any) -> None:
                super(cls, self).__init__(*args, **fields)

            cls.__init__ = __init__
        super().__init_subclass__(**kwargs)

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "ViTClsConfig":
        """The config of a named architecture (see `list_variants`). Keywords replace its fields."""
        return cls(**{**variant_fields(name), **overrides})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The config with the contents of a `config.json`. Keywords replace its fields. Checked like any other."""
        if not isinstance(config_dict, dict):
            raise ConfigError("config.json", config_dict, "must hold one JSON object of fields")
        return_unused = kwargs.pop("return_unused_kwargs", False)
        kwargs.pop("use_auth_token", None)  # the old name of `token`, which transformers 5 passes on
        given = {name: kwargs[name] for name in LABEL_FIELDS if kwargs.get(name) is not None}
        labels = labels_that_stay(config_dict, given)
        if given and labels:
            del kwargs["num_labels"]
        config_dict = {name: value for name, value in config_dict.items() if name not in LABEL_FIELDS}
        config_dict |= {name: value for name, value in labels.items() if name == "num_labels"}
        overrides = {name: kwargs.pop(name) for name in [*kwargs] if name in (*cls.field_names(), *_BASE_FIELDS)}
        loaded: Any = super().from_dict({**config_dict, **overrides}, return_unused_kwargs=True, **kwargs)
        config, unused = loaded
        for name in set(labels) - {
            "num_labels"
        }:  # set last: label maps of a file may have gaps, which the class refuses
            setattr(config, name, labels[name])
        config.check()
        if return_unused:
            return config, unused
        check_call({}, {name: value for name, value in unused.items() if not name.startswith("_")})
        return config

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The names of the fields that this class adds to those of transformers, in order."""
        return FIELD_NAMES

    def check(self) -> None:
        """Raise ConfigError if a field breaks its rule; for a config that was changed after it was made."""
        fields = {name: getattr(self, name) for name in self.field_names()}
        check_config({**fields, "num_labels": self.num_labels})

    @property
    def num_classes(self) -> int:
        """The number K of classes; `num_labels`, but never None."""
        return len(self.id2label or ())

    @property
    def has_distillation_head(self) -> bool:
        """Whether there is a second classifier, on the distillation token."""
        use_head = self.use_distillation_head
        return self.use_distillation_token if use_head is None else use_head

    @property
    def image_hw(self) -> tuple[int, int]:
        """Image height and width, in pixels."""
        return (self.image_size,) * 2 if isinstance(self.image_size, int) else tuple(self.image_size)  # pyright: ignore

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_hw
        return height // self.patch_size, width // self.patch_size

    @property
    def num_positioned_prefix_tokens(self) -> int:
        """Tokens before the patches that a position embedding may cover: [CLS] and the distillation token."""
        return self.num_cls_tokens * self.use_cls_token + int(self.use_distillation_token)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: [CLS], the distillation token and the registers, in this order."""
        return self.num_positioned_prefix_tokens + self.num_register_tokens

    @property
    def num_tokens(self) -> int:
        """Length T of the sequence at the configured image size."""
        rows, columns = self.grid
        return self.num_prefix_tokens + rows * columns

    @property
    def readout_size(self) -> int:
        """Width of the readout before the representation layer."""
        return readout_size(self.readout, self.hidden_size, self.num_cls_tokens)

    @property
    def embedding_size(self) -> int:
        """Width of an image's embedding: of the projection where there is one, else of `pooler_output`."""
        return self.projection_size or self.representation_size or self.readout_size
