"""Runs copies under a policy, and counts what happened."""
