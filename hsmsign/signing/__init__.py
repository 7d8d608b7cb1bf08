"""The way of a signature: resolve, check, admit, sign."""

from hsmsign.model.limits import Limits
from hsmsign.signing.pipeline import SigningPipeline
from hsmsign.signing.values import GroupFailure, GroupResult, SignGroup

__all__ = ["GroupFailure", "GroupResult", "Limits", "SignGroup", "SigningPipeline"]
