"""Training-free methods behind one interface, and the refinement of a trained generator's maps."""

from .interface import Method, Passes
from .method_engine import MethodEngine, engine_for
from .registry import METHODS, make_method

__all__ = ["METHODS", "Method", "MethodEngine", "Passes", "engine_for", "make_method"]
