"""Automation of a desktop: capture, ground, act, check."""
