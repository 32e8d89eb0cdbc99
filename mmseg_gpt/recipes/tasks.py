"""The 24 classification tasks of the paper, and the hyperparameters it chose for them."""

from typing import NamedTuple


class Task(NamedTuple):
    """A dataset to classify.

    Attributes:
        group: 'fgvc', or the group of VTAB-1K: 'natural', 'specialized' or 'structured'.
        classes: How many.
        kind: The type of the dataset, registered in mmpretrain.
        data_root: Where it is expected.
    """
    group: str
    classes: int
    kind: str
    data_root: str


class Hyperparameters(NamedTuple):
    """A row of Table 5 for one pretrained ViT. ``gate_init`` is the distance of the gate prior from 0, as there."""
    batch: int
    prompts: int
    lr: float
    gate_init: float


def vtab(group: str, classes: int, folder: str) -> Task:
    """A task of VTAB-1K, whose folder has the name that the public archives give it."""
    return Task(group, classes, 'VTABTask', f'data/vtab-1k/{folder}')


TASKS = {
    'cub': Task('fgvc', 200, 'CUB', 'data/CUB_200_2011'),
    'flowers': Task('fgvc', 102, 'Flowers102', 'data/oxford_flowers'),
    'cars': Task('fgvc', 196, 'StanfordCars', 'data/stanford_cars'),
    'dogs': Task('fgvc', 120, 'StanfordDogs', 'data/stanford_dogs'),
    'nabirds': Task('fgvc', 555, 'NABirds', 'data/nabirds'),
    'caltech101': vtab('natural', 102, 'caltech101'),
    'cifar100': vtab('natural', 100, 'cifar'),
    'dtd': vtab('natural', 47, 'dtd'),
    'flowers102': vtab('natural', 102, 'oxford_flowers102'),
    'pets': vtab('natural', 37, 'oxford_iiit_pet'),
    'svhn': vtab('natural', 10, 'svhn'),
    'sun397': vtab('natural', 397, 'sun397'),
    'camelyon': vtab('specialized', 2, 'patch_camelyon'),
    'eurosat': vtab('specialized', 10, 'eurosat'),
    'resisc45': vtab('specialized', 45, 'resisc45'),
    'retinopathy': vtab('specialized', 5, 'diabetic_retinopathy'),
    'clevr_count': vtab('structured', 8, 'clevr_count'),
    'clevr_dist': vtab('structured', 6, 'clevr_dist'),
    'dmlab': vtab('structured', 6, 'dmlab'),
    'kitti_dist': vtab('structured', 4, 'kitti'),
    'dspr_loc': vtab('structured', 16, 'dsprites_loc'),
    'dspr_ori': vtab('structured', 16, 'dsprites_ori'),
    'snorb_azim': vtab('structured', 18, 'smallnorb_azi'),
    'snorb_elev': vtab('structured', 9, 'smallnorb_ele'),
}

# Table 5: the rows of MAE, and those of MoCo v3.
TABLE_5 = {
    'mae': {
        'caltech101': (128, 1, 0.5, 5), 'cifar100': (128, 1, 0.25, 5), 'clevr_dist': (128, 1, 0.1, 15),
        'clevr_count': (128, 1, 0.05, 15), 'retinopathy': (128, 5, 0.05, 10), 'dmlab': (128, 1, 0.1, 5),
        'dspr_ori': (128, 1, 0.05, 5), 'dspr_loc': (128, 1, 0.1, 5), 'dtd': (128, 1, 0.25, 1),
        'eurosat': (128, 5, 0.1, 1), 'kitti_dist': (128, 5, 0.1, 7), 'flowers102': (128, 1, 0.25, 5),
        'pets': (128, 1, 0.5, 10), 'camelyon': (128, 1, 0.05, 5), 'resisc45': (128, 10, 0.25, 5),
        'snorb_azim': (128, 1, 0.1, 20), 'snorb_elev': (128, 1, 0.05, 10), 'sun397': (128, 1, 0.5, 10),
        'svhn': (128, 1, 0.1, 10), 'cub': (64, 100, 0.1, 5), 'flowers': (64, 100, 0.1, 15),
        'cars': (64, 100, 0.25, 5), 'dogs': (64, 100, 0.5, 15), 'nabirds': (64, 100, 0.5, 5),
    },
    'mocov3': {
        'caltech101': (128, 10, 2.5, 4), 'cifar100': (128, 10, 1, 15), 'clevr_dist': (128, 5, 1, 10),
        'clevr_count': (128, 5, 0.5, 5), 'retinopathy': (128, 5, 0.5, 5), 'dmlab': (128, 1, 1, 5),
        'dspr_ori': (128, 5, 0.5, 5), 'dspr_loc': (128, 5, 0.5, 5), 'dtd': (128, 10, 1, 5),
        'eurosat': (128, 10, 1, 5), 'kitti_dist': (128, 5, 1, 5), 'flowers102': (128, 5, 1, 7),
        'pets': (64, 100, 1, 1), 'camelyon': (128, 1, 1, 10), 'resisc45': (64, 100, 1, 7),
        'snorb_azim': (128, 10, 0.5, 3), 'snorb_elev': (128, 5, 0.5, 4), 'sun397': (128, 1, 1, 4),
        'svhn': (128, 5, 1, 10), 'cub': (64, 100, 1, 5), 'flowers': (64, 100, 1, 10),
        'cars': (64, 100, 0.5, 5), 'dogs': (64, 100, 0.5, 10), 'nabirds': (64, 100, 1, 5),
    },
}  # yapf: disable


def hyperparameters(vit: str, task: str) -> Hyperparameters:
    """Those of Table 5, which has MAE and MoCo v3.

    A ViT of another size takes its family's ('mae-l' those of 'mae'), and another family takes MAE's, which has the
    learning rates that section A.2 gives for the supervised ViT in Figure 1.
    """
    return Hyperparameters(*TABLE_5.get(vit.split('-')[0], TABLE_5['mae'])[task])
