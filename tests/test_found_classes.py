"""Images and their classes are found in the layouts that people use, and segmentation is told from classification."""

from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import pytest
from made_folders import SHARED, counts, make_files

from mmseg_gpt.datasets.found import FoundError, Pair, find_labelled_images, make_split, task_of_folder
from mmseg_gpt.datasets.found.splits import natural, scene_of


def classes_of(found) -> dict[str, str]:
    """Returns the name of the class of each image, by its path below the root."""
    return {image.relative_to(found.root).as_posix(): found.classes[number]
            for samples in found.splits.values() for image, number in samples}


CLASSES = {
    'class folders': ('cat/{1..5}.jpg dog/{1..5}.JPEG', dict(train=8, val=2), ('cat', 'dog')),
    'spaces and other letters': (['lily of the valley/{1..4}.png', 'Löwenzahn/{1..4}.png', '菊/{1..4}.png'],
                                 dict(train=9, val=3), ('Löwenzahn', 'lily of the valley', '菊')),
    'numbers': ('0/{1..2}.png 2/{1..2}.png 10/{1..2}.png', dict(train=3, val=3), ('0', '2', '10')),
    'splits': ('train/cat/{1..3}.jpg train/dog/{1..3}.jpg valid/cat/1.jpg valid/dog/1.jpg test/dog/1.jpg',
               dict(train=6, val=2, test=1), ('cat', 'dog')),
    'splits, twice as deep': (
        'seg_train/seg_train/sea/{1..3}.jpg seg_train/seg_train/ice/{1..3}.jpg seg_test/seg_test/sea/4.jpg '
        'seg_test/seg_test/ice/4.jpg seg_pred/seg_pred/{7..9}.jpg', dict(train=4, val=2, test=2), ('ice', 'sea')),
    'one folder above': ('PetImages/Cat/{0..4}.jpg PetImages/Dog/{0..4}.jpg', dict(train=8, val=2), ('Cat', 'Dog')),
    'a class called train': ('train/{1..5}.jpg bus/{1..5}.jpg car/{1..5}.jpg', dict(train=12, val=3),
                             ('bus', 'car', 'train')),
    'splits below classes': ('cat/train/{1..3}.jpg cat/val/4.jpg dog/train/{1..3}.jpg dog/val/4.jpg',
                             dict(train=6, val=2), ('cat', 'dog')),
    'faces': ('with_mask/with_mask_{1..5}.jpg without_mask/without_mask_{1..5}.jpg', dict(train=8, val=2),
              ('with_mask', 'without_mask')),
}


@pytest.mark.parametrize('name', CLASSES)
def test_class_folders(tmp_path, name):
    files, expected, classes = CLASSES[name]
    found = find_labelled_images(make_files(tmp_path, files))
    assert (counts(found), found.classes) == (expected, classes), found
    assert any('are taken for classes too' in note for note in found.notes) == ('train' in classes)
    assert all(name in image.split('/') for image, name in classes_of(found).items())
    assert task_of_folder(tmp_path)[0] == 'classification'
    for number in range(len(classes)):
        assert number in [each for _, each in found.splits['train']]


LISTED = {
    'class folders and numbers, as flowers17 has': (
        'b/{1..3}.jpg a/{1..3}.jpg', {'train.txt': 'b/1.jpg 0\nb/2.jpg 0\na/1.jpg 1\na/2.jpg 1\n',
                                      'test.txt': 'b/3.jpg 0\na/3.jpg 1\n'}, dict(train=2, val=2, test=2), ('b', 'a')),
    'names without classes': ('a/{1..3}.jpg b/{1..3}.jpg', {'train.txt': 'a/1.jpg\na/2.jpg\nb/1.jpg\nb/2.jpg\n',
                                                            'val.txt': 'a/3\nb/3\n'}, dict(train=4, val=2), ('a', 'b')),
    'dog breeds': ('train/{1..6}.jpg', {'labels.csv': 'id,breed\n1,pug\n2,pug\n3,pug\n4,husky\n5,husky\n6,husky\n'},
                   dict(train=4, val=2), ('husky', 'pug')),
    'a split and a name of each class': (
        'im/{1..5}.jpg', {'all.csv': 'filename;class_id;class_name;split\nim/1.jpg;7;big cat;train\n'
                          'im/2.jpg;3;dog;train\nim/3.jpg;7;big cat;valid\nim/4.jpg;3;dog;test\n'
                          'im/5.jpg;3;dog;train\n'},
        dict(train=3, val=1, test=1), ('big cat', 'dog')),
    'Roboflow': ('train/{1..4}.jpg valid/{5..6}.jpg', {
        'train/_classes.csv': 'filename, apple, pear\n1.jpg, 1, 0\n2.jpg, 0, 1\n3.jpg, 1, 0\n4.jpg, 0, 1\n',
        'valid/_classes.csv': 'filename, apple, pear\n5.jpg, 1, 0\n6.jpg, 0, 1\n'}, dict(train=4, val=2),
        ('apple', 'pear')),
    'numbers from 1 and a list of names': (
        'im/{1..4}.png', {'train.txt': 'im/1.png 1\nim/2.png 2\n', 'val.txt': 'im/3.png 1\nim/4.png 2\n',
                          'classes.txt': 'rose\ntulip\n'}, dict(train=2, val=2), ('rose', 'tulip')),
    'a list that is called as one of names': (
        'im/{1..4}a.png', {'labels.txt': '4\n0 im/1a.png\n1 im/2a.png\n0 im/3a.png\n1 im/4a.png\n'},
        dict(train=2, val=2), ('0', '1')),
    'a header and tabs': ('im/{1..4}.png', {'data.tsv': 'image\tlabel\nim/1.png\tx\nim/2.png\ty\n3\tx\n4\ty'},
                          dict(train=2, val=2), ('x', 'y')),
}


@pytest.mark.parametrize('name', LISTED)
def test_lists_of_classes(tmp_path, name):
    files, lists, expected, classes = LISTED[name]
    make_files(tmp_path, files)
    for file, text in lists.items():
        (tmp_path / file).write_text(text)
    found = find_labelled_images(tmp_path)
    assert (counts(found), found.classes) == (expected, classes), found
    assert next(iter(lists)).rpartition('/')[2] in found.layout
    assert task_of_folder(tmp_path)[0] == 'classification'
    if len(lists) == 1:
        assert find_labelled_images(tmp_path / next(iter(lists))).splits == found.splits


def test_a_listed_image_without_a_class_is_left_out(tmp_path):
    make_files(tmp_path, 'images/{1..8}.jpg')
    (tmp_path / 'train.csv').write_text('image,class\n1,a\n2,b\n3,a\n4,b\n5,\n6\n')
    (tmp_path / 'test.csv').write_text('image\n7.jpg\n8.jpg\n')
    found = find_labelled_images(tmp_path)
    assert found.classes == ('a', 'b') and counts(found) == dict(train=2, val=2)
    assert 'images left out, because lists name them without a class (4): images/7.jpg, images/8.jpg, ' \
        'images/5.jpg, ...' in found.notes


def test_a_first_line_of_an_absent_image_is_no_header(tmp_path):
    make_files(tmp_path, '{1..4}.jpg')
    (tmp_path / 'all.csv').write_text('0.jpg,a\n1.jpg,a\n2.jpg,b\n3.jpg,a\n4.jpg,b\n')
    assert 'all.csv: lines that name no image that is there (1 of 5): 0.jpg,a' in find_labelled_images(tmp_path).notes


def test_numbers_are_those_of_the_list(tmp_path):
    make_files(tmp_path, LISTED['class folders and numbers, as flowers17 has'][0])
    (tmp_path / 'train.txt').write_text('b/1.jpg 0\nb/2.jpg 0\na/1.jpg 1\na/2.jpg 1\n')
    found = find_labelled_images(tmp_path)
    assert {classes_of(found)[image] for image in ('b/1.jpg', 'b/2.jpg')} == {'b'} and found.classes[0] == 'b'
    assert any('no list names them (2)' in note for note in found.notes)


WRONG = {
    'a class that is not trained': ('train/cat/{1..3}.jpg train/dog/{1..3}.jpg val/cat/1.jpg val/Dog/1.jpg', {},
                                    r'class Dog of the split val has no training images \(is it dog\?\): val/Dog/'),
    'one class': ('cat/{1..3}.jpg dog.txt', {}, 'only one class, cat'),
    'one class in splits': ('train/cat/{1..3}.jpg val/cat/1.jpg', {}, 'only one class, cat'),
    'single images': ('cat/1.jpg dog/1.jpg', {}, 'no class has two images'),
    'several classes of an image': ('{1..3}.jpg', {'a.csv': 'image,cat,dog\n1,1,0\n2,1,1\n3,0,1\n'},
                                    'line 3: .* one class'),
    'columns that may be classes': ('{1..3}.jpg', {'a.csv': 'image,size,colour\n1,big,red\n2,small,red\n3,big,blue\n'},
                                    'which column is the class.*size, colour'),
    'names that begin with 0 or with 1': (
        '{1..3}a.jpg', {'a.txt': '1a.jpg 1\n2a.jpg 2\n3a.jpg 1\n', 'classes.txt': 'a\nb\nc\n'},
        "classes.txt has 3 names, .* is 1 'a' or 'b'"),
    'an unknown split': ('{1..3}.jpg', {'a.csv': 'image,class,split\n1,a,train\n2,b,later\n'}, '"later"'),
    'two classes of an image': ('{1..3}.jpg', {'a.csv': 'image,class\n1,a\n2,b\n1,b\n'}, '1.jpg has two classes'),
    'nothing': ('a.pdf', {}, r'no class folders; it has: \.pdf \(1\)'),
}


@pytest.mark.parametrize('name', WRONG)
def test_what_is_wrong_with_classes_is_said(tmp_path, name):
    files, lists, message = WRONG[name]
    make_files(tmp_path, files)
    for file, text in lists.items():
        (tmp_path / file).write_text(text)
    with pytest.raises(FoundError, match=message):
        print(find_labelled_images(tmp_path))


def test_what_the_user_must_hear_of_classes(tmp_path):
    make_files(tmp_path, 'cat/{1..4}.jpg dog/{1..4}.jpg cow/1.jpg loose.jpg cat/kitten/9.jpg')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'dog/2.jpg').write_bytes((tmp_path / 'cat/2.jpg').read_bytes())
    found = find_labelled_images(tmp_path)
    notes = ' '.join(found.notes)
    for part in ('loose.jpg', str(tmp_path / 'empty'), 'cat/kitten/9.jpg', 'single image, which is trained on', 'cow'):
        assert part in notes, (part, notes)
    assert str(tmp_path / 'dog/2.jpg') in notes  # in two classes or, if one is held out, in two splits
    assert counts(find_labelled_images(tmp_path, val=0.5)) != counts(found)
    assert find_labelled_images(tmp_path).splits == found.splits


@pytest.mark.parametrize('files, task', [
    ('images/{1..3}.jpg masks/{1..3}.png', 'segmentation'),
    ('MT_Blowhole/Imgs/{1..3}.jpg MT_Blowhole/Imgs/{1..3}.png MT_Free/Imgs/{1..3}.jpg MT_Free/Imgs/{1..3}.png',
     'segmentation'),
    ('a/{1..3}.jpg a/{1..3}.json', 'segmentation'), ('images/{1..3}.jpg labels/{1..3}.txt', 'segmentation'),
    ('images/{1..3}.jpg masks/a{4..6}.png', 'segmentation'),
    ('cat/{1..3}.png dog/{1..3}.png cow/{1..3}.png', 'classification'),
    ('cat/{10..40}.jpg cat/10_mask.jpg dog/{10..40}.jpg', 'classification'),
    ('mask/{1..3}.jpg no_mask/{1..3}.jpg', 'classification')])
def test_task_of_a_folder(tmp_path, files, task):
    assert task_of_folder(make_files(tmp_path, files))[0] == task


@pytest.mark.parametrize('files, message', [
    ('foo/{1..3}.png bar/{1..3}.png', 'foo.*--task'), ('foo/{1..3}.jpg bar/{1..3}.png', '--task'),
    ('map/{1..3}.jpg photo/{1..3}.jpg chart/{1..3}.jpg', '--task'),
    ('1.jpg', r'neither.*\.jpg \(1\)\. For segmentation, put the masks into a folder masks')])
def test_task_that_is_not_clear_is_asked_for(tmp_path, files, message):
    with pytest.raises(FoundError, match=message):
        print(task_of_folder(make_files(tmp_path, files)))


def test_an_image_is_no_list_of_classes(tmp_path):
    with pytest.raises(FoundError, match=r'1\.JPG is an image: give the folder'):
        task_of_folder(make_files(tmp_path, '1.JPG') / '1.JPG')


def pairs(*names: str) -> list[Pair]:
    """Returns pairs without masks."""
    return [Pair(Path('/data') / name, None) for name in names]


def test_scenes_stay_together():
    videos = [f'v{i}_{frame:06d}.png' for i in range(10) for frame in range(10)]
    splits, how = make_split(pairs(*videos), {'val': 0.2})
    scenes = {split: {pair.image.name.split('_')[0] for pair in of_split} for split, of_split in splits.items()}
    assert len(scenes['val']) == 2 and len(scenes['train']) == 8 and not scenes['val'] & scenes['train']
    assert 'whole scenes' in how and next(iter(sorted(scenes['val']))) in how and '20 of 100' in how


def test_two_long_videos_are_cut_into_blocks():
    splits, how = make_split(pairs(*(f'v{i}_{frame:06d}.png' for i in range(2) for frame in range(50))), {'val': 0.2})
    numbers = [int(pair.image.stem[-6:]) for pair in splits['val']]
    neighbours = sum(b - a == 1 for a, b in pairwise(numbers))
    assert 15 <= len(numbers) <= 20 and neighbours >= 0.7 * len(numbers), numbers
    assert 'blocks of consecutive frames (at most 6)' in how and 'v0, v1' in how


def test_folders_are_scenes():
    splits, how = make_split(pairs(*(f's{i}/im/{frame}.png' for i in range(10) for frame in range(10))), {'val': 0.2})
    assert len({pair.image.parent for pair in splits['val']}) == 2 and len(splits['val']) == 20
    assert '/im' in how and not {p.image.parent for p in splits['val']} & {p.image.parent for p in splits['train']}


def test_numbers_alone_show_no_scene():
    images, shares = pairs(*(f'image_{i:04d}.jpg' for i in range(100))), {'val': 0.2, 'test': 0.1}
    splits, how = make_split(images, shares)
    assert [len(splits[name]) for name in ('train', 'val', 'test')] == [70, 20, 10]
    assert len({pair for of_split in splits.values() for pair in of_split}) == 100 and 'each by itself' in how
    assert make_split(images, shares, seed=1)[0] != splits == make_split(images[::-1], shares)[0]


@pytest.mark.parametrize('number', range(2, 11))
def test_tiny_sets_have_an_image_for_each_split(number):
    for names in ([f'{i}.png' for i in range(number)], [f'v1_{i}.png' for i in range(number)],
                  [f'v{i // 4}_{i}.png' for i in range(number)]):
        splits, _ = make_split(pairs(*names), {'val': 0.2})
        assert splits['train'] and splits['val'] and len(splits['val']) <= max(number // 2, 1), splits
    with pytest.raises(FoundError, match='1 image with a mask cannot be split'):
        make_split(pairs('1.png'), {'val': 0.2})


def test_altered_copies_of_an_image_stay_together():
    splits, _ = make_split(pairs(*(f'im_{i}_jpg.rf.{i * 7919 + j:032x}.jpg' for i in range(20) for j in range(3))),
                           {'val': 0.2})
    originals = [{pair.image.name.partition('.rf.')[0] for pair in splits[name]} for name in ('train', 'val')]
    assert len(splits['val']) == 12 and not originals[0] & originals[1]


@pytest.mark.parametrize('name, scene', [
    ('0001TP_006690', '0001tp'), ('0006R0_f01080', '0006r0'), ('seq3_000123', 'seq3'), ('frame_0001', 'frame'),
    ('frankfurt_000000_000294_leftImg8bit', 'frankfurt_000000'), ('P0001_0_896_0_896', 'p0001'), ('image_0001', ''),
    ('austin12', 'austin'), ('case_012_slice_034', 'case_012_slice'), ('video1_frame12', 'video1'), ('0001', '')])
def test_names_of_scenes(tmp_path, name, scene):
    assert scene_of(tmp_path / f'{name}.png') == scene


@pytest.mark.skipif(not (SHARED / 'real').is_dir(), reason='needs real photographs')
def test_real_classes():
    found = find_labelled_images(SHARED / 'real/flowers17')
    assert counts(found) == dict(train=867, val=221, test=272) and found.classes[0] == 'daffodil'
    assert all(image.parent.name == found.classes[number] for image, number in found.splits['train'])
    assert counts(find_labelled_images(SHARED / 'real/dtd10')) == dict(train=960, val=240)


def test_frames_of_one_video_are_kept_in_blocks():
    splits, how = make_split(pairs(*(f'clip0_frame{i:04d}.png' for i in range(30))), {'val': 0.2})
    numbers = [int(pair.image.stem[-4:]) for pair in splits['val']]
    assert numbers == list(range(numbers[0], numbers[0] + 6)) and 'blocks of consecutive frames (at most 6)' in how
    splits, how = make_split(pairs(*(f'clip{i}_frame{j:04d}.png' for i in range(3) for j in range(4))), {'val': 0.2})
    assert len(splits['val']) == 4 and len({pair.image.stem[:5] for pair in splits['val']}) == 1
    assert 'whole scene' in how and 'WARNING' not in how
    _, how = make_split(pairs(*(f'clip0_frame{i:04d}.png' for i in range(8))), {'val': 0.2})
    assert 'WARNING: neighbouring frames of one scene are on both sides' in how


def test_frames_of_one_video_stay_together_in_each_class(tmp_path):
    root = make_files(tmp_path, 'run/filmA_frame_{01..20}.jpg run/filmB_frame_{01..20}.jpg run/filmC_frame_{01..10}.jpg'
                                ' walk/frame_{1..40}.jpg eat/{01..20}.jpg')
    found = find_labelled_images(root)
    kept = {name: sorted(int(file.stem.rpartition('_')[2]) for file, _ in found.splits['val'] if
                         file.parent.name == name) for name in found.classes}
    assert kept['run'] == [*range(1, 11)] and len(kept['eat']) == 4  # film C as a whole
    assert sum(after - before > 1 for before, after in pairwise(kept['walk'])) < 2 and len(kept['walk']) == 8
    notes = ' '.join(found.notes)
    assert 'run are kept for val, in whole scenes, as names show them: run/filmc' in notes
    assert 'walk are kept for val, in blocks of consecutive frames (at most 4)' in notes and 'class eat' not in notes


def test_splits_are_the_same_on_all_machines(tmp_path):
    names = [f'{folder}/{name}.jpg' for folder in ('é', 'f') for name in ('e', 'éa', 'éb', 'ez', 'f', 'fé', 'ff')]
    kept = []
    for form in ('NFC', 'NFD'):  # some systems part accents from their letters
        root = make_files(tmp_path / form, [normalize(form, name) for name in names])
        images = [Pair(file, file) for file in sorted(root.rglob('*.jpg'))]
        for samples in (find_labelled_images(root).splits['val'], make_split(images, {'val': 0.2})[0]['val']):
            kept.append({normalize('NFC', str(file.relative_to(root))) for file, *_ in samples})
    assert kept[:2] == kept[2:]
    names = {'1', '01', '001'}
    assert sorted(sorted(names), key=natural) == sorted(sorted(names, reverse=True), key=natural)


def test_copies_stay_together_where_the_split_is_made(tmp_path):
    make_files(tmp_path, 'cat/{1..8}.jpg dog/{1..8}.jpg')
    for name in '23456':
        (tmp_path / f'cat/{name}.jpg').write_bytes((tmp_path / 'cat/1.jpg').read_bytes())
    found = find_labelled_images(tmp_path)
    assert sum(counts(found).values()) == 16 and 'left out' not in ' '.join(found.notes)


def test_a_single_class_folder_is_named(tmp_path):
    with pytest.raises(FoundError, match='only one class folder, cat'):
        task_of_folder(make_files(tmp_path, 'cat/{1..3}.jpg'))


def test_an_image_in_two_classes_is_warned_of(tmp_path):
    make_files(tmp_path, 'cat/{1..4}.jpg dog/{1..4}.jpg')
    (tmp_path / 'dog/2.jpg').write_bytes((tmp_path / 'cat/2.jpg').read_bytes())
    assert 'WARNING: images in two classes, byte for byte (1)' in ' '.join(find_labelled_images(tmp_path).notes)


def test_names_that_hardly_differ_are_warned_of(tmp_path):
    notes = find_labelled_images(make_files(tmp_path, 'Wild_Cat/{1..4}.jpg wildcat/{5..8}.jpg dog/{1..4}.jpg')).notes
    assert [note for note in notes if 'WARNING' in note] == [
        "WARNING: 'Wild_Cat' and 'wildcat' are taken for two classes. If they are one, give them one name"]


def test_a_share_for_validation_is_refused_where_no_image_is_held_out(tmp_path):
    make_files(tmp_path, 'train/cat/{1..4}.jpg train/dog/{1..4}.jpg val/cat/5.jpg val/dog/5.jpg')
    assert counts(find_labelled_images(tmp_path)) == dict(train=8, val=2)
    with pytest.raises(FoundError, match=r'0\.5 .* there are images for validation already'):
        find_labelled_images(tmp_path, val=0.5)
