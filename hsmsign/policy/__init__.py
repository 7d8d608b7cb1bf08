"""Who may do what with which key.

`hsmsign.policy.reading` turns a file into a RuleSet, and needs pydantic; what decides needs nothing.
"""

from __future__ import annotations

from hsmsign.policy.policy import Decision, Policy
from hsmsign.policy.rules import Action, Hours, Limit, LimitScope, Rule, RuleSet

__all__ = ["Action", "Decision", "Hours", "Limit", "LimitScope", "Policy", "Rule", "RuleSet"]
