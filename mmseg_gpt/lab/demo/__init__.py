"""The demo: its steps, its numbers and its report."""
