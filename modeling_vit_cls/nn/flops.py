"""Number of floating-point operations of a forward pass, computed from the config."""

from ..configuration_vit_cls import ViTClsConfig


def gflops_per_image(config: ViTClsConfig) -> float:
    """Billions of floating-point operations of one forward pass per image; a multiply-add counts as 2.

    Only matrix products are counted, as in published tables. Normalisation, softmax and activation functions are less
    than 2 % of the total.
    """
    width, tokens = config.hidden_size, config.num_tokens
    rows, columns = config.grid
    patches = rows * columns * config.patch_size**2 * config.num_channels * width
    projections = 4 * tokens * width**2
    attention = 2 * tokens**2 * width
    mlp = (3 if config.mlp == "swiglu" else 2) * tokens * width * config.intermediate_size
    feature = config.representation_size or config.readout_size
    head = config.readout_size * feature if config.representation_size else 0
    if config.classifier_input == "unit_embedding":
        head += feature * (config.projection_size or 0) + config.embedding_size * config.num_classes
    else:
        head += feature * config.num_classes
    if config.has_distillation_head:
        head += width * config.num_classes
    pooling = 0
    if config.readout == "map":
        pooling = 2 * tokens * width**2 + 2 * width**2 + 2 * tokens * width + 2 * width * config.intermediate_size
    return 2e-9 * (patches + config.num_hidden_layers * (projections + attention + mlp) + pooling + head)
