"""The network in flax.linen: images -> patches -> tokens -> readout -> logits. It depends on the config alone."""
