"""One file a model. Import a model's config from its file; nothing is registered by hand."""

import importlib
import inspect
import pkgutil

from mmrec.models.base import ModelConfig


def all_models() -> list[type[ModelConfig]]:
    """Every model config in this package, by name: for contract tests, tables and ledgers."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            is_config = inspect.isclass(value) and issubclass(value, ModelConfig)
            if is_config and not inspect.isabstract(value):
                found[value.__name__] = value
    return [found[name] for name in sorted(found)]
