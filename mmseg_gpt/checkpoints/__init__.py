"""Reading pretrained files safely, recognising their layout, and filling the backbone strictly."""

from .compare import differences
from .fetch import fetch, is_remote, locate
from .load import PretrainedViT, load_vit
from .read import CheckpointError, read_file, read_state_dict
from .sources import source_of

__all__ = ['CheckpointError', 'PretrainedViT', 'differences', 'fetch', 'is_remote', 'load_vit', 'locate', 'read_file',
           'read_state_dict', 'source_of']
