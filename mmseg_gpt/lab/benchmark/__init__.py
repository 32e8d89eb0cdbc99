"""Measuring the cost of a training step and of an evaluated image, for mmsegmentation's model, the paper's and ours.

The measurements of ``tools/benchmark_data.py`` (:mod:`.loading`), ``tools/benchmark_peers.py`` (:mod:`.peer_costs`) and
``tools/benchmark_serving.py`` (:mod:`.serving`) are here too.
"""
