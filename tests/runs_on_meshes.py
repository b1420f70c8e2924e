"""A short training run on a mesh, for tests/scale/test_resume.py, which goes on with it on other numbers of devices.

As a program, with eight devices: the whole run on data=8, and its second half again on data=8 and on fsdp=8.
"""

import shutil
import sys
from pathlib import Path

from conftest import tiny_model

from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments

HALF, WHOLE = "checkpoint-3", "checkpoint-6"


def train(folder: Path, images_of_a_device: int, **changes) -> FlaxTrainer:
    """Six steps of 16 images, with a checkpoint after three, from which it goes on if there is one."""
    arguments = TrainingArguments(
        str(folder / "run"),
        per_device_train_batch_size=images_of_a_device,
        max_steps=6,
        save_strategy="steps",
        save_steps=3,
        learning_rate=1e-3,
        mixup_alpha=0.3,
        ema_decay=0.9,
        disable_tqdm=True,
        **changes,
    )
    config = {"num_channels": 1, "num_labels": 10, "num_hidden_layers": 3, "hidden_dropout_prob": 0.1}
    trainer = FlaxTrainer(tiny_model(**config), arguments, load_images("digits", "train").select(range(64)))
    trainer.train(resume_from_checkpoint=True)
    return trainer


def second_half(whole: Path, folder: Path, images_of_a_device: int, **changes) -> FlaxTrainer:
    """The last three steps of the run in `whole`, in another folder."""
    shutil.copytree(whole / HALF, folder / "run" / HALF)
    return train(folder, images_of_a_device, **changes)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    train(root / "whole", 2, mesh="data=8")
    for mesh in ("data=8", "fsdp=8"):
        second_half(root / "whole" / "run", root / mesh, 2, mesh=mesh)
