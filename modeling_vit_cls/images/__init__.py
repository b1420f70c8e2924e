"""Any image to RGB, the image processor, datasets, batches and augmentation. This room knows no model."""
