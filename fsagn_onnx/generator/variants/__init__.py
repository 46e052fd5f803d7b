"""Variants of an explainer file: fixed requests, preprocessing inside, half precision, 8-bit integers, other opsets."""

from .asked import asked_variant, insist_on_own
from .half import half_precision
from .loss import measure_loss
from .opset import MIN_OPSET, at_opset
from .preprocessing import check_preprocessing, preprocess_inside
from .quantise import quantised
from .request import SubsetGraph, fix_request, subset

__all__ = [
    "MIN_OPSET",
    "SubsetGraph",
    "asked_variant",
    "at_opset",
    "check_preprocessing",
    "fix_request",
    "half_precision",
    "insist_on_own",
    "measure_loss",
    "preprocess_inside",
    "quantised",
    "subset",
]
