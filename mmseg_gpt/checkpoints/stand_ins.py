"""Stand-ins for the Python objects in a checkpoint of stock MMEngine, which keep nothing and run nothing.

Beside the weights, MMEngine 0.10's checkpoints hold HistoryBuffer objects with NumPy arrays in them, and
bound functions, which pickle writes as calls of ``getattr``. torch rightly refuses to load these.
"""


class StandIn:
    """Stand-in for any object: it takes any arguments and any state, and forgets them."""

    def __new__(cls, *_) -> 'StandIn':
        return super().__new__(cls)

    def __init__(self, *_) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


HISTORY_BUFFER = 'mmengine.logging.history_buffer.HistoryBuffer'
OLD_MMENGINE = (HISTORY_BUFFER, 'builtins.getattr', 'numpy.ndarray', 'numpy.dtype',
                *(f'{module}.{name}' for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
                  for name in ('_reconstruct', 'scalar')))
# For torch.serialization: the class to call in the place of each.
STAND_INS = tuple((StandIn, name) for name in OLD_MMENGINE)
