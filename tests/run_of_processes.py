"""One process of a training run for the tests of several: digits, into ./NAME, by arguments given as JSON.

It does not import conftest, whose folder of compiled programs would take the place of the test's own.
"""

import json
import sys
import time
from pathlib import Path

from datasets import Dataset
from transformers import TrainerCallback

from modeling_vit_cls import processes

if __name__ == "__main__":
    processes.HEARTBEAT_SECONDS = 10  # a user's run has 60
    processes.join()

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig
from modeling_vit_cls.images.sources import load_images
from modeling_vit_cls.training import FlaxTrainer, TrainingArguments


class Record(TrainerCallback):
    """The rows and the losses of each step, a line each; later lines than the step to go on from are taken back.

    At the step `hold` process 0 waits, and all others for it, until the test writes the file "go".
    """

    def __init__(self, folder: Path, hold: int | None, stop: int | None):
        self.file, self.hold, self.stop = folder.with_suffix(".jsonl"), hold, stop

    def on_train_begin(self, args, state, control, **kwargs):
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
        self.file.write_text("".join(f"{line}\n" for line in kept))
        print("begun", flush=True)

    def on_step_end(self, args, state, control, rows, **kwargs):
        self._write({"step": state.global_step, "rows": rows.tolist()})
        while state.global_step == self.hold and not Path("go").exists():
            time.sleep(0.05)
        if state.global_step == self.stop:  # decided in process 0 alone
            control.should_save = control.should_training_stop = True

    def on_log(self, args, state, control, logs, **kwargs):
        self._write({"step": state.global_step} | {name: logs[name] for name in ("loss", "eval_loss") if name in logs})

    def _write(self, entry: dict) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def main(name: str, images: int = 120, hold=None, stop=None, broken=(), **arguments) -> FlaxTrainer:
    rows = load_images("digits", "train").select(range(images + 21))
    values = rows.to_list()
    for row in broken:
        values[row]["image"]["bytes"] = b"no image"
    digits = Dataset.from_list(values, features=rows.features)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": 10}
    model = FlaxViTClsForImageClassification(ViTClsConfig(**sizes, drop_path_rate=0.2, hidden_dropout_prob=0.1))
    defaults = {
        "per_device_train_batch_size": 16 // processes.count(),
        "per_device_eval_batch_size": 8 // processes.count(),
        "max_steps": 8,
        "learning_rate": 1e-3,
        "random_resized_crop_scale": 0.6,
        "horizontal_flip": True,
        "mixup_alpha": 0.3,
        "ema_decay": 0.9,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_strategy": "steps",
        "save_steps": 4,
        "resume_from_checkpoint": True,
        "disable_tqdm": True,
    }
    args = TrainingArguments(name, **(defaults | arguments))
    train, held_out = digits.select(range(images)), digits.select(range(images, images + 21))
    callbacks = [Record(Path(name), hold, stop)]
    trainer = FlaxTrainer(model, args, train, held_out, callbacks=callbacks)
    trainer.train()
    # On the mesh of all processes, so that process 0 alone saves it.
    assert processes.count() == 1 or not trainer.model.params["classifier"]["bias"].is_fully_addressable
    trainer.save_model()
    print(json.dumps(trainer.bad_images), flush=True)
    return trainer


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
