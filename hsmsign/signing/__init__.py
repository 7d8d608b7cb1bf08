"""The way of a signature: resolve, authorize, check, admit, sign."""

from hsmsign.model.limits import Limits
from hsmsign.signing.admission import Admission
from hsmsign.signing.pipeline import SigningPipeline
from hsmsign.signing.values import GroupFailure, GroupResult, SignGroup

__all__ = ["Admission", "GroupFailure", "GroupResult", "Limits", "SignGroup", "SigningPipeline"]
