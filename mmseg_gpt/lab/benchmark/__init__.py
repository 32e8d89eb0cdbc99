"""Measuring what a training step and an evaluated image cost, beside mmsegmentation's own model and the paper's.

Only ``tools/benchmark.py`` imports this package.
"""
