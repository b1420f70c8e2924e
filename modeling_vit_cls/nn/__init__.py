"""The mathematics: images -> patches -> tokens -> readout -> logits, in flax.linen. Knows the config alone."""
