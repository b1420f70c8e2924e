"""The error for a forked process: a fork does not copy JAX's threads, and a compiled function would wait for them."""

import os

from jax._src.xla_bridge import backends_are_initialized  # jax has no public name for it

from ..errors import ConfigError

_in_use_before_fork = False


def refuse_in_fork() -> None:
    """Raise ConfigError in a process that was forked from one in which JAX was in use."""
    if _in_use_before_fork:
        rule = "JAX was in use when this process was forked, and its first computation would never end: use the start "
        rule += "method 'spawn' or 'forkserver', joblib, or threads; with datasets.map, leave num_proc out"
        raise ConfigError("start_method", "fork", rule)


def _note_fork() -> None:
    global _in_use_before_fork
    _in_use_before_fork = backends_are_initialized()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_note_fork)
