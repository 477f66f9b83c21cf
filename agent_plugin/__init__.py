"""Groundlink for language models: one definition of its tools, and servers and adapters made from it."""
