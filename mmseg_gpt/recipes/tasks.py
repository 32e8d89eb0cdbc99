"""The table of tasks: the 24 of classification in the paper with the hyperparameters it chose for them, and ADE20K."""

from typing import NamedTuple

from .vits import VITS


class Task(NamedTuple):
    """A dataset to learn.

    Attributes:
        title: The name in tables and figures.
        group: 'fgvc', 'segmentation', or the group of VTAB-1K: 'natural', 'specialized' or 'structured'.
        classes: How many there are.
        kind: The type of the dataset, registered in mmpretrain or mmsegmentation.
        data_root: Where the dataset is expected.
    """
    title: str
    group: str
    classes: int
    kind: str
    data_root: str


class Hyperparameters(NamedTuple):
    """A row of Table 5 for one pretrained ViT; ``gate_init`` is how far below 0 the gates' prior is."""
    batch: int
    prompts: int
    lr: float
    gate_init: float


def vtab(title: str, group: str, classes: int, folder: str) -> Task:
    """Returns a task of VTAB-1K, whose folder has the name that the public archives give it."""
    return Task(title, group, classes, 'VTABTask', f'data/vtab-1k/{folder}')


TASKS = {
    'cub': Task('CUB', 'fgvc', 200, 'CUB', 'data/CUB_200_2011'),
    'flowers': Task('Flowers', 'fgvc', 102, 'Flowers102', 'data/oxford_flowers'),
    'cars': Task('Cars', 'fgvc', 196, 'StanfordCars', 'data/stanford_cars'),
    'dogs': Task('Dogs', 'fgvc', 120, 'StanfordDogs', 'data/stanford_dogs'),
    'nabirds': Task('NABirds', 'fgvc', 555, 'NABirds', 'data/nabirds'),
    'caltech101': vtab('Caltech101', 'natural', 102, 'caltech101'),
    'cifar100': vtab('CIFAR-100', 'natural', 100, 'cifar'),
    'dtd': vtab('DTD', 'natural', 47, 'dtd'),
    'flowers102': vtab('Flowers102', 'natural', 102, 'oxford_flowers102'),
    'pets': vtab('Pets', 'natural', 37, 'oxford_iiit_pet'),
    'svhn': vtab('SVHN', 'natural', 10, 'svhn'),
    'sun397': vtab('SUN397', 'natural', 397, 'sun397'),
    'camelyon': vtab('Camelyon', 'specialized', 2, 'patch_camelyon'),
    'eurosat': vtab('EuroSAT', 'specialized', 10, 'eurosat'),
    'resisc45': vtab('RESISC45', 'specialized', 45, 'resisc45'),
    'retinopathy': vtab('Retinopathy', 'specialized', 5, 'diabetic_retinopathy'),
    'clevr_count': vtab('CLEVR count', 'structured', 8, 'clevr_count'),
    'clevr_dist': vtab('CLEVR distance', 'structured', 6, 'clevr_dist'),
    'dmlab': vtab('DMLab', 'structured', 6, 'dmlab'),
    'kitti_dist': vtab('KITTI', 'structured', 4, 'kitti'),
    'dspr_loc': vtab('dSprites location', 'structured', 16, 'dsprites_loc'),
    'dspr_ori': vtab('dSprites orientation', 'structured', 16, 'dsprites_ori'),
    'snorb_azim': vtab('SmallNORB azimuth', 'structured', 18, 'smallnorb_azi'),
    'snorb_elev': vtab('SmallNORB elevation', 'structured', 9, 'smallnorb_ele'),
}
ADE20K = {'ade20k': Task('ADE20K', 'segmentation', 150, 'ADE20KDataset', 'data/ade/ADEChallengeData2016')}

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
    """Returns those of Table 5, which has MAE and MoCo v3; every other ViT takes those of one of them."""
    return Hyperparameters(*TABLE_5[VITS[vit].family][task])
