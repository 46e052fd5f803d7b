"""Training-free methods behind the interface that the generator's masks use too: `activation`, `optimise`."""

from .engine import METHODS, MethodEngine, engine_for
from .interface import Method

__all__ = ["METHODS", "Method", "MethodEngine", "engine_for"]
