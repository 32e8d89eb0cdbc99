"""Objects that stand for those in a checkpoint of stock MMEngine, keep nothing and run nothing.

MMEngine 0.10's own checkpoints hold, beside the weights, HistoryBuffer objects with NumPy arrays in them, and
bound functions, which pickle writes as calls of ``getattr``. torch rightly refuses to load these.
"""


class Inert:
    """Takes any arguments and any state, and forgets them."""

    def __new__(cls, *_) -> 'Inert':
        return super().__new__(cls)

    def __init__(self, *_) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


HISTORY_BUFFER = 'mmengine.logging.history_buffer.HistoryBuffer'
OLD_MMENGINE = (HISTORY_BUFFER, 'builtins.getattr', 'numpy.ndarray', 'numpy.dtype',
                *(f'{module}.{name}' for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
                  for name in ('_reconstruct', 'scalar')))
# For torch.serialization: what to call in the place of each.
STAND_INS = tuple((Inert, name) for name in OLD_MMENGINE)
