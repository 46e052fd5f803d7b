"""The mask generator and its training (needs torch)."""

from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .config import GeneratorConfig, make_config
from .export import ExportReport, export_explainer, load_generator
from .memory import keep_freed_memory
from .network import Generated, Generator
from .objective import Objective
from .options import TrainingOptions
from .progress import Progress
from .quality import read_quality
from .trainer import Trainer
from .training_run import train

__all__ = [
    "Checkpoint",
    "ExportReport",
    "Generated",
    "Generator",
    "GeneratorConfig",
    "Objective",
    "Progress",
    "Trainer",
    "TrainingOptions",
    "export_explainer",
    "keep_freed_memory",
    "load_checkpoint",
    "load_generator",
    "make_config",
    "read_quality",
    "save_checkpoint",
    "train",
]
