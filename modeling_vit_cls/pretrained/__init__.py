"""FlaxPreTrainedModel and the Auto classes: load, save, and fit a checkpoint to another config."""
