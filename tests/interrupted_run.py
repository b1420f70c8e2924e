"""A training run for tests/test_resume.py, which kills it: digits, into ./run, resumed where it was left.

It does not import conftest, whose folder of compiled programs would take the place of the test's own.
"""

import sys
from pathlib import Path

from transformers import TrainerCallback

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments


class SampleLog(TrainerCallback):
    """The rows of each step, a line each; lines after the checkpoint that a run goes on from are taken back."""

    def on_train_begin(self, args, state, control, **kwargs):
        file = Path("rows.txt")
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        file.write_text("".join(lines[: state.global_step]))
        print("begun", flush=True)

    def on_step_end(self, args, state, control, rows, **kwargs):
        with Path("rows.txt").open("a") as file:
            file.write(f"{state.global_step} {rows.tolist()}\n")


if __name__ == "__main__":
    digits = load_images("digits", "train").select(range(100))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": 10}
    config = ViTClsConfig(**sizes, drop_path_rate=0.2, hidden_dropout_prob=0.1)
    arguments = TrainingArguments(
        "run",
        num_train_epochs=int(sys.argv[1]),
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        random_resized_crop_scale=0.6,
        mixup_alpha=0.3,
        ema_decay=0.99,
        logging_steps=3,
        eval_strategy="steps",
        eval_steps=5,
        save_strategy="steps",
        save_steps=5,
        save_total_limit=2,
        load_best_model_at_end=True,
        early_stopping_patience=1000,
        resume_from_checkpoint=True,
        disable_tqdm=True,
    )
    model = FlaxViTClsForImageClassification(config)
    trainer = FlaxTrainer(
        model, arguments, digits.select(range(80)), digits.select(range(80, 100)), None, None, [SampleLog]
    )
    trainer.train()
    trainer.save_model()
