"""Measuring answers against the truth: metrics on arrays, readers of truth, and the scores' calibration."""
