"""Policies for tests of something else."""

from __future__ import annotations

from hsmsign.policy import Action, Rule, RuleSet

EVERYTHING = RuleSet("test", (Rule("test:1", True, ("*",), tuple(Action)),))
"""Everybody may do everything."""
