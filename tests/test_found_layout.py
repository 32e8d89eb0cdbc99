"""Images and masks are found in the layouts that people use, or the remedy is named."""

import os

import pytest
from made_folders import counts, make_files

from mmseg_gpt.datasets.found import FoundError, find_pairs
from mmseg_gpt.datasets.found.names import core_of, meaning_of


def masks_of(found) -> dict[str, str | None]:
    """Returns the path of the mask by that of the image, both below the root."""
    return {pair.image.relative_to(found.root).as_posix(): pair.mask and pair.mask.relative_to(found.root).as_posix()
            for pairs in found.splits.values() for pair in pairs}


LAYOUTS = {
    'images and masks': ('images/{1..5}.jpg masks/{1..5}.png', dict(train=4, val=1), 'images/3.jpg', 'masks/3.png'),
    'numbers behind words': ('images/img{1..12}.jpg masks/mask{1..12}.png', dict(train=10, val=2), 'images/img3.jpg',
                             'masks/mask3.png'),
    'numbers behind words, in one folder': ('photo{1..9}.jpg photo{1..9}_mask.png', dict(train=7, val=2), 'photo3.jpg',
                                            'photo3_mask.png'),
    'suffixes in either case': ('images/{1..5}.JPG masks/{1..4}.png masks/5.PNG', dict(train=4, val=1), 'images/5.JPG',
                                'masks/5.PNG'),
    'splits below': ('images/train/{1..3}.jpg images/val/{4..5}.jpg annotations/train/{1..3}.png '
                     'annotations/val/{4..5}.png', dict(train=3, val=2), 'images/val/4.jpg', 'annotations/val/4.png'),
    'splits above, with numbers that are the same': (
        'train/images/{1..3}.png train/labels/{1..3}.png valid/images/{1..2}.png valid/labels/{1..2}.png',
        dict(train=3, val=2), 'valid/images/1.png', 'valid/labels/1.png'),
    'mmsegmentation': ('img_dir/train/{1..3}.jpg img_dir/val/4.jpg ann_dir/train/{1..3}.png ann_dir/val/4.png',
                       dict(train=3, val=1), 'img_dir/val/4.jpg', 'ann_dir/val/4.png'),
    'CamVid, SegNet': ('train/a_{1..3}.png trainannot/a_{1..3}.png val/b_1.png valannot/b_1.png test/c_1.png '
                       'testannot/c_1.png', dict(train=3, val=1, test=1), 'val/b_1.png', 'valannot/b_1.png'),
    'CamVid, original': ('701_StillsRaw_full/0001TP_{001..5}.png LabeledApproved_full/0001TP_{001..5}_L.png',
                         dict(train=4, val=1), '701_StillsRaw_full/0001TP_003.png',
                         'LabeledApproved_full/0001TP_003_L.png'),
    'train and train_labels': ('train/{1..3}.png train_labels/{1..3}.png val/{1..2}.png val_labels/{1..2}.png',
                               dict(train=3, val=2), 'val/1.png', 'val_labels/1.png'),
    'Cityscapes': ('leftImg8bit/train/aachen/aachen_00000{1..3}_000019_leftImg8bit.png '
                   'leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png '
                   'gtFine/train/aachen/aachen_00000{1..3}_000019_gtFine_color.png '
                   'gtFine/train/aachen/aachen_00000{1..3}_000019_gtFine_instanceIds.png '
                   'gtFine/train/aachen/aachen_00000{1..3}_000019_gtFine_labelIds.png '
                   'gtFine/train/aachen/aachen_00000{1..3}_000019_gtFine_labelTrainIds.png '
                   'gtFine/train/aachen/aachen_00000{1..3}_000019_gtFine_polygons.json '
                   'gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png '
                   'gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelTrainIds.png', dict(train=3, val=1),
                   'leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png',
                   'gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelTrainIds.png'),
    'Roboflow': ('train/a{1..3}_jpg.rf.0ab.jpg train/a{1..3}_jpg.rf.0ab_mask.png train/_classes.csv '
                 'valid/b.rf.1.jpg valid/b.rf.1_mask.png test/c.rf.1.jpg test/c.rf.1_mask.png',
                 dict(train=3, val=1, test=1), 'valid/b.rf.1.jpg', 'valid/b.rf.1_mask.png'),
    'LoveDA': ('Train/Rural/images_png/{0..2}.png Train/Rural/masks_png/{0..2}.png Train/Urban/images_png/{0..1}.png '
               'Train/Urban/masks_png/{0..1}.png Val/Urban/images_png/0.png Val/Urban/masks_png/0.png '
               'Test/Rural/images_png/{0..1}.png', dict(train=5, val=1, test=2), 'Train/Urban/images_png/1.png',
               'Train/Urban/masks_png/1.png'),
    'iSAID': ('train/images/P000{0..3}.png train/Semantic_masks/images/P000{0..3}_instance_color_RGB.png '
              'train/Instance_masks/images/P000{0..3}_instance_id_RGB.png val/images/P0009.png '
              'val/Semantic_masks/images/P0009_instance_color_RGB.png', dict(train=4, val=1), 'val/images/P0009.png',
              'val/Semantic_masks/images/P0009_instance_color_RGB.png'),
    'Potsdam': ('2_Ortho_RGB/top_potsdam_2_{10..14}_RGB.tif 5_Labels_all/top_potsdam_2_{10..14}_label.tif',
                dict(train=4, val=1), '2_Ortho_RGB/top_potsdam_2_12_RGB.tif',
                '5_Labels_all/top_potsdam_2_12_label.tif'),
    'DRIVE': ('DRIVE/training/images/{21..25}_training.tif DRIVE/training/1st_manual/{21..25}_manual1.gif '
              'DRIVE/training/mask/{21..25}_training_mask.gif DRIVE/test/images/{01..2}_test.tif '
              'DRIVE/test/1st_manual/{01..2}_manual1.gif DRIVE/test/2nd_manual/{01..2}_manual2.gif '
              'DRIVE/test/mask/{01..2}_test_mask.gif', dict(train=4, val=1, test=2),
              'DRIVE/training/images/22_training.tif', 'DRIVE/training/1st_manual/22_manual1.gif'),
    'CHASE': ('Image_0{1..5}L.jpg Image_0{1..5}L_1stHO.png Image_0{1..5}L_2ndHO.png', dict(train=4, val=1),
              'Image_02L.jpg', 'Image_02L_1stHO.png'),
    'ISIC': ('ISIC2018_Task1-2_Training_Input/ISIC_000000{0..4}.jpg '
             'ISIC2018_Task1_Training_GroundTruth/ISIC_000000{0..4}_segmentation.png '
             'ISIC2018_Task1-2_Validation_Input/ISIC_001.jpg '
             'ISIC2018_Task1_Validation_GroundTruth/ISIC_001_segmentation.png', dict(train=5, val=1),
             'ISIC2018_Task1-2_Validation_Input/ISIC_001.jpg',
             'ISIC2018_Task1_Validation_GroundTruth/ISIC_001_segmentation.png'),
    'Carvana': ('train/0cdf_0{1..4}.jpg train_masks/0cdf_0{1..4}_mask.gif test/1f_0{1..2}.jpg',
                dict(train=3, val=1, test=2), None, None),
    'LabelMe folders': ('a{1..4}_json/img.png a{1..4}_json/label.png a{1..4}_json/label_viz.png', dict(train=3, val=1),
                        'a2_json/img.png', 'a2_json/label.png'),
    'labelme2voc': ('JPEGImages/{1..4}.jpg SegmentationClassPNG/{1..4}.png SegmentationClass/{1..4}.npy '
                    'SegmentationClassVisualization/{1..4}.jpg class_names.txt', dict(train=3, val=1),
                    'JPEGImages/2.jpg', 'SegmentationClassPNG/2.png'),
    'Massachusetts roads': ('tiff/train/{1..3}.tiff tiff/train_labels/{1..3}.tif tiff/val/4.tiff tiff/val_labels/4.tif',
                            dict(train=3, val=1), 'tiff/val/4.tiff', 'tiff/val_labels/4.tif'),
    'sat and map': ('sat/{1..4}.jpg map/{1..4}.png', dict(train=3, val=1), 'sat/2.jpg', 'map/2.png'),
    'DeepGlobe': ('train/{101..104}_sat.jpg train/{101..104}_mask.png', dict(train=3, val=1), 'train/102_sat.jpg',
                  'train/102_mask.png'),
    'img and label': ('img/{1..4}.bmp label/{1..4}.bmp', dict(train=3, val=1), 'img/2.bmp', 'label/2.bmp'),
    'cracks': ('train_img/{1..3}.jpg train_lab/{1..3}.png test_img/4.jpg test_lab/4.png', dict(train=2, val=1, test=1),
               'test_img/4.jpg', 'test_lab/4.png'),
    'nnU-Net': ('imagesTr/case_{01..4}_0000.png labelsTr/case_{01..4}.png imagesTs/case_09_0000.png',
                dict(train=3, val=1, test=1), None, None),
    'class folders with masks beside': ('MT_Blowhole/Imgs/exp1_num_{1..3}.jpg MT_Blowhole/Imgs/exp1_num_{1..3}.png '
                                        'MT_Free/Imgs/exp1_num_{1..3}.jpg MT_Free/Imgs/exp1_num_{1..3}.png',
                                        dict(train=5, val=1), None, None),
    'prefixes': ('geoportal_orto/image_000{1..4}.png geoportal_build_mask/mask_000{1..4}.png', dict(train=3, val=1),
                 'geoportal_orto/image_0002.png', 'geoportal_build_mask/mask_0002.png'),
    'numbers after words': ('images/images0{1..4}.jpg masks/masks0{1..4}.jpg', dict(train=3, val=1),
                            'images/images02.jpg', 'masks/masks02.jpg'),
    'named as the image with its suffix': ('img/{1..4}.jpg masks_machine/{1..4}.jpg.png', dict(train=3, val=1),
                                           'img/2.jpg', 'masks_machine/2.jpg.png'),
    'folders that say nothing': ('foo/{1..4}.jpg bar/{1..4}.png', dict(train=3, val=1), 'foo/2.jpg', 'bar/2.png'),
    'a folder of images and masks called masks': ('all_masks/img/{1..4}.png all_masks/ann/{1..4}.png other.txt',
                                                  dict(train=3, val=1), 'all_masks/img/2.png', 'all_masks/ann/2.png'),
    'arrays': ('images/{1..4}.png masks/{1..4}.npy', dict(train=3, val=1), 'images/2.png', 'masks/2.npy'),
    'dots and spaces': (['im a/x.y {1..4}.jpg', 'gt/x.y {1..4}_gt.png'], dict(train=3, val=1), 'im a/x.y 2.jpg',
                        'gt/x.y 2_gt.png'),
    'only train': ('train/images/{1..4}.jpg train/masks/{1..4}.png', dict(train=3, val=1), 'train/images/2.jpg',
                   'train/masks/2.png'),
    'GlaS': ('train_{1..3}.bmp train_{1..3}_anno.bmp testA_1.bmp testA_1_anno.bmp testB_1.bmp testB_1_anno.bmp',
             dict(train=2, val=1, test=2), 'testA_1.bmp', 'testA_1_anno.bmp'),
    'folders of videos': ('v1/frames/{1..4}.jpg v1/masks/{1..4}.png v2/frames/{1..4}.jpg v2/masks/{1..4}.png',
                          dict(train=6, val=2), 'v1/frames/2.jpg', 'v1/masks/2.png'),
    'numbers alone': ('images/{1..4}.tif masks/p{001..4}.tif', dict(train=3, val=1), 'images/2.tif', 'masks/p002.tif'),
    'BDD': ('images/10k/train/a-{1..4}.jpg images/10k/val/b-1.jpg labels/sem_seg/masks/train/a-{1..4}.png '
            'labels/sem_seg/masks/val/b-1.png labels/sem_seg/colormaps/train/a-{1..4}.png', dict(train=4, val=1),
            'images/10k/train/a-2.jpg', 'labels/sem_seg/masks/train/a-2.png'),
    'Freiburg': ('train/rgb/b1-{1..4}_Clipped.jpg train/GT_color/b1-{1..4}_mask.png test/rgb/x1-1_Clipped.jpg '
                 'test/GT_color/x1-1_mask.png', dict(train=3, val=1, test=1), 'test/rgb/x1-1_Clipped.jpg',
                 'test/GT_color/x1-1_mask.png'),
    'masks in arrays of numpy': ('images/{1..4}.jpg masks/{1..4}.npz', dict(train=3, val=1), 'images/4.jpg',
                                 'masks/4.npz'),
    'masks in no splits': ('images/train/{1..3}.jpg images/val/4.jpg masks/{1..4}.png', dict(train=3, val=1),
                           'images/val/4.jpg', 'masks/4.png'),
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_layouts(tmp_path, name):
    files, expected, image, mask = LAYOUTS[name]
    found = find_pairs(make_files(tmp_path, files))
    assert counts(found) == expected, found
    if image:
        assert masks_of(found)[image] == mask
    assert not any('because they' in note for note in found.notes), found.notes


LISTS = {
    'VOC': ('VOC2012/JPEGImages/2007_{01..9}.jpg VOC2012/SegmentationClass/2007_{01..6}.png '
            'VOC2012/SegmentationObject/2007_{01..6}.png VOC2012/Annotations/2007_{01..9}.xml',
            {'VOC2012/ImageSets/Segmentation/train.txt': '2007_01\n2007_02\n2007_03\n',
             'VOC2012/ImageSets/Segmentation/val.txt': '2007_04\n2007_05\n',
             'VOC2012/ImageSets/Segmentation/trainval.txt': '2007_01\n2007_02\n2007_03\n2007_04\n2007_05\n',
             'VOC2012/ImageSets/Main/train.txt': '2007_06 1\n2007_01 -1\n'}, dict(train=3, val=2)),
    'pets': ('images/Cat_{1..6}.jpg annotations/trimaps/Cat_{1..6}.png',
             {'annotations/list.txt': '#Image CLASS-ID\nCat_1 1 1 1\n',
              'annotations/trainval.txt': 'Cat_1 1 1 1\nCat_2 1 1 1\nCat_3 1 1 1\nCat_4 1 1 1\n',
              'annotations/test.txt': 'Cat_5 1 1 1\nCat_6 1 1 1\n'}, dict(train=3, val=1, test=2)),
    'paths of another machine': (
        'im/{1..4}.png labels/{1..4}.png', {'train.txt': '/SegNet/im/1.png /SegNet/labels/1.png\n/SegNet/im/2.png '
                                            '/SegNet/labels/2.png\n', 'val.txt': 'im\\3.png labels\\3.png\n'},
        dict(train=2, val=1)),
    'a header, commas, suffixes and spaces': (
        ['im/a {1..4}.png', 'gt/a {1..4}.png'],
        {'lists/train.csv': 'image,mask\nim/a 1.png,gt/a 1.png\nim/a 3.png,gt/a 3.png',
         'lists/valid.csv': 'image\na 2\n'},
        dict(train=2, val=1)),
    'accents that are parted from their letters in names of files': (
        'im/e\u0301{1..4}.jpg masks/e\u0301{1..4}.png', {'train.txt': '\xe91\n\xe92.jpg\n\xe93\n',
                                                         'val.txt': '\xe94\n'}, dict(train=3, val=1)),
    'names that tell more than one split': (
        'images/{1..4}.png masks/{1..4}.png', {'train.txt': '1\n2\n', 'val.txt': '2\n3\n'}, dict(train=1, val=2)),
}


@pytest.mark.parametrize('name', LISTS)
def test_lists_of_names(tmp_path, name):
    files, lists, expected = LISTS[name]
    make_files(tmp_path, files)
    for file, text in lists.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    found = find_pairs(tmp_path)
    assert counts(found) == expected, found
    assert 'train' in found.layout


def test_list_pairs_images_with_masks_of_other_names(tmp_path):
    make_files(tmp_path, 'images/a{1..3}.png masks/a{1..3}.png masks/better.png')
    (tmp_path / 'train.txt').write_text('images/a1.png masks/better.png\nimages/a2.png masks/a2.png\nnowhere.png\n')
    (tmp_path / 'val.txt').write_text('images/a3.png masks/a3.png\n')
    found = find_pairs(tmp_path)
    assert masks_of(found)['images/a1.png'] == 'masks/better.png'
    assert any('nowhere.png' in note and 'train.txt' in note for note in found.notes)


def test_lists_that_name_nothing_here_are_said_and_not_used(tmp_path):
    make_files(tmp_path, 'images/a{1..5}.png masks/a{1..5}.png')
    (tmp_path / 'train.txt').write_text('b1\nb2\nb3\n')
    found = find_pairs(tmp_path)
    assert counts(found) == dict(train=4, val=1)
    assert 'train.txt' in found.notes[0] and 'not used' in found.notes[0]


REFUSED = {
    'polygons': ('im/{1..3}.jpg im/{1..3}.json', r'polygons|\.json.*mmseg-gpt labels'),
    'YOLO': ('images/{1..3}.jpg labels/{1..3}.txt', r'\.txt files \(3\).*Make masks.*mmseg-gpt labels'),
    'COCO': ('train2017/{1..3}.jpg annotations/instances_train2017.json', 'instances_train2017.json.*mmseg-gpt labels'),
    'no images': ('a.nii.gz b.nii.gz', r'no images; it has: \.gz \(2\)'),
    'no masks': ('a/{1..3}.jpg', r'3 images, such as a/1\.jpg.*--masks'),
    'other names': ('images/a{1..3}.jpg masks/b{4..6}.png', 'images/a1.jpg.*masks/b4.png.*Name each mask as its image'),
    'two images of a mask': ('images/{1..3}.jpg images/2.png masks/{1..3}.png',
                             r'masks/2\.png fits several images, images/2\.jpg, images/2\.png'),
    'two folders of images': ('2_Ortho_RGB/t_{1..3}_RGB.tif 3_Ortho_IRRG/t_{1..3}_IRRG.tif Labels/t_{1..3}_label.tif',
                              '--images 2_Ortho_RGB'),
    'two masks of an image': ('stare-images/im000{1..3}.ppm labels-ah/im000{1..3}.ah.ppm labels-vk/im000{1..3}.vk.ppm',
                              r"--masks '\*labels-ah/\*' or --masks '\*labels-vk/\*'"),
    'one mask an object': ('im/{1..3}.png gt/1_mask_0.png gt/1_mask_1.png gt/2_mask_0.png',
                           'gt/1_mask_0.png.*one mask'),
    'two folders that say nothing': ('foo/{1..3}.png bar/{1..3}.png', '--images .* --masks '),
    'same name, and nothing else': ('{1..3}.png {1..3}.tif', r"--masks '\*\.(tif|png)'"),
    'few of them': ('images/{1..6}.jpg masks/{5..12}.png', 'only 2 of 8 masks belong to one of 6 images'),
    'masks alone': ('SegmentationClass/{1..3}.png SegmentationObject/{1..3}.png', 'has masks.*but no images'),
    'one image': ('images/1.jpg masks/1.png', '1 image with a mask.*add images to'),
    'only a test split': ('val/images/{1..3}.png val/masks/{1..3}.png test/images/1.png test/masks/1.png',
                          'no images with masks to train on'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_understood_is_refused_with_the_remedy(tmp_path, name):
    files, message = REFUSED[name]
    with pytest.raises(FoundError, match=message):
        print(find_pairs(make_files(tmp_path, files)))


def test_no_folder(tmp_path):
    with pytest.raises(FoundError, match='nowhere is not there'):
        find_pairs(tmp_path / 'nowhere')
    with pytest.raises(FoundError, match='no files'):
        find_pairs(tmp_path)


def test_options_say_where_images_and_masks_are(tmp_path, monkeypatch):
    make_files(tmp_path, 'stare-images/im000{1..3}.ppm labels-ah/im000{1..3}.ah.ppm labels-vk/im000{1..3}.vk.ppm')
    of_image = {'stare-images/im0002.ppm': 'labels-vk/im0002.vk.ppm'}
    for options in (dict(folder=tmp_path, masks='labels-vk'), dict(folder=tmp_path, masks='*.vk.ppm'),
                    dict(images=tmp_path / 'stare-images', masks=tmp_path / 'labels-vk'),
                    dict(folder=tmp_path, images='stare-images', masks='*labels-vk/*')):
        found = find_pairs(**options)
        assert found.root == tmp_path and masks_of(found).items() >= of_image.items(), options
        assert counts(found) == dict(train=2, val=1)
    monkeypatch.chdir(tmp_path)
    assert masks_of(find_pairs(images='stare-images', masks='labels-vk')).items() >= of_image.items()
    with pytest.raises(FoundError, match=r'labels-xx.*is not a folder'):
        find_pairs(tmp_path, masks='labels-xx')
    with pytest.raises(FoundError, match=r"fits --masks '\*.gif'; there are: .ppm \(9\)"):
        find_pairs(tmp_path, masks='*.gif')


def test_given_folders_may_have_any_name_and_scenes_and_lists(tmp_path):
    make_files(tmp_path, 'foo/s1/{1..3}.png foo/s2/{1..3}.png bar/s1/{1..3}.png bar/s2/{1..3}.png train.txt')
    (tmp_path / 'train.txt').write_text('s1/1.png\ns1/2.png\ns2/3.png\n')
    found = find_pairs(images=tmp_path / 'foo', masks=tmp_path / 'bar')
    assert counts(found) == dict(train=2, val=1)
    assert masks_of(found).keys() == {'foo/s1/1.png', 'foo/s1/2.png', 'foo/s2/3.png'}
    assert all(image.replace('foo', 'bar') == mask for image, mask in masks_of(found).items())


def test_choice_among_masks_is_said(tmp_path):
    files, *_ = LAYOUTS['Cityscapes']
    notes = find_pairs(make_files(tmp_path, files)).notes
    assert any('_labelTrainIds.png' in note and '_labelIds.png' in note and '--masks' in note for note in notes)


def test_left_out_files_are_said(tmp_path):
    make_files(tmp_path, 'images/{1..5}.jpg images/6.heic masks/{3..8}.png old/9.jpg work_dirs/data/masks/1.png')
    os.symlink(tmp_path / 'gone.jpg', tmp_path / 'images' / '10.jpg')
    found = find_pairs(tmp_path)
    assert counts(found) == dict(train=3, val=1)
    notes = ' '.join(found.notes)
    for part in ('they have no mask (2): images/1.jpg, images/2.jpg',
                 'they have no image (2): masks/7.png, masks/8.png', 'old/9.jpg', 'images/10.jpg',
                 'images/6.heic'):
        assert part in notes


def test_names_that_fit_into_no_list_and_closed_folders_are_refused(tmp_path, monkeypatch):
    make_files(tmp_path, 'images/{1..4}.jpg masks/{1..4}.png')
    with monkeypatch.context() as patch, pytest.raises(FoundError, match=f'folder {tmp_path} cannot be read by this'):
        patch.setattr('os.access', lambda *_: False)
        find_pairs(tmp_path)
    (tmp_path / 'images/4.jpg').rename(tmp_path / os.fsdecode(b'images/h\xe4user.jpg'))
    with pytest.raises(FoundError, match=r"images/h\\udce4user\.jpg' is not UTF-8, .*: rename"):
        find_pairs(tmp_path)
    with pytest.raises(FoundError, match=r"4\\x85\.jpg' has a line break"):
        find_pairs(make_files(tmp_path / 'b', ['images/4\x85.jpg', 'masks/4\x85.png']))


def test_litter_is_not_looked_at(tmp_path):
    make_files(tmp_path, 'images/{1..3}.jpg masks/{1..3}.png images/._1.jpg masks/._1.png .DS_Store images/Thumbs.db '
               '__MACOSX/images/1.jpg masks/.ipynb_checkpoints/1-checkpoint.png')
    found = find_pairs(tmp_path)
    assert counts(found) == dict(train=2, val=1) and len(found.notes) == 1


def test_links_are_followed_but_not_in_circles(tmp_path):
    make_files(tmp_path / 'real', 'im/{1..3}.jpg gt/{1..3}.png')
    (tmp_path / 'data').mkdir()
    os.symlink(tmp_path / 'real' / 'im', tmp_path / 'data' / 'images')
    os.symlink(tmp_path / 'real' / 'gt', tmp_path / 'data' / 'masks')
    os.symlink(tmp_path / 'data', tmp_path / 'real' / 'im' / 'up')
    found = find_pairs(tmp_path / 'data')
    assert counts(found) == dict(train=2, val=1)


def test_copies_of_test_images_are_not_trained_on(tmp_path):
    make_files(tmp_path, 'train/images/{1..4}.jpg train/masks/{1..4}.png val/images/7.jpg val/masks/7.png')
    (tmp_path / 'train/images/2.jpg').write_bytes((tmp_path / 'val/images/7.jpg').read_bytes())
    found = find_pairs(tmp_path)
    assert counts(found) == dict(train=3, val=1)
    note, = found.notes
    assert str(tmp_path / 'train/images/2.jpg') in note and str(tmp_path / 'val/images/7.jpg') in note
    assert 'left out of training' in note
    for name in '134':
        (tmp_path / f'train/images/{name}.jpg').write_bytes((tmp_path / 'val/images/7.jpg').read_bytes())
    with pytest.raises(FoundError, match='all training images are in another split'):
        find_pairs(tmp_path)


@pytest.mark.parametrize('name, role, split', [
    ('trainannot', 'mask', 'train'), ('JPEGImages', 'image', None), ('SegmentationClass', 'mask', None),
    ('leftImg8bit', 'image', None), ('labelsTs', 'mask', 'test'), ('with_mask', None, None),
    ('train2017', None, 'train'), ('MT_Blowhole', None, None),
    ('visualization', 'other', None), ('groundtruth', 'mask', None)])
def test_names_of_folders(name, role, split):
    assert meaning_of(name)[:2] == (role, split)


@pytest.mark.parametrize('stem, core, role', [
    ('a_0294_gtFine_labelIds', 'a_0294', 'mask'), ('a_leftImg8bit', 'a', 'image'), ('21_manual1', '21', 'mask'),
    ('Image_01L_1stHO', '01l', 'mask'), ('mask__image_jewar_002', 'jewar_002', 'mask'),
    ('tile_x_12', 'tile_x_12', None), ('ann_dir__g1', 'g1', 'mask'),
    ('mask001', '001', 'mask'), ('img1', '1', 'image'), ('img1_mask', '1', 'mask'),
    ('a_mask1', 'a', 'mask'), ('city_color_mask', 'city_color', 'mask')])
def test_names_of_files(stem, core, role):
    assert core_of(stem) == (core, role)


def test_copies_of_images_stay_together_where_the_split_is_made(tmp_path):
    make_files(tmp_path, 'images/{1..6}.jpg masks/{1..6}.png')
    for name in '23':
        (tmp_path / f'images/{name}.jpg').write_bytes((tmp_path / 'images/1.jpg').read_bytes())
    assert sum(counts(find_pairs(tmp_path)).values()) == 6
    for name in '23456':
        (tmp_path / f'images/{name}.jpg').write_bytes((tmp_path / 'images/1.jpg').read_bytes())
    with pytest.raises(FoundError, match='all 6 images are copies of'):
        find_pairs(tmp_path)


def test_images_that_are_their_own_masks_are_warned_of(tmp_path):
    make_files(tmp_path, 'images/{1..6}.png masks/{1..6}.png')
    (tmp_path / 'masks/2.png').write_bytes((tmp_path / 'images/2.png').read_bytes())
    assert 'WARNING: images that are, byte for byte, their own masks (1)' in ' '.join(find_pairs(tmp_path).notes)


def test_a_share_for_validation_is_refused_where_nothing_is_held_out(tmp_path):
    make_files(tmp_path, 'train/images/{1..4}.png train/masks/{1..4}.png val/images/{5..6}.png val/masks/{5..6}.png')
    assert counts(find_pairs(tmp_path)) == dict(train=4, val=2)
    with pytest.raises(FoundError, match=r'0\.5 .* there are images for validation already'):
        find_pairs(tmp_path, val=0.5)
    with pytest.raises(FoundError, match='above 0 and below 1, got 1'):
        find_pairs(make_files(tmp_path / 'train', ()), val=1.)
