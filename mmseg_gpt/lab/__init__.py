"""Experiments with the library: series of runs, their records, tables and figures; demo, miniature and benchmark.

Nothing outside this package and the tools imports it.
"""
