"""Variants of an explainer file: fixed requests, preprocessing inside, half precision, 8-bit integers, other opsets."""

from ...model.raised_opset import MIN_OPSET, at_opset
from .choice import asked_variant, insist_on_own
from .difference import measure_loss
from .fixed_request import SubsetGraph, fix_request, subset
from .half import half_precision
from .precision import PlainExplainer, lower_precisions
from .preprocessing import check_preprocessing, preprocess_inside
from .quantise import quantised

__all__ = [
    "MIN_OPSET",
    "PlainExplainer",
    "SubsetGraph",
    "asked_variant",
    "at_opset",
    "check_preprocessing",
    "fix_request",
    "half_precision",
    "insist_on_own",
    "lower_precisions",
    "measure_loss",
    "preprocess_inside",
    "quantised",
    "subset",
]
