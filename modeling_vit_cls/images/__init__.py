"""Any image to RGB, the image processor, datasets, batches and augmentation. Knows no model."""
