"""Training-free methods behind one interface, and the refinement of a trained generator's maps."""

from .class_interface import ClassMethod
from .interface import Method, Passes
from .method_engine import MethodEngine, engine_for
from .registry import CLASS_METHODS, METHODS, make_class_method, make_method

__all__ = [
    "CLASS_METHODS",
    "METHODS",
    "ClassMethod",
    "Method",
    "MethodEngine",
    "Passes",
    "engine_for",
    "make_class_method",
    "make_method",
]
