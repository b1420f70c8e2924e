"""From a dataset's name to uint8 batches in a reproducible order, and their augmentation on the device."""
