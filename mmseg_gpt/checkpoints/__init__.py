"""Reading pretrained files safely, recognising their layout, and filling the backbone strictly."""

from .load import PretrainedViT, load_vit
from .read import CheckpointError, read_state_dict

__all__ = ['CheckpointError', 'PretrainedViT', 'load_vit', 'read_state_dict']
