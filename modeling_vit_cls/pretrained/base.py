"""FlaxPreTrainedModel on transformers 4.57 and 5: parameters beside a linen module, loaded and saved by name.

On 4.57 it is also a `transformers.FlaxPreTrainedModel`; transformers 5 has no such class, and it stands alone. Nothing
is inherited in either case but the type: what transformers' class did on load and save loses checkpoints.
"""

import copy
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import transformers
from flax.core import FrozenDict, unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError
from ..families.open import open_checkpoint, parameter_shapes
from ..files.folder import read_undisturbed, to_path
from ..hub.download import checkpoint_path
from ..hub.push import push_folder
from ..images.processor import ViTClsImageProcessor
from ..nn import compiled
from ..nn.fused_attention import Implementation, is_fused
from .dtypes import cast_floating, compute_dtype, dtype_of_file
from .fit import draw, fit
from .inputs import check_pixels, chosen_blocks
from .keywords import without_habits
from .loading import label_notes, load_params, target_config
from .processor_files import AnyProcessor, UnreadProcessor, interpolated_in_calls, read_processor
from .processor_fit import interpolates
from .report import LoadReport
from .saving import check_same_architecture, check_tensors, config_to_save, write_checkpoint

if TYPE_CHECKING:
    from flax.nnx.bridge import ToNNX

Params = Any  # a nested dict of arrays, or flax's FrozenDict of them
_Upstream: type = getattr(transformers, "FlaxPreTrainedModel", object)


class FlaxPreTrainedModel(_Upstream):
    """A config, a linen module and its parameters, with the methods of transformers' FlaxPreTrainedModel.

    Args:
        input_shape: of one batch of images, (B, H, W, C); only its size matters, and only to `init_weights`.
        seed: of the initial parameters.
        dtype: what products are computed in. Parameters are float32 whatever it is; see `to_bf16`.
        attn_implementation: "cudnn" for cuDNN's fused attention, "xla" for plain products, "auto" for the faster of the
            two (`fused_attention.is_fused`). Not saved. Attention maps and dropout of them always take plain products.
        _do_init: False leaves the model without parameters: pass them to every call.
        params: the parameters, instead of drawing them.
        image_processor: default: that of the config.
    """

    config_class: ClassVar[type[ViTClsConfig]] = ViTClsConfig
    base_model_prefix: ClassVar[str] = "vit_cls"
    main_input_name: ClassVar[str] = "pixel_values"
    module_class: ClassVar[type[nn.Module]]
    returns_readout_only: ClassVar[bool] = False  # a call returns no tokens, unless hidden states are asked for

    def __init__(
        self,
        config: ViTClsConfig,
        input_shape: tuple[int, ...] | None = None,
        seed: int = 0,
        dtype: Any = jnp.float32,
        _do_init: bool = True,
        attn_implementation: Implementation = "auto",
        params: Params | None = None,
        image_processor: AnyProcessor = None,
    ):
        if not isinstance(config, ViTClsConfig):
            raise ConfigError("config", config, "must be a ViTClsConfig")
        config.check()
        self._config, self.dtype, self.key = config, compute_dtype(dtype), jax.random.PRNGKey(seed)
        is_fused(attn_implementation, self.dtype, config.hidden_size // config.num_attention_heads)  # or a ConfigError
        run: dict[str, Any] = {"dtype": self.dtype, "attn_implementation": attn_implementation}
        self._module = self.module_class(copy.deepcopy(config), **run)
        self.input_shape = input_shape or (1, *config.image_hw, config.num_channels)
        self._image_processor = image_processor
        self._shapes = parameter_shapes(self.module_class, config)
        self._is_initialized = _do_init
        if _do_init and params is None:
            self._params = self.init_weights(self.key, self.input_shape)
        elif _do_init:
            self.params = params

    def init_weights(self, rng: jax.Array, input_shape: tuple[int, ...], params: Params | None = None) -> Params:
        """Initial parameters drawn from `rng`; where `params` has a leaf, that one is kept and none is drawn."""
        kept = flatten_dict(unfreeze(params or {}), sep=".")
        names = set(self._shapes) - set(kept) if kept else None
        return unflatten_dict({**draw(self.module, rng, tuple(input_shape[1:]), names), **kept}, sep=".")

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
        attentions = bool(c.output_attentions if output_attentions is None else output_attentions)
        hidden_states = bool(c.output_hidden_states if output_hidden_states is None else output_hidden_states)
        outputs = compiled.forward(self.module)(
            self.params if params is None else params,
            jnp.asarray(pixel_values),
            dropout_rng if train else None,
            readout_only=self.returns_readout_only and not (attentions or hidden_states),
            attentions=attentions,
            hidden_states=hidden_states,
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
        return compiled.intermediates(self.module)(params, pixels, **chosen)

    def with_readout(self, readout: str, seed: int = 0) -> Any:
        """The same parameters read out in another way.

        A new classifier is drawn from `seed` where the readout's width changes ("cls_mean" has two), and the attention
        pooling for "map". All other parameters are the arrays of this model; nothing is copied.
        """
        config = copy.deepcopy(self.config)
        config.readout = readout  # pyright: ignore[reportAttributeAccessIssue]
        config.check()
        module: Any = self.module.clone(config=config)
        key, report = jax.random.PRNGKey(seed), LoadReport()
        model = type(self)(
            config,
            seed=seed,
            dtype=self.dtype,
            _do_init=self._is_initialized,
            attn_implementation=module.attn_implementation,
            params=fit(self.params, self.config, module, key, report) if self._is_initialized else None,
            image_processor=self._image_processor,
        )
        if module.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        return model

    @property
    def config(self) -> ViTClsConfig:
        """The config. It may be given other labels; a change of the architecture needs a new model.

        Setting it raises ConfigError, naming the field, for a config of another architecture.
        """
        return self._config

    @config.setter
    def config(self, config: ViTClsConfig) -> None:
        check_same_architecture(config, self.module.config)
        self._config = config

    @property
    def image_processor(self) -> ViTClsImageProcessor:
        """The processor that came with the checkpoint, or the config's default; it is saved with the model.

        Raises CheckpointError, naming file and field, where the checkpoint's asks for what is not done; ConfigError
        where it gives other channels than the model takes, and for models of other than 1 or 3 channels.
        """
        if isinstance(self._image_processor, UnreadProcessor):
            remedy = "set model.image_processor to one of your own"
            raise CheckpointError(f"{self._image_processor.problem}; {remedy}")
        processor = self._image_processor or ViTClsImageProcessor.for_config(self.config)
        if len(processor.image_mean) != self.config.num_channels:
            rule = f"is of another number of channels than num_channels={self.config.num_channels}: set image_processor"
            raise ConfigError("image_mean", processor.image_mean, rule)
        return processor

    @image_processor.setter
    def image_processor(self, image_processor: ViTClsImageProcessor) -> None:
        self._image_processor = image_processor

    def interpolates(self, processor: ViTClsImageProcessor) -> bool:
        """Whether the pixels of a processor need `interpolate_pos_encoding=True` in a call, and are to be taken.

        True where its size is not the config's, for the model's own processor and with `dynamic_image_size`. Raises
        ConfigError for a size that cannot be cut into patches.
        """
        return interpolates(self.config, self._image_processor, processor)

    @property
    def module(self) -> nn.Module:
        """The linen module, for `module.apply({"params": params}, images (B, H, W, C))`."""
        return self._module

    @property
    def framework(self) -> str:
        """Always "flax"."""
        return "flax"

    @property
    def params_shape_tree(self) -> Params:
        """Shape and dtype of every parameter."""
        return unflatten_dict(dict(self._shapes), sep=".")

    @property
    def required_params(self) -> set[tuple[str, ...]]:
        """Path of every parameter."""
        return {tuple(name.split(".")) for name in self._shapes}

    @property
    def params(self) -> Params:
        """The parameters. Raises ValueError on a model made with `_do_init=False`, which has none."""
        if not self._is_initialized:
            raise ValueError("this model was made with _do_init=False: keep its parameters yourself, pass params=...")
        return self._params

    @params.setter
    def params(self, params: Params) -> None:
        if not self._is_initialized:
            raise ValueError("this model was made with _do_init=False: keep its parameters yourself, pass params=...")
        params = unfreeze(params) if isinstance(params, FrozenDict) else dict(params)
        check_tensors(flatten_dict(params, sep="."), self._shapes, whole=True)
        self._params = params

    def __repr__(self) -> str:
        c, kind = self.config, jnp.dtype(self.dtype).name
        head = f", {c.num_classes} classes" if "classifier.kernel" in self._shapes else ""
        sides = " x ".join(map(str, c.image_hw))
        size = f"{sides} pixels in patches of {c.patch_size}, {c.num_hidden_layers} x {c.hidden_size}"
        return (
            f"{type(self).__name__}({size}, readout={c.readout!r}{head}, {self.num_parameters():,} parameters, {kind})"
        )

    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in self._shapes.values())

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each block in the backward pass instead of keeping it: less memory, a third more work."""
        self._module = self.module.clone(gradient_checkpointing=True)

    def to_bf16(self, params: Params, mask: Any = None) -> Params:
        """A copy of `params` in bfloat16; `mask` is a tree like it, False where a leaf keeps its type."""
        return cast_floating(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Params, mask: Any = None) -> Params:
        """A copy of `params` in float16; `mask` is a tree like it, False where a leaf keeps its type."""
        return cast_floating(params, jnp.float16, mask)

    def to_fp32(self, params: Params, mask: Any = None) -> Params:
        """A copy of `params` in float32; `mask` is a tree like it, False where a leaf keeps its type."""
        return cast_floating(params, jnp.float32, mask)

    @classmethod
    def can_generate(cls) -> bool:
        """False: images in, no text out."""
        return False

    @classmethod
    def _from_config(cls, config: ViTClsConfig, **kwargs: Any) -> "FlaxPreTrainedModel":
        return cls(config, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        dtype: Any = jnp.float32,
        *,
        config: ViTClsConfig | str | os.PathLike[str] | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        subfolder: str = "",
        revision: str | None = None,
        variant: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        _do_init: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Model of a folder or Hub repository, every parameter from its files.

        Args:
            dtype: what products are computed in, "auto" for the type of the file; parameters keep the type that they
                have in the file.
            config: instead of the checkpoint's own, one that differs from it in sizes or head.
            variant: weights `model.VARIANT.safetensors`, as "fp16".
            ignore_mismatched_sizes: draw a new head where the checkpoint's is of another width. The same happens
                when `num_labels`, `readout` or `representation_size` are overridden. The backbone is never drawn.
            output_loading_info: return (model, LoadReport).
            _do_init: False returns (model, params), or (model, params, LoadReport), on the model's default device;
                missing parameters are then left out, with a warning, instead of being an error.
            kwargs: `seed` of a new head; `attn_implementation` as in the class; `torch_dtype`, the old name of `dtype`;
                `add_pooling_layer=False` leaves out a pooler; what transformers' users pass by habit (`device_map`,
                `low_cpu_mem_usage`, ...) changes nothing, or is refused with what to do instead; any other is a field
                of the config to override.

        Raises CheckpointError, naming file and tensor, for weights that are not those that config.json asks for, and
        ConfigError for a config that contradicts itself.
        """
        kwargs = without_habits({"token": token, **kwargs})
        hub = {"cache_dir": cache_dir, "force_download": force_download, "local_files_only": local_files_only}
        where = {"subfolder": subfolder or "", "revision": revision, "variant": variant}
        path = checkpoint_path(pretrained_model_name_or_path, **where, **hub, token=kwargs.pop("token"))
        dtype, seed = kwargs.pop("torch_dtype", None) or dtype, kwargs.pop("seed", 0)
        attn_implementation = kwargs.pop("attn_implementation", "auto")
        is_auto = isinstance(dtype, str) and dtype == "auto"

        def load() -> tuple[Any, Params, LoadReport]:
            source = open_checkpoint(path)
            target = target_config(source, cls.module_class, config, kwargs)
            module, key = cls.module_class(target), jax.random.PRNGKey(seed)
            processor = read_processor(source, target)
            params, report = load_params(source, module, key, ignore_mismatched_sizes, allow_missing=not _do_init)
            report.interpolated_keys += interpolated_in_calls(processor, target)
            report.config_notes += label_notes(source, config, kwargs)
            model = cls(
                target,
                seed=seed,
                dtype=dtype_of_file(source.tensors.values()) if is_auto else dtype,
                _do_init=_do_init,
                attn_implementation=attn_implementation,
                params=params if _do_init else None,
                image_processor=processor,
            )
            return model, params, report

        model, params, report = read_undisturbed(path, load)
        report.log(path)
        if _do_init:
            return (model, report) if output_loading_info else model
        return (model, params, report) if output_loading_info else (model, params)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        params: Params | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
        allow_nonfinite: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write `config.json`, `model.safetensors` (or shards and index) and `preprocessor_config.json`.

        The folder is replaced in one step by the new checkpoint and whatever else lay in it, but for files that an
        earlier save of ours left: programs of the model that was there (`model.onnx`, `model.stablehlo`), the state of
        its training and, where the weights are others, what was measured of them. The image processor is
        the model's; if it never got one, one that lies in the folder already and fits the model stays. `kwargs` with
        `push_to_hub`: `repo_id` (default: the folder's name) and those of `push_to_hub`. Raises CheckpointError where
        the folder cannot be written or a parameter is NaN or infinite (unless `allow_nonfinite`), ValueError for
        parameters that are not this model's.
        """
        if not safe_serialization:
            raise ValueError("safe_serialization=False: only safetensors are written")
        if kwargs and not push_to_hub:
            raise TypeError(f"unknown keywords {sorted(kwargs)}")
        folder = to_path(save_directory)
        self.write_checkpoint(folder, params, max_shard_size, allow_nonfinite)
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", folder.resolve().name)
            push_folder(folder, repo_id, **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        params: Params | None = None,
        max_shard_size: int | str = "5GB",
        **kwargs: Any,
    ) -> str:
        """Save to the Hub in one commit and return its URL.

        `kwargs`: `private`, `token`, `revision`, `create_pr`, `commit_message`, `commit_description`.
        """
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "checkpoint"
            self.write_checkpoint(target, params, max_shard_size)
            return push_folder(target, repo_id, **kwargs).url

    def write_checkpoint(
        self,
        folder: Path,
        params: Params | None,
        max_shard_size: int | str = "5GB",
        allow_nonfinite: bool = False,
        also: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """`save_pretrained`, and in the same step what `also` writes into the new folder."""
        tensors = flatten_dict(unfreeze(self.params if params is None else params), sep=".")
        check_tensors(tensors, self._shapes, whole=self._is_initialized)
        config = config_to_save(self.config, self.module.config, type(self).__name__)
        write_checkpoint(folder, config, tensors, self._image_processor, max_shard_size, allow_nonfinite, also)

    def to_nnx(self, params: Params | None = None) -> "ToNNX":
        """The model as an `nnx.Module`: flax's `nnx.bridge.ToNNX` around the linen module, the parameters in it.

        It is called as the linen module is, not as this model: with images (B, H, W, C), and a second argument False
        where dropout and stochastic depth are to act. These need `rngs=nnx.Rngs(dropout=seed)` in the call, which NNX
        wants as an argument of each function that it transforms. `train()` and `eval()` of NNX change nothing.

        Its parameters are `nnx.Param`s of the same names. The way back, after training, is
        `model.params = nnx.to_pure_dict(nnx.state(module, nnx.Param))`; until then this model stays as it was.
        """
        from .nnx import bridged  # half a second that who does not call it need not wait

        return bridged(self.module, self.params if params is None else params)
