"""FlaxPreTrainedModel on transformers 4.57 and 5: a linen module with its parameters, loaded and saved by name.

On 4.57 it is a subclass of `transformers.FlaxPreTrainedModel`, so that `isinstance` works; transformers 5 has no such
class. No method of that class is used, because its loading and saving can lose checkpoints.
"""

import copy
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import transformers
from flax.core import FrozenDict, unfreeze
from flax.errors import FlaxError
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from ..configuration_vit_cls import ViTClsConfig
from ..errors import CheckpointError, ConfigError
from ..families.open import parameter_shapes
from ..files.folder import read_undisturbed, to_path
from ..hub.adapted import open_with_base
from ..hub.download import checkpoint_path
from ..hub.push import push_folder
from ..images.processor import ViTClsImageProcessor
from ..nn import compiled
from ..nn.fused_attention import Implementation, is_fused
from ..nn.mesh import checked_mesh, local_mesh, on_local_devices
from .dtypes import cast_floating, compute_dtype, dtype_of_file
from .fit import draw, fit
from .inputs import check_input_shape, check_pixels, chosen_blocks
from .keywords import push_keywords, without_habits
from .loading import label_notes, load_params, target_config
from .processor_files import AnyProcessor, UnreadProcessor, interpolated_in_calls, read_processor
from .processor_fit import interpolates, own_processor
from .report import LoadReport
from .saving import check_same_architecture, check_tensors, config_to_save, write_checkpoint

if TYPE_CHECKING:
    from flax.nnx.bridge import ToNNX

Params = Any  # a nested dict of arrays, or flax's FrozenDict of them
_Upstream: type = getattr(transformers, "FlaxPreTrainedModel", object)


class FlaxPreTrainedModel(_Upstream):
    """A config, a linen module and its parameters, with the methods of transformers' FlaxPreTrainedModel.

    Args:
        input_shape: shape of a batch of images, (B, H, W, C). Only `init_weights` uses it.
        seed: seed of the initial parameters.
        dtype: type in which matrix products are computed. Parameters are float32 for any `dtype`; see `to_bf16`.
        attn_implementation: "cudnn" for cuDNN's fused attention, "xla" for plain products, "auto" for the faster of the
            two (`fused_attention.is_fused`). Not saved. Attention maps, and dropout of attention probabilities, always
            use plain products.
        _do_init: False creates the model without parameters: pass them to every call.
        params: the parameters. By default they are initialised at random, with a copy on each device of this process.
        image_processor: the image processor; default: that of the config.
    """

    config_class: ClassVar[type[ViTClsConfig]] = ViTClsConfig
    base_model_prefix: ClassVar[str] = "vit_cls"
    main_input_name: ClassVar[str] = "pixel_values"
    module_class: ClassVar[type[nn.Module]]
    returns_readout_only: ClassVar[bool] = False  # True: without hidden states, a call computes the readout only

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
        # raises ConfigError now, not in the first call
        is_fused(attn_implementation, self.dtype, config.hidden_size // config.num_attention_heads)
        options: dict[str, Any] = {"dtype": self.dtype, "attn_implementation": attn_implementation}
        self._module = self.module_class(copy.deepcopy(config), **options)
        self.input_shape = input_shape or (1, *config.image_hw, config.num_channels)
        is_given = not isinstance(image_processor, UnreadProcessor | None)
        self._image_processor = own_processor(image_processor, "image_processor") if is_given else image_processor
        self._shapes = parameter_shapes(self.module_class, config)
        self._is_initialized = _do_init
        if _do_init and params is None:
            self._params = on_local_devices(self.init_weights(self.key, self.input_shape))
        elif _do_init:
            self.params = params

    def init_weights(self, rng: jax.Array, input_shape: tuple[int, ...], params: Params | None = None) -> Params:
        """Initial parameters, drawn at random from `rng`. Leaves that `params` has are kept and not drawn.

        `input_shape` is that of a batch of images, (B, H, W, C); ConfigError for another one.
        """
        check_input_shape(input_shape, self.config)
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
        """Pixels (B, C, H, W) -> tokens (B, T, D) and readout (B, F), or logits (B, K). Notation for shapes: nn/vit.py.

        Args:
            pixel_values: floats of any precision, as image processors return them.
            params: parameters to use instead of the model's.
            dropout_rng: key of dropout and stochastic depth; needed with `train` if the config has either.
            train: apply dropout and stochastic depth.
            output_attentions: also return L attention maps (B, heads, T, T).
            output_hidden_states: also return L + 1 hidden states (B, T, D), the encoder's input first.
            return_dict: False returns a tuple.
            interpolate_pos_encoding: accept any image size that is a multiple of `patch_size`. Always on in a model
                with `dynamic_image_size`.

        Raises BadImageError, with the expected and the actual shape, for pixels of a wrong rank, layout, size or type;
        ConfigError in a process that was forked when JAX was in use already.
        """
        c = self.config
        check_pixels(pixel_values, c, interpolate_pos_encoding)
        rates = (c.hidden_dropout_prob, c.attention_probs_dropout_prob, c.drop_path_rate)
        if train and dropout_rng is None and any(rates):
            raise ConfigError("dropout_rng", None, "train=True with dropout or stochastic depth needs a jax.random key")
        attentions = bool(c.output_attentions if output_attentions is None else output_attentions)
        hidden_states = bool(c.output_hidden_states if output_hidden_states is None else output_hidden_states)
        outputs = self._run(
            compiled.forward(self.module),
            params,
            jnp.asarray(pixel_values),
            dropout_rng if train else None,
            train=bool(train),
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
        """Features of the patches after some blocks: pixels (B, C, H, W) -> for each block a map (B, h, w, D).

        The output of block i is `hidden_states[i + 1]`. Dropout is off, and blocks after the last chosen one are not
        computed. Same name and same numbers as in timm, in the order of `indices`.

        Args:
            pixel_values: as in a call of the model.
            indices: the blocks: n for the last n blocks, a sequence of numbers (from 0; -1 is the last), None for all.
            params: parameters to use instead of the model's.
            reshape: False returns the patches as a sequence, (B, N, D).
            return_prefix_tokens: return for each block a pair: the patches, and the tokens before them (B, T - N, D).
                These are [CLS], the distillation token and the registers, in this order, if the config has them.
            norm: apply the final LayerNorm to each output. Not possible where none acts on tokens, with
                `norm_position="after_readout"` or "none".
            interpolate_pos_encoding: accept any image size that is a multiple of `patch_size`.

        Raises ConfigError for blocks or a norm that the model does not have, BadImageError for wrong pixels.
        """
        c = self.config
        check_pixels(pixel_values, c, interpolate_pos_encoding)
        blocks = chosen_blocks(indices, c.num_hidden_layers)
        if norm and c.norm_position != "before_readout":
            rule = f"with norm_position={c.norm_position!r} no final LayerNorm acts on the tokens: use False"
            raise ConfigError("norm", norm, rule)
        chosen = {"blocks": blocks, "reshape": bool(reshape), "prefix": bool(return_prefix_tokens), "norm": bool(norm)}
        return self._run(compiled.intermediates(self.module), params, jnp.asarray(pixel_values), **chosen)

    def _run(self, function: Callable[..., Any], params: Params, *inputs: Any, **options: Any) -> Any:
        """Call a compiled function. For parameters of another model, our error instead of one from inside flax."""
        params = self.params if params is None else params
        try:
            return function(params, *inputs, **options)
        except FlaxError:
            check_tensors(flatten_dict(unfreeze(params), sep="."), self._shapes, whole=True)
            raise

    def with_readout(self, readout: str, seed: int = 0) -> Any:
        """A model with the same parameters and another `readout` of those of the config.

        Both models share their arrays; nothing is copied. Parameters that do not fit the new readout are drawn from
        `seed`: a classifier of another width (between "cls" and "cls_mean", say), the attention pooling of "map".
        """
        config = copy.deepcopy(self.config)
        config.readout = readout  # pyright: ignore[reportAttributeAccessIssue]
        config.check()
        model = copy.copy(self)  # with the attributes of a subclass
        model.key = jax.random.PRNGKey(seed)
        model._config, model._module = config, self.module.clone(config=copy.deepcopy(config))
        model._shapes = parameter_shapes(self.module_class, config)
        if self._is_initialized:
            model.params = fit(self.params, self.config, model.module, model.key, LoadReport())
        return model

    def without_params(self, dtype: Any) -> Any:
        """A copy of the model that computes in `dtype` and has no parameters: pass them to each call."""
        model = copy.copy(self)
        model.dtype = compute_dtype(dtype)
        model._module = self.module.clone(dtype=model.dtype)
        model._params, model._is_initialized = {}, False
        return model

    @property
    def config(self) -> ViTClsConfig:
        """The config. Its labels may be changed; another architecture needs a new model.

        Setting it to a config of another architecture raises ConfigError, naming the field.
        """
        return self._config

    @config.setter
    def config(self, config: ViTClsConfig) -> None:
        check_same_architecture(config, self.module.config)
        self._config = config

    @property
    def image_processor(self) -> ViTClsImageProcessor:
        """The image processor of the checkpoint, or the default one of the config. It is saved with the model.

        Raises CheckpointError, naming file and field, if that of the checkpoint has a step that is not supported, and
        ConfigError if its number of channels differs from the model's, or the model has neither 1 nor 3 channels.
        """
        if isinstance(self._image_processor, UnreadProcessor):
            remedy = "set model.image_processor to another one"
            raise CheckpointError(f"{self._image_processor.problem}; {remedy}")
        processor = self._image_processor or ViTClsImageProcessor.for_config(self.config)
        if len(processor.image_mean) != self.config.num_channels:
            rule = f"does not have num_channels={self.config.num_channels} values: set model.image_processor"
            raise ConfigError("image_mean", processor.image_mean, rule)
        return processor

    @image_processor.setter
    def image_processor(self, image_processor: ViTClsImageProcessor | None) -> None:
        self._image_processor = image_processor and own_processor(image_processor, "image_processor")

    def interpolates(self, processor: ViTClsImageProcessor) -> bool:
        """Whether a call on this processor's pixels needs `interpolate_pos_encoding=True`.

        True if their size is not that of the config, and it is the size of the model's own processor or the model has
        `dynamic_image_size`. Raises ConfigError for a size that cannot be divided into patches.
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
        """Shape and dtype of each parameter, as a nested dict."""
        return unflatten_dict(dict(self._shapes), sep=".")

    @property
    def required_params(self) -> set[tuple[str, ...]]:
        """The path of each parameter in the nested dict of parameters."""
        return {tuple(name.split(".")) for name in self._shapes}

    @property
    def params(self) -> Params:
        """The parameters, a nested dict. Raises ConfigError on a model made with `_do_init=False`, which has none."""
        self._refuse_without_params()
        if callable(self._params):
            self.params = self._params()
        return self._params

    @params.setter
    def params(self, params: Params) -> None:
        self._refuse_without_params()
        if not isinstance(params, Mapping):
            raise ConfigError("params", params, "must be a nested dict of arrays")
        params = unfreeze(params) if isinstance(params, FrozenDict) else dict(params)
        check_tensors(flatten_dict(params, sep="."), self._shapes, whole=True)
        self._params = params

    def defer_params(self, read: Callable[[], Params]) -> None:
        """Take the parameters from `read()` when they are next needed: a trainer has others after each step."""
        self._params = read

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy of the model has: the parameters of now."""
        if self._is_initialized:
            self._params = self.params
        return self.__dict__

    def _refuse_without_params(self) -> None:
        if not self._is_initialized:
            rule = "this model was made with _do_init=False: keep its parameters yourself, pass params=..."
            raise ConfigError("params", None, rule)

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
        """Recompute each block in the backward pass instead of storing its activations: less memory, 1/3 more work."""
        self._module = self.module.clone(gradient_checkpointing=True)

    def to_bf16(self, params: Params, mask: Any = None) -> Params:
        """`params` in bfloat16. `mask` is a tree of the same structure, False for leaves to leave as is."""
        return cast_floating(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Params, mask: Any = None) -> Params:
        """`params` in float16. `mask` is a tree of the same structure, False for leaves to leave as is."""
        return cast_floating(params, jnp.float16, mask)

    def to_fp32(self, params: Params, mask: Any = None) -> Params:
        """`params` in float32. `mask` is a tree of the same structure, False for leaves to leave as is."""
        return cast_floating(params, jnp.float32, mask)

    @classmethod
    def can_generate(cls) -> bool:
        """False: these models generate no text."""
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
        mesh: Mesh | str | None = None,
        _do_init: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Load a model from a folder or a Hub repository. Every parameter comes from its files, except a new head.

        Args:
            pretrained_model_name_or_path: a folder, a weight file, or a Hub id. It may be a LoRA adapter of PEFT, which
                is then merged into its base model.
            dtype: type in which matrix products are computed; "auto" for the type of the file. Parameters keep the
                type that they have in the file.
            config: a config to use instead of the checkpoint's; it may differ in sizes and head.
            ignore_mismatched_sizes: draw a new head if that of the checkpoint has another width. This also happens if
                `num_labels`, `readout`, `representation_size` or `classifier_input` is overridden. The backbone is
                never drawn.
            output_loading_info: return (model, LoadReport).
            subfolder: folder of the checkpoint inside the repository.
            revision: branch, tag or commit.
            variant: "fp16" loads `model.fp16.safetensors`.
            cache_dir, force_download, local_files_only, token: as in huggingface_hub.
            mesh: a mesh of devices, or its text, as `make_mesh` takes it. Each parameter is divided over it by its
                name, and a process copies only the parts of its own devices from the files. Default: a copy of the
                parameters on each device of this process.
            _do_init: False returns (model, params), or (model, params, LoadReport). Missing parameters are then left
                out with a warning, instead of an error.
            kwargs: `seed` of a new head; `attn_implementation` as in the class; `torch_dtype`, the old name of `dtype`;
                `add_pooling_layer=False` leaves out a pooler. Other keywords of transformers (`device_map`,
                `low_cpu_mem_usage`, ...) are ignored, or refused with a remedy. Any other keyword overrides a field of
                the config. For a checkpoint of timm whose config.json leaves out what it was built with, give
                `num_attention_heads` or another field that its card tells: what the tensors show (depth, registers,
                LayerScale, ...) then comes from them, with a warning for each difference from its name.

        Raises CheckpointError, naming file and tensor, for weights that do not match config.json or a keyword, and
        ConfigError for a config that contradicts itself.
        """
        kwargs = without_habits({"token": token, **kwargs})
        hub = {"cache_dir": cache_dir, "force_download": force_download, "local_files_only": local_files_only}
        where = {"subfolder": subfolder or "", "revision": revision, "variant": variant}
        find = partial(checkpoint_path, **hub, token=kwargs.pop("token"))
        path = find(pretrained_model_name_or_path, **where)
        dtype, seed = kwargs.pop("torch_dtype", None) or dtype, kwargs.pop("seed", 0)
        attn_implementation = kwargs.pop("attn_implementation", "auto")
        is_auto = isinstance(dtype, str) and dtype == "auto"

        def load() -> tuple[Any, Params, LoadReport]:
            source = open_with_base(path, find, kwargs)
            target = target_config(source, cls.module_class, config, kwargs)
            module, key = cls.module_class(target), jax.random.PRNGKey(seed)
            processor = read_processor(source, target)
            placement = local_mesh() if mesh is None else checked_mesh(mesh, target)
            missing = not _do_init
            params, report = load_params(source, module, key, ignore_mismatched_sizes, missing, placement)
            report.interpolated_keys += interpolated_in_calls(processor, target)
            report.config_notes += [*label_notes(source, config, kwargs), *source.from_tensors]
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
        """Write `config.json`, `model.safetensors` (or shards and an index) and `preprocessor_config.json`.

        The folder is replaced in one step: a reader sees the old checkpoint or the new one. Other files in it are kept,
        except outdated ones of this package: exported programs (`model.onnx`, `model.stablehlo`), the state of a
        training and, if the weights are new, the results measured for the old weights.

        Args:
            save_directory: the folder; it is created if necessary.
            params: parameters to save instead of the model's.
            push_to_hub: also push the folder to the Hub.
            max_shard_size: largest size of a weight file, in bytes or as text such as "5GB".
            safe_serialization: must be True; only safetensors are written.
            allow_nonfinite: save parameters that are NaN or infinite.
            kwargs: with `push_to_hub`, `repo_id` (default: the folder's name) and the keywords of `push_to_hub`. Other
                keywords of transformers are ignored, or refused with a remedy before anything is written.

        If devices of several processes hold the parameters, all of these processes must call it: the first one writes,
        the others send their parts and wait.

        A model without an image processor of its own keeps the one in the folder if it fits. Raises CheckpointError if
        the folder cannot be written or a parameter is NaN or infinite, ValueError for parameters of another model,
        ConfigError for a keyword that would change something here.
        """
        pushed = push_keywords({**kwargs, "safe_serialization": safe_serialization}, push_to_hub)
        folder = to_path(save_directory)
        self.write_checkpoint(folder, params, max_shard_size, allow_nonfinite)
        if push_to_hub:
            push_folder(folder, **{"repo_id": folder.resolve().name, **pushed})

    def push_to_hub(
        self,
        repo_id: str,
        params: Params | None = None,
        max_shard_size: int | str = "5GB",
        **kwargs: Any,
    ) -> str:
        """Save the model to the Hub in one commit. Returns the URL of the commit.

        `kwargs` are `private`, `token`, `revision`, `create_pr`, `commit_message` and `commit_description`. Other
        keywords of transformers are ignored, or refused with a remedy (ConfigError) before anything is written.
        """
        pushed = push_keywords(kwargs)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "checkpoint"
            self.write_checkpoint(target, params, max_shard_size)
            return push_folder(target, repo_id, **pushed).url

    def write_checkpoint(
        self,
        folder: Path,
        params: Params | None,
        max_shard_size: int | str = "5GB",
        allow_nonfinite: bool = False,
        also: Callable[[Path | None], None] = lambda _: None,
    ) -> None:
        """Save as `save_pretrained` does. `also` may write more files into the new folder, in the same step."""
        tensors = flatten_dict(unfreeze(self.params if params is None else params), sep=".")
        check_tensors(tensors, self._shapes, whole=self._is_initialized)
        config = config_to_save(self.config, self.module.config, type(self).__name__)
        write_checkpoint(folder, config, tensors, self._image_processor, max_shard_size, allow_nonfinite, also)

    def to_nnx(self, params: Params | None = None) -> "ToNNX":
        """The model as an `nnx.Module`: flax's `nnx.bridge.ToNNX` around the linen module, with the parameters.

        Call it as the linen module: with images (B, H, W, C), and with False as second argument to apply dropout and
        stochastic depth. These need `rngs=nnx.Rngs(dropout=seed)` in the call; inside functions that NNX transforms,
        pass the `Rngs` as an argument. `train()` and `eval()` of NNX change nothing.

        Its parameters are `nnx.Param`s with the same names. Training it does not change this model. To take over the
        trained parameters, set `model.params = nnx.to_pure_dict(nnx.state(module, nnx.Param))`.
        """
        from .nnx import bridged  # imported here because it takes half a second

        return bridged(self.module, self.params if params is None else params)
