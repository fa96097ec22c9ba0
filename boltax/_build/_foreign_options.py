"""Constructor arguments that belong elsewhere: to an option, a method, another library's trainer.

What the constructor does not know is a hyperparameter, which nothing but the user's own loss reads.
So a name that is known from elsewhere is refused, with the line that does what was meant.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from boltax._base._options import CheckpointOptions, LoopOptions
from boltax.errors import ConfigurationError

_TRAIN = "trainer.train_model(train_loader, val_loader, "
_EPOCHS = f"{_TRAIN}num_epochs={{}})"
_STEPS = f"{_TRAIN}max_steps={{}})"
_TIME = f"{_TRAIN}max_time={{}})"
_RESUME = f"{_TRAIN}resume={{}})"
_LOADERS = "trainer.train_model(train_loader, val_loader, test_loader)"
_OPTIMIZER = 'optimizer_hparams={"optimizer": "adamw", "lr": 1e-3}'
_RATE = 'optimizer_hparams={{"lr": {}}}'
_SCHEDULE = 'optimizer_hparams={"lr": 1e-3, "schedule": "cosine", "warmup": 100}'
_CLIP = 'optimizer_hparams={{"gradient_clip": {}}}'
_DECAY = 'optimizer_hparams={{"weight_decay": {}}}'
_LOGGER = 'logger_params={"logger_type": "TensorBoard"}'
_FOLDER = 'logger_params={{"base_log_dir": {}}}'
_EVERY = "loop=boltax.LoopOptions(log_every={})"
_PARTS = "loop=boltax.LoopOptions(microbatches={})"
_PRECISION = 'loop=boltax.LoopOptions(precision="bf16")'
_VALIDATION = "loop=boltax.LoopOptions(limit_val_batches={})"
_SANITY = "loop=boltax.LoopOptions(sanity_check=False)"
_EPOCH = "loop=boltax.LoopOptions(steps_per_epoch={})"
_KEEP = "checkpoint=boltax.CheckpointOptions(every_epochs=1, keep_best=1)"
_BAR = "enable_progress_bar=False"
_VALIDATE = f"{_TRAIN}validate_every={{}})"
_PLATFORM = "nothing: JAX chooses the device, and JAX_PLATFORMS=cpu in the environment another"
_DEVICES = 'parallel="data", or parallel="fsdp" to divide parameters as well'
_DETERMINISTIC = (
    "nothing: a run is deterministic; on a GPU XLA_FLAGS=--xla_gpu_deterministic_ops=true in the "
    "environment has XLA choose kernels that are, too"
)
_NOTHING = "nothing: leave it out, a run is deterministic and compiled as it is"

LINES: Mapping[str, str] = {
    # train_model
    "train_loader": _LOADERS,
    "val_loader": _LOADERS,
    "test_loader": _LOADERS,
    "num_epochs": _EPOCHS,
    "max_steps": _STEPS,
    "max_time": _TIME,
    "min_epochs": f"{_TRAIN}min_epochs={{}})",
    "min_steps": f"{_TRAIN}min_steps={{}})",
    "schedule_steps": f"{_TRAIN}schedule_steps={{}})",
    "validate_every": _VALIDATE,
    "validate_at_start": f"{_TRAIN}validate_at_start={{}})",
    "new_data": f"{_TRAIN}resume=True, new_data={{}})",
    "resume": _RESUME,
    # settings of the optimizer
    "optimizer": _OPTIMIZER,
    "lr": _RATE,
    "learning_rate": _RATE,
    "schedule": _SCHEDULE,
    "scheduler": _SCHEDULE,
    "lr_scheduler": _SCHEDULE,
    "warmup": _SCHEDULE,
    "warmup_steps": _SCHEDULE,
    "gradient_clip": _CLIP,
    "weight_decay": _DECAY,
    "on_spike": 'optimizer_hparams={{"on_spike": {}}}',
    # parameters of the logger
    "logger": _LOGGER,
    "logger_type": _LOGGER,
    "base_log_dir": _FOLDER,
    "log_dir": 'logger_params={{"log_dir": {}}}',
    # Lightning
    "max_epochs": _EPOCHS,
    "accelerator": _PLATFORM,
    "devices": _DEVICES,
    "num_nodes": _DEVICES,
    "gpus": _DEVICES,
    "tpu_cores": _DEVICES,
    "strategy": _DEVICES,
    "sync_batchnorm": _DEVICES,
    "use_distributed_sampler": _DEVICES,
    "fast_dev_run": "trainer.fast_dev_run(train_loader, val_loader, test_loader)",
    "barebones": "logger_params=False",
    "limit_train_batches": _EPOCH,
    "limit_predict_batches": "trainer.predict_model(itertools.islice(loader, {}))",
    "overfit_batches": "loop=boltax.LoopOptions(overfit_batches={})",
    "val_check_interval": _VALIDATE,
    "num_sanity_val_steps": _SANITY,
    "log_every_n_steps": _EVERY,
    "enable_checkpointing": _KEEP,
    "enable_model_summary": _BAR,
    "accumulate_grad_batches": _PARTS,
    "gradient_clip_val": _CLIP,
    "gradient_clip_algorithm": _CLIP,
    "deterministic": _DETERMINISTIC,
    "benchmark": _NOTHING,
    "inference_mode": _NOTHING,
    "detect_anomaly": 'loop=boltax.LoopOptions(on_nonfinite="stop")',
    "profiler": "callbacks=[boltax.callbacks.Profiler()]",
    "reload_dataloaders_every_n_epochs": _LOADERS,
    "default_root_dir": _FOLDER,
    "resume_from_checkpoint": _RESUME,
    "ckpt_path": _RESUME,
    # Keras
    "epochs": _EPOCHS,
    "initial_epoch": f"{_TRAIN}resume=True)",
    "validation_data": _LOADERS,
    "validation_steps": _VALIDATION,
    "validation_freq": "check_val_every_n_epoch={}",
    "run_eagerly": "debug={}",
    "jit_compile": "debug=False",
    "verbose": _BAR,
    "shuffle": "boltax.data.ArrayLoader(data, batch_size=64, shuffle={})",
}
_SIMILAR = 0.9


def check_hyperparameters(hparams: Mapping[str, Any], owner: str, own: Iterable[str]) -> None:
    """Refuses names among free hyperparameters that belong elsewhere, or are nearly such a name.

    Args:
        hparams: the arguments that the constructor does not know.
        owner: the trainer's class, for the message.
        own: arguments that the constructor knows.

    Raises:
        ConfigurationError: with the line that does what was meant.
    """
    known = {**_option_lines(), **LINES}
    own = set(own)
    for name, value in hparams.items():
        near = difflib.get_close_matches(name, known.keys() - own, n=1, cutoff=_SIMILAR)
        if not near:
            continue
        shown = repr(value) if isinstance(value, bool | int | float | str) else "..."
        line = known[near[0]]
        line = line.format(shown) if "{}" in line else line.replace("{{", "{").replace("}}", "}")
        raise ConfigurationError(
            f"Received {name}={shown} in the constructor of {owner}, which would keep it as a "
            f"hyperparameter that changes nothing; expected it elsewhere. Write {line}, or give a "
            "hyperparameter of your own another name."
        )


def _option_lines() -> dict[str, str]:
    """The line for each field of the option classes."""
    return {
        field.name: f"{argument}=boltax.{kind.__name__}({field.name}={{}})"
        for argument, kind in (("loop", LoopOptions), ("checkpoint", CheckpointOptions))
        for field in fields(kind)
    }
