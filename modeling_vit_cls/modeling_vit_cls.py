"""The two models, FlaxViTClsModel and FlaxViTClsForImageClassification, and the seed's function on the same modules."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from .configuration_vit_cls import ViTClsConfig
from .errors import BadImageError, ConfigError, shorten
from .nn.vit import FlaxViTClsForImageClassificationModule, FlaxViTClsModule
from .pretrained.base import FlaxPreTrainedModel
from .pretrained.intermediates import chosen_blocks, compile_intermediates
from .pretrained.report import LoadReport


class _FlaxViTCls(FlaxPreTrainedModel):
    """What the two models share: the call, the outputs of single blocks, and the change of readout."""

    def __call__(
        self,
        pixel_values: Any,
        params: Mapping | None = None,
        dropout_rng: jax.Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> Any:
        """Pixels (B, C, H, W), as image processors emit them -> tokens and readout, or logits (B, K).

        Args:
            pixel_values: floats; float64 and half precision are taken too.
            params: instead of the model's own.
            dropout_rng: key of dropout and stochastic depth; needed with `train` where the config has either.
            output_attentions: also return L attention maps (B, heads, T, T).
            output_hidden_states: also return L + 1 hidden states (B, T, D), the encoder's input first.
            return_dict: False for a tuple.
            interpolate_pos_encoding: take any image size that is a multiple of `patch_size`, as a model with
                `dynamic_image_size` does unasked.

        Raises BadImageError, saying what was expected and what came, for pixels of a wrong rank, layout, size or type.
        """
        c = self.config
        check_pixels(pixel_values, c, interpolate_pos_encoding)
        random = (c.hidden_dropout_prob, c.attention_probs_dropout_prob, c.drop_path_rate)
        if train and dropout_rng is None and any(random):
            raise ConfigError("dropout_rng", None, "train=True with dropout or stochastic depth needs a jax.random key")
        outputs = self._forward(
            self.params if params is None else params,
            jnp.asarray(pixel_values),
            dropout_rng if train else None,
            attentions=bool(c.output_attentions if output_attentions is None else output_attentions),
            hidden_states=bool(c.output_hidden_states if output_hidden_states is None else output_hidden_states),
        )
        return_dict = c.return_dict if return_dict is None else return_dict
        return outputs if return_dict else outputs.to_tuple()

    def forward_intermediates(
        self,
        pixel_values: Any,
        indices: int | Sequence[int] | None = None,
        *,
        params: Mapping | None = None,
        reshape: bool = True,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> tuple:
        """Pixels (B, C, H, W) -> the outputs of some blocks, each as a map (B, h, w, D) of the patches' features.

        Block i's output is `hidden_states[i + 1]`. Nothing is dropped out, and blocks after the last one asked for are
        not computed. Named after timm's method, whose numbers it gives, in the order of `indices`.

        Args:
            indices: a number of last blocks, a sequence of blocks (from 0; -1 is the last), or None for all.
            params: instead of the model's own.
            reshape: False for the patches in one row, (B, N, D).
            return_prefix_tokens: for each block a pair of the patches and the tokens before them (B, P, D): [CLS], the
                distillation token and the registers, in this order, as far as the config has them.
            norm: apply the final LayerNorm, as the last block's output passes through it. A model with
                `norm_position="after_readout"` has none for tokens.
            interpolate_pos_encoding: take any image size that is a multiple of `patch_size`.

        Raises ConfigError for blocks or a norm that the model does not have, BadImageError for wrong pixels.
        """
        c = self.config
        check_pixels(pixel_values, c, interpolate_pos_encoding)
        blocks = chosen_blocks(indices, c.num_hidden_layers)
        if norm and c.norm_position != "before_readout":
            rule = "the final LayerNorm of norm_position='after_readout' acts on the readout, not on tokens: use False"
            raise ConfigError("norm", norm, rule)
        params, pixels = self.params if params is None else params, jnp.asarray(pixel_values)
        chosen = {"blocks": blocks, "reshape": bool(reshape), "prefix": bool(return_prefix_tokens), "norm": bool(norm)}
        return self._intermediates(params, pixels, **chosen)

    def _set_module(self, module: nn.Module) -> None:
        super()._set_module(module)
        self._intermediates = compile_intermediates(module)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_intermediates"}

    def with_readout(self, readout: str, seed: int = 0) -> "_FlaxViTCls":
        """The same parameters read out in another way.

        Only what has another width is new, drawn from `seed`: the classifier between "cls" or "mean" and "cls_mean",
        the attention pooling of "map". The parameters of both models are the same arrays; nothing is copied.
        """
        config = copy.deepcopy(self.config)
        config.readout = readout  # pyright: ignore[reportAttributeAccessIssue]
        chosen: Any = self.module
        run = {"dtype": self.dtype, "attn_implementation": chosen.attn_implementation}
        model = type(self)(config, seed=seed, _do_init=False, **run)
        model._image_processor = self._image_processor
        if self.module.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        if self._is_initialized:
            model._is_initialized, model._params = True, model.take_over(self.params, self.config, LoadReport())
        return model


class FlaxViTClsModel(_FlaxViTCls):
    """The backbone: pixels (B, C, H, W) -> last_hidden_state (B, T, D) and pooler_output, the readout (B, F)."""

    module_class = FlaxViTClsModule

    def get_image_features(
        self,
        pixel_values: Any,
        params: Mapping | None = None,
        dropout_rng: jax.Array | None = None,
        train: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> jax.Array:
        """One embedding an image: (B, C, H, W) -> (B, F), as transformers' FlaxCLIPModel.get_image_features.

        It is `image_embeds` where the config has a `projection_size` (CLIP), else `pooler_output`; not normalised.
        """
        size = {"interpolate_pos_encoding": interpolate_pos_encoding}
        outputs = self(pixel_values, params, dropout_rng, train, return_dict=True, **size)
        return outputs.pooler_output if outputs.image_embeds is None else outputs.image_embeds


class FlaxViTClsForImageClassification(_FlaxViTCls):
    """The backbone and a linear classifier on its readout: pixels (B, C, H, W) -> logits (B, K) in float32."""

    module_class = FlaxViTClsForImageClassificationModule
    returns_readout_only = True


def check_pixels(pixel_values: Any, config: ViTClsConfig, any_size: bool = False) -> None:
    """Raise BadImageError unless `pixel_values` is a batch (B, C, H, W) of floats that `config` takes."""
    height, width = config.image_hw
    expected = f"pixel_values of shape (batch, {config.num_channels}, {height}, {width}), floating-point"
    shape, dtype = getattr(pixel_values, "shape", None), getattr(pixel_values, "dtype", None)
    if shape is None or dtype is None or not isinstance(shape, tuple):
        remedy = "; np.stack them" if isinstance(pixel_values, list | tuple) else ""
        raise BadImageError(f"expected {expected}; got {type(pixel_values).__name__} {shorten(pixel_values)}{remedy}")
    got = f"expected {expected}; got shape {tuple(shape)}, {dtype}"
    patch, channels = config.patch_size, config.num_channels
    if len(shape) != 4:
        raise BadImageError(f"{got}: a batch has 4 axes" + (", add one in front" if len(shape) == 3 else ""))
    if 0 in shape:
        raise BadImageError(f"{got}: the batch is empty")
    if shape[1] != channels:
        nhwc = shape[3] == channels
        hint = "this looks like (batch, height, width, channels): transpose it by (0, 3, 1, 2)" if nhwc else ""
        raise BadImageError(f"{got}: {hint or 'axis 1 holds the channels'}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise BadImageError(f"{got}: use ViTClsImageProcessor, which scales and normalises 0..255 to floats")
    if any_size or config.dynamic_image_size:
        if min(shape[2:]) < patch:
            raise BadImageError(f"{got}: height and width must be at least patch_size={patch}")
        if not config.ignore_border and (shape[2] % patch or shape[3] % patch):
            raise BadImageError(f"{got}: height and width must be multiples of patch_size={patch}")
    elif tuple(shape[2:]) != (height, width):
        raise BadImageError(f"{got}: resize the images, or pass interpolate_pos_encoding=True")


def vit_cls_forward(
    seed: int,
    image: Any,
    patch_size: int,
    d_model: int,
    num_heads: int,
    d_ff: int,
    num_layers: int,
    num_classes: int,
) -> jax.Array:
    """Logits of one image by a ViT with a [CLS] token: (H, W, C) -> (K,) float32.

    Parameters are drawn from `seed`: the same seed gives the same logits, and those of
    `FlaxViTClsForImageClassification(config, seed=seed)`. Raises ConfigError for sizes that contradict each other,
    BadImageError for an image that is not (H, W, C) floats.
    """
    shape = getattr(image, "shape", ())
    if len(shape) != 3:
        raise BadImageError(f"expected an image of shape (height, width, channels), got {shorten(shape or image)}")
    config = ViTClsConfig(
        hidden_size=d_model,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=d_ff,
        image_size=tuple(shape[:2]),
        patch_size=patch_size,
        num_channels=shape[2],
        num_labels=num_classes,
    )
    model = FlaxViTClsForImageClassification(config, seed=seed)
    return model(jnp.asarray(image).transpose(2, 0, 1)[None]).logits[0]
