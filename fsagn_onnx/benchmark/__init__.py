"""What an explanation costs: explainers beside the plain model, in pairs within one run."""

from .cases import Benchmark, BenchmarkRow, run_benchmark
from .machine import machine
from .paired import Spread, paired

__all__ = ["Benchmark", "BenchmarkRow", "Spread", "machine", "paired", "run_benchmark"]
