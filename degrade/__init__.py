"""Blind degradations and the plan."""
