"""`perturb`: what becomes of the answers when the parts that filters look at are disturbed. Extra `dissect`."""

from __future__ import annotations

from .effects import Effect
from .perturbation import Perturbation
from .run import PerturbRequest, PerturbRun, perturb

__all__ = ["Effect", "PerturbRequest", "PerturbRun", "Perturbation", "perturb"]
