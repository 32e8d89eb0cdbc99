"""Reading pretrained files safely, recognising their layout, and filling the backbone strictly."""

from .addresses import address_of
from .fetch import fetch, is_remote, locate
from .fit import differences
from .load import PretrainedViT, load_vit
from .read import CheckpointError, read_file, read_state_dict

__all__ = ['CheckpointError', 'PretrainedViT', 'address_of', 'differences', 'fetch', 'is_remote', 'load_vit', 'locate',
           'read_file', 'read_state_dict']
