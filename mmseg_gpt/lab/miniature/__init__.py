"""The paper in miniature: drawn data, small ViTs, every method, and which claims hold there."""
