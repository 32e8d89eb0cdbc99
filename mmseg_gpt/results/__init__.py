"""What runs have left in their work directories: logs, scores, and several runs side by side."""
