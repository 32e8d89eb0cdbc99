"""Polygons and run lengths of annotation tools against pixels that are found another way."""

import base64
import csv
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_gpt.datasets.found.class_table import find_classes, read_classes
from mmseg_gpt.datasets.found.types import Pair
from mmseg_gpt.datasets.found.understand import understand_masks
from mmseg_gpt.datasets.polygons import LabelsError, convert_labels
from mmseg_gpt.datasets.polygons.label_studio import brush_mask
from mmseg_gpt.datasets.polygons.shapes import ellipse, inside, turned

WIDTH, HEIGHT = 24, 18
TRIANGLE = [(2.3, 3.1), (20.7, 5.6), (7.9, 15.2)]
STAR = [(12, 1), (16, 17), (1, 6), (23, 6), (5, 17)]  # crosses itself
ODD = Path(__file__).parents[2] / 'shared/odd_labels'


def is_inside(x: float, y: float, ring: list) -> bool:
    """Counts the edges to the right of a point."""
    crossed = False
    for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]]):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            crossed = not crossed
    return crossed


def expected(*rings: list, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """The pixels of an image whose centres are inside an odd number of rings, one by one."""
    return np.array([[sum(is_inside(x + 0.5, y + 0.5, ring) for ring in rings) % 2 == 1 for x in range(size[0])]
                     for y in range(size[1])])


def block(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def photo(tmp_path) -> Callable[..., Path]:
    """A factory of photographs below the source folder."""

    def make(name: str = 'photo.jpg', size: tuple[int, int] = (WIDTH, HEIGHT), **options) -> Path:
        path = tmp_path / 'src' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', size, (90, 120, 30)).save(path, **options)
        return path

    return make


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def masks(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in (folder / 'masks').rglob('*.png'):
        with Image.open(path) as image:
            assert image.mode == 'L'
            found[path.relative_to(folder / 'masks').with_suffix('').as_posix()] = np.array(image)
    return found


def names(folder: Path) -> list[str]:
    lines = [line.split(' ', 1) for line in (folder / 'classes.txt').read_text().splitlines()]
    assert [number for number, _ in lines] == [*map(str, range(len(lines)))]
    return [name for _, name in lines]


@pytest.mark.parametrize('rings', [
    [TRIANGLE], [STAR], [[(-5, -5), (40, 4.1), (8, 30)]], [[(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)]],
    [TRIANGLE, [(7, 6), (12, 7), (9, 11)]], [[(30, 1), (40, 1), (35, 9)]], [[(1.5, 1.5), (9.5, 1.5), (9.5, 5.5)]]],
    ids=['triangle', 'star', 'larger than the image', 'whole', 'hole', 'outside', 'through centres'])
def test_pixels_whose_centres_are_inside(rings):
    found, left, top = inside([np.array(ring, float) for ring in rings], WIDTH, HEIGHT)
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[top:top + found.shape[0], left:left + found.shape[1]] = found
    np.testing.assert_array_equal(whole, expected(*rings))


def test_ellipses_and_turns():
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    found, left, top = inside([ellipse((11, 9), (8.2, 4.1))], WIDTH, HEIGHT)
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[top:top + found.shape[0], left:left + found.shape[1]] = found
    np.testing.assert_array_equal(whole, ((x - 11) / 8.2)**2 + ((y - 9) / 4.1)**2 < 1)
    np.testing.assert_allclose(turned(np.array([[3., 1.]]), 90, (1, 1)), [[1, 3]])  # to the right, then down


# --- labelme -------------------------------------------------------------------------------------------------


def labelme(*shapes: dict, image: str = 'photo.jpg', size: tuple = (WIDTH, HEIGHT)) -> dict:
    return dict(version='5.5.0', flags={}, shapes=[dict(dict(group_id=None, shape_type='polygon'), **shape)
                                                   for shape in shapes],
                imagePath=image, imageData=None, imageWidth=size[0], imageHeight=size[1])


def test_labelme_draws_in_order_and_knows_its_list_of_labels(photo, tmp_path):
    photo()
    covered = np.zeros((4, 5), np.uint8)
    covered[1:, 2:] = 1
    picture = io.BytesIO()
    Image.fromarray(covered).save(picture, 'PNG')
    write(tmp_path / 'src/photo.json', labelme(
        dict(label='car', points=TRIANGLE), dict(label='road', points=[[4, 2], [10, 9]], shape_type='rectangle'),
        dict(label='__ignore__', points=[[6, 4], [8, 4], [8, 6], [6, 6]], group_id=1),
        dict(label='pole', points=[[18, 12], [18, 14.5]], shape_type='circle'),
        dict(label='car', points=[[0, 10], [4, 13]], shape_type='mask', mask=base64.b64encode(picture.getvalue()
                                                                                              ).decode()),
        dict(label='pole', points=[[20, 2.5], [24, 2.5]], shape_type='line'),
        dict(label='car', points=[[1, 1]], shape_type='point'), image='..\\src\\photo.jpg'))
    write(tmp_path / 'src/labels.txt', '__ignore__\n_background_\nroad\ncar\npole')
    converted = convert_labels(tmp_path / 'src', tmp_path / 'dst', line_width=3)
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted[expected(TRIANGLE)] = 2
    wanted[block(4, 2, 10, 9)] = 1
    wanted[block(6, 4, 8, 6)] = 255
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    wanted[(x - 18)**2 + (y - 12)**2 < 2.5**2] = 3
    wanted[block(2, 11, 5, 14)] = 2
    wanted[(np.hypot(np.minimum(x - 20, 0), y - 2.5) <= 1.5)] = 3
    np.testing.assert_array_equal(masks(tmp_path / 'dst')['photo'], wanted)
    assert names(tmp_path / 'dst') == ['_background_', 'road', 'car', 'pole']
    assert read_classes(tmp_path / 'dst/classes.txt').names == ('_background_', 'road', 'car', 'pole')
    assert any('point (1)' in note for note in converted.notes)
    assert converted.survey.ignored == 4 and converted.survey.pixels.tolist() == np.bincount(
        wanted.ravel(), minlength=256)[:4].tolist()
    pairs = list(csv.DictReader((tmp_path / 'dst/pairs.csv').open()))
    assert pairs == [dict(image='images/photo.jpg', mask='masks/photo.png')]
    assert (tmp_path / 'dst/images/photo.jpg').resolve() == tmp_path / 'src/photo.jpg'


def test_unlabelled_pixels_may_be_ignored_and_labels_merged(photo, tmp_path):
    photo()
    write(tmp_path / 'src/photo.json', labelme(dict(label='van', points=TRIANGLE), dict(label='road', points=STAR)))
    convert_labels(tmp_path / 'src', tmp_path / 'dst', classes='road,car=car+van', unlabelled_ignored=True)
    wanted = np.where(expected(STAR), 0, np.where(expected(TRIANGLE), 1, 255))
    np.testing.assert_array_equal(masks(tmp_path / 'dst')['photo'], wanted)
    assert names(tmp_path / 'dst') == ['road', 'car']


def test_a_single_class_and_ignored_pixels_are_not_read_as_background_and_class(photo, tmp_path):
    pair = Pair(photo(), tmp_path / 'dst/masks/photo.png')
    write(tmp_path / 'src/photo.json', labelme(dict(label='road', points=TRIANGLE)))
    convert_labels(tmp_path / 'src', tmp_path / 'dst', classes='road', unlabelled_ignored=True)
    found = understand_masks(dict(train=[pair], val=[pair]), find_classes(tmp_path / 'dst'))
    assert found.rule is None and 'leaves one class to learn' in found.problems[0]


def test_unknown_labels_are_refused_with_what_may_be_meant(photo, tmp_path):
    photo()
    write(tmp_path / 'src/photo.json', labelme(dict(label='Car', points=TRIANGLE), dict(label='zebra', points=STAR)))
    with pytest.raises(LabelsError, match=r"'Car' \(1; is 'car' meant\?\), 'zebra' \(1\).*photo.json"):
        convert_labels(tmp_path / 'src', tmp_path / 'dst', classes='road,car')
    assert not (tmp_path / 'dst').exists()


def test_shapes_outside_and_empty_and_missing_annotations_are_counted(photo, tmp_path):
    for name in ('a.jpg', 'b.jpg', 'c.jpg'):
        photo(name)
    write(tmp_path / 'src/a.json', labelme(dict(label='x', points=[(-9, -9), (40, 4.1), (8, 30)]), image='a.jpg'))
    write(tmp_path / 'src/b.json', labelme(image='b.jpg'))
    said = '\n'.join(convert_labels(tmp_path / 'src', tmp_path / 'dst').notes)
    assert 'shapes that reach out of their images, and are cut (1): those of a.jpg' in said
    assert 'images whose annotation has no shape, so that they are all background (1): b.jpg' in said
    assert 'images without an annotation, which are left out (1): ' in said and 'c.jpg' in said
    found = masks(tmp_path / 'dst')
    assert found.keys() == {'a', 'b'} and not found['b'].any()
    np.testing.assert_array_equal(found['a'] == 1, expected([(-9, -9), (40, 4.1), (8, 30)]))


def test_a_size_that_differs_is_refused_but_for_a_turn_by_exif(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(exif=exif)
    tall = labelme(dict(label='x', points=[[0, 0], [5, 0], [5, 7], [0, 7]]), size=(HEIGHT, WIDTH))
    write(tmp_path / 'src/photo.json', tall)
    converted = convert_labels(tmp_path / 'src', tmp_path / 'dst')
    assert masks(tmp_path / 'dst')['photo'].shape == (WIDTH, HEIGHT)
    with Image.open(tmp_path / 'dst/images/photo.png') as image:
        assert image.size == (HEIGHT, WIDTH) and not image.getexif()
    assert any('EXIF orientation' in note for note in converted.notes)
    photo()
    with pytest.raises(LabelsError, match=r'photo.json was drawn on 18x24 pixels, but .*photo.jpg has 24x18'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')


@pytest.mark.parametrize('mode', ['CMYK', 'P'])
def test_an_upright_copy_keeps_the_colours(mode, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    path = photo(f'photo.{"jpg" if mode == "CMYK" else "png"}')
    with Image.open(path) as image:
        image.convert(mode, palette=Image.Palette.ADAPTIVE).save(path, exif=exif)
    write(tmp_path / 'src/photo.json', labelme(dict(label='x', points=[[0, 0], [5, 0], [5, 7]])))
    convert_labels(tmp_path / 'src', tmp_path / 'dst')
    with Image.open(tmp_path / 'dst/images/photo.png') as image:
        np.testing.assert_allclose(np.array(image.convert('RGB'))[0, 0], (90, 120, 30), atol=9)


def test_a_folder_of_something_else_is_not_overwritten(photo, tmp_path):
    photo()
    write(tmp_path / 'src/photo.json', labelme(dict(label='x', points=TRIANGLE)))
    write(tmp_path / 'mine/notes.txt', 'mine')
    with pytest.raises(LabelsError, match='is not empty'):
        convert_labels(tmp_path / 'src', tmp_path / 'mine')
    with pytest.raises(LabelsError, match=r'--ignore-crowds is for COCO, and .* has annotations of labelme'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst', ignore_crowds=True)
    for _ in range(2):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')
    write(tmp_path / 'other/b.json', labelme(dict(label='x', points=TRIANGLE), image='b.jpg'))
    with pytest.raises(LabelsError, match=r'dst was made of .*src, not of .*other'):
        convert_labels(tmp_path / 'other', tmp_path / 'dst')
    photo('b.jpg')
    (tmp_path / 'src/photo.json').rename(tmp_path / 'src/b.json')  # nothing stays of what is no longer annotated
    write(tmp_path / 'src/b.json', labelme(dict(label='x', points=STAR), image='b.jpg'))
    convert_labels(tmp_path / 'src', tmp_path / 'dst')
    assert masks(tmp_path / 'dst').keys() == {'b'} and not (tmp_path / 'dst/images/photo.jpg').is_symlink()


# --- CVAT ----------------------------------------------------------------------------------------------------

CVAT = '''<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>road</name><color>#804080</color></label><label><name>car</name><color>#0000ff</color></label>
</labels></task></meta>
<image id="0" name="left/photo.jpg" width="24" height="18">
<polygon label="car" z_order="1" points="{star}"/>
<box label="road" xtl="2" ytl="3" xbr="12" ybr="9" z_order="0"/>
<mask label="road" rle="1,3,2,2" left="20" top="10" width="4" height="2" z_order="2"/>
<points label="car" points="1,1"/>
</image>
<image id="1" name="right/photo.jpg" width="24" height="18">
<box label="car" xtl="5" ytl="6" xbr="15" ybr="10" rotation="90"/>
</image></annotations>'''


def test_cvat_draws_by_z_order_and_says_colours(photo, tmp_path):
    photo('images/left/photo.jpg')
    photo('images/right/photo.jpg')
    write(tmp_path / 'src/annotations.xml', CVAT.format(star=';'.join(f'{x},{y}' for x, y in STAR)))
    converted = convert_labels(tmp_path / 'src/annotations.xml', tmp_path / 'dst')
    wanted = np.where(expected(STAR), 2, np.where(block(2, 3, 12, 9), 1, 0))
    wanted[10, 21:24] = wanted[11, 22:24] = 1  # 1 not, 3 covered, 2 not, 2 covered
    found = masks(tmp_path / 'dst')
    np.testing.assert_array_equal(found['left/photo'], wanted)
    np.testing.assert_array_equal(found['right/photo'], 2 * block(8, 3, 12, 13))  # about the centre (10, 8)
    assert names(tmp_path / 'dst') == ['background', 'road', 'car'] and 'points (1)' in str(converted.notes)
    assert (tmp_path / 'dst/palette.csv').read_text().split() == [
        'name,r,g,b', 'background,0,0,0', 'road,128,64,128', 'car,0,0,255']


def test_cvat_of_videos_and_boxes_of_voc_are_refused(tmp_path):
    write(tmp_path / 'video/a.xml', '<annotations><track id="0" label="car"/></annotations>')
    with pytest.raises(LabelsError, match=r'CVAT for images 1\.1'):
        convert_labels(tmp_path / 'video', tmp_path / 'dst')
    write(tmp_path / 'voc/a.xml', '<annotation><object><bndbox/></object></annotation>')
    with pytest.raises(LabelsError, match='boxes of Pascal VOC'):
        convert_labels(tmp_path / 'voc', tmp_path / 'dst')


# --- COCO ----------------------------------------------------------------------------------------------------


def coco(*annotations: dict) -> dict:
    return dict(images=[dict(id=7, file_name='photo.jpg', width=WIDTH, height=HEIGHT),
                        dict(id=8, file_name='empty.jpg', width=WIDTH, height=HEIGHT)],
                categories=[dict(id=0, name='things', supercategory='none'),
                            dict(id=5, name='car', supercategory='things'),
                            dict(id=3, name='road', supercategory='things')],
                annotations=[dict(each, id=i, image_id=7) for i, each in enumerate(annotations)])


def test_boxes_alone_are_refused(photo, tmp_path):
    photo()
    write(tmp_path / 'src/coco.json', coco(dict(category_id=5, bbox=[1, 1, 4, 4])))
    with pytest.raises(LabelsError, match=r'src has boxes \(1\) and no polygons'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a mask down its columns, of uncovered pixels first."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@pytest.mark.parametrize('ignore_crowds', [False, True])
def test_coco_reads_parts_runs_and_crowds(ignore_crowds, photo, tmp_path):
    photo()
    photo('empty.jpg')
    parts = [TRIANGLE, [(14, 10), (22, 10), (22, 16), (14, 16)]]
    write(tmp_path / 'src/instances.json', coco(
        dict(category_id=3, segmentation=[np.ravel(part).tolist() for part in parts]),
        dict(category_id=5, iscrowd=1, segmentation=dict(size=[HEIGHT, WIDTH], counts=runs(block(1, 2, 9, 17)))),
        dict(category_id=5, bbox=[1, 1, 4, 4], segmentation=[])))
    converted = convert_labels(tmp_path / 'src', tmp_path / 'dst', ignore_crowds=ignore_crowds)
    wanted = np.where(block(1, 2, 9, 17), 255 if ignore_crowds else 2,
                      expected(parts[0]) | expected(parts[1]))
    found = masks(tmp_path / 'dst')
    np.testing.assert_array_equal(found['photo'], wanted)
    assert not found['empty'].any()
    assert names(tmp_path / 'dst') == ['background', 'road', 'car'] and 'box without an outline (1)' in str(
        converted.notes)


def test_coco_reads_compressed_runs(photo, tmp_path):
    coding = pytest.importorskip('pycocotools.mask')
    photo()
    packed = coding.encode(np.asfortranarray(expected(STAR).astype(np.uint8)))
    write(tmp_path / 'src/a.json', coco(dict(category_id=3, segmentation=dict(
        size=[HEIGHT, WIDTH], counts=packed['counts'].decode()))))
    convert_labels(tmp_path / 'src', tmp_path / 'dst')
    np.testing.assert_array_equal(masks(tmp_path / 'dst')['photo'], expected(STAR))


def test_coco_says_what_is_broken(photo, tmp_path):
    write(tmp_path / 'src/a.json', coco(dict(category_id=3, segmentation=dict(size=[HEIGHT, WIDTH], counts=[5, 6]))))
    with pytest.raises(LabelsError, match=r'a.json: a mask on photo.jpg .* 11 pixels, but its size is 24x18'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')
    write(tmp_path / 'src/a.json', coco(dict(category_id=99, segmentation=[])))
    with pytest.raises(LabelsError, match='category 99'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')
    for each, said in (
            (dict(segmentation=dict(size=[9, 12], counts=[0, 108])), 'annotation 0 has run lengths of 12x9 pixels, but '
             'its image photo.jpg has 24x18'),
            (dict(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), 'lacks what a file of COCO should have .*reshape'),
            (dict(segments_info=[]), 'panoptic')):
        write(tmp_path / 'src/a.json', coco(dict(category_id=3, segmentation=[[1, 2, 3, 4, 5, 6]])))
        write(tmp_path / 'src/b.json', coco(dict(category_id=3, **each)))
        with pytest.raises(LabelsError, match=f'b.json.*{said}'):
            convert_labels(tmp_path / 'src', tmp_path / 'dst')
        (tmp_path / 'src/b.json').unlink()
    write(tmp_path / 'src/a.json', '{"images": [')
    with pytest.raises(LabelsError, match=r'a\.json cannot be read'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')


# --- Label Studio --------------------------------------------------------------------------------------------


def region(kind: str, label: str, **value) -> dict:
    return dict(id=f'{kind}{label}', type=kind, original_width=WIDTH, original_height=HEIGHT, image_rotation=0,
                value={**value, kind: [label]})


def packed(mask: np.ndarray) -> list[int]:
    """Bytes of the RGBA picture of a mask, as rle-pack writes them: runs of equal values and one of single ones."""
    values = np.repeat(np.where(mask, 255, 0).ravel(), 4).tolist()
    sizes = (2, 3, 8, 11)
    bits = [f'{len(values):032b}', f'{8 - 1:05b}', *(f'{size - 1:04b}' for size in sizes)]
    bits += ['0', '01', f'{5 - 1:03b}', *(f'{value:08b}' for value in values[:5])]
    start = 5
    while start < len(values):
        end = start
        while end < len(values) and values[end] == values[start]:
            end += 1
        kind = next(i for i, size in enumerate(sizes) if end - start <= 2**size)
        bits += ['1', f'{kind:02b}', f'{end - start - 1:0{sizes[kind]}b}', f'{values[start]:08b}']
        start = end
    text = ''.join(bits)
    return [int(text[i:i + 8].ljust(8, '0'), 2) for i in range(0, len(text), 8)]


def test_label_studio_has_per_cent_and_brushes(photo, tmp_path):
    photo('photos/holiday.jpg')
    per_cent = (np.array(TRIANGLE) / (WIDTH, HEIGHT) * 100).tolist()
    regions = [region('polygonlabels', 'Car', points=per_cent),
               region('rectanglelabels', 'Road', x=100 * 2 / WIDTH, y=100 * 3 / HEIGHT, width=100 * 5 / WIDTH,
                      height=100 * 4 / HEIGHT, rotation=0),
               region('brushlabels', 'Car', format='rle', rle=packed(block(14, 9, 23, 17))),
               region('keypointlabels', 'Car', x=1, y=1)]
    regions[1]['value']['rectanglelabels'].append('Car')
    old = dict(id=1, updated_at='2023-01-01', result=[region('polygonlabels', 'Road', points=per_cent)])
    tasks = [dict(id=4, file_upload='0a1b2c3d-holiday.jpg', data=dict(image='/data/upload/1/0a1b2c3d-holiday.jpg'),
                  annotations=[old, dict(id=2, updated_at='2024-01-01', result=regions),
                               dict(id=3, updated_at='2025-01-01', was_cancelled=True, result=[])]),
             dict(id=5, data=dict(image='s3://bucket/x.jpg'), annotations=[], predictions=[{}])]
    write(tmp_path / 'src/export.json', tasks)
    write(tmp_path / 'src/config.xml', '<View><PolygonLabels><Label value="Road" background="gray"/>'
          '<Label value="Car" background="#0000ff"/></PolygonLabels></View>')
    converted = convert_labels(tmp_path / 'src', tmp_path / 'dst')
    wanted = np.where(block(14, 9, 23, 17), 2, np.where(block(2, 3, 7, 7), 1, 2 * expected(TRIANGLE)))
    np.testing.assert_array_equal(masks(tmp_path / 'dst')['holiday'], wanted)
    assert (tmp_path / 'dst/images/holiday.jpg').is_file()
    said = str(converted.notes)
    assert 'else the newest (1)' in said and 'tasks without an annotation, which are left out (1)' in said
    assert 'several labels, of which the first is taken (1)' in said
    assert 'keypointlabels (1)' in said and 'road' not in said
    assert 'Road,128,128,128' in (tmp_path / 'dst/palette.csv').read_text()


def test_brushes_that_are_broken_are_refused():
    data = packed(expected(STAR))
    np.testing.assert_array_equal(brush_mask(bytes(data), WIDTH, HEIGHT), expected(STAR))
    with pytest.raises(ValueError, match='end too early'):
        brush_mask(bytes(data[:-9]), WIDTH, HEIGHT)
    with pytest.raises(ValueError, match='1728 values, but the image is 25x18'):
        brush_mask(bytes(data), WIDTH + 1, HEIGHT)


def test_masks_are_written_without_images_where_the_size_is_known(tmp_path):
    task = dict(id=4, data=dict(image='https://host/a/street%201.png?sig=9'), annotations=[dict(
        id=1, result=[region('rectanglelabels', 'Car', x=50, y=0, width=50, height=50, rotation=0)])])
    write(tmp_path / 'src/export.json', [task])
    converted = convert_labels(tmp_path / 'src', tmp_path / 'dst')
    np.testing.assert_array_equal(masks(tmp_path / 'dst')['a/street 1'], block(12, 0, 24, 9))
    assert 'images that are not there' in str(converted.notes)
    task['annotations'][0]['result'] = []
    write(tmp_path / 'src/export.json', [task])
    with pytest.raises(LabelsError, match=r'does not say the size of a/street 1\.png'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst', classes='Car')


# --- Supervisely ---------------------------------------------------------------------------------------------


def test_supervisely_has_bitmaps_and_holes(photo, tmp_path):
    photo('ds0/img/photo.jpg')
    bitmap = np.zeros((4, 6, 4), np.uint8)
    bitmap[1:3, 2:, 3] = 255
    picture = io.BytesIO()
    Image.fromarray(bitmap).save(picture, 'PNG')
    data = base64.b64encode(zlib.compress(picture.getvalue())).decode()
    outer, hole = [(2, 2), (14, 2), (14, 12), (2, 12)], [(5, 5), (9, 5), (9, 8), (5, 8)]
    write(tmp_path / 'src/ds0/ann/photo.jpg.json', dict(size=dict(width=WIDTH, height=HEIGHT), tags=[], objects=[
        dict(classTitle='road', geometryType='polygon', points=dict(exterior=outer, interior=[hole])),
        dict(classTitle='car', geometryType='bitmap', bitmap=dict(data=data, origin=[16, 8])),
        dict(classTitle='car', geometryType='rectangle', points=dict(exterior=[[18, 0], [20, 3]], interior=[])),
        dict(classTitle='car', geometryType='bitmap', bitmap=dict(data=data, origin=[-3, 15])),
        dict(classTitle='car', geometryType='point', points=dict(exterior=[[1, 1]], interior=[]))]))
    write(tmp_path / 'src/meta.json', dict(classes=[dict(title='car', shape='bitmap', color='#0000ff'),
                                                    dict(title='road', shape='polygon', color='#804080')]))
    converted = convert_labels(tmp_path / 'src', tmp_path / 'dst')
    assert converted.cut == {'../img/photo.jpg': 1}
    wanted = 2 * (block(2, 2, 15, 13) & ~block(5, 5, 10, 9))  # numbers of pixels, with the last
    wanted[block(18, 9, 22, 11) | block(18, 0, 21, 4) | block(0, 16, 3, 18)] = 1
    np.testing.assert_array_equal(masks(tmp_path / 'dst')['photo'], wanted)
    assert names(tmp_path / 'dst') == ['background', 'car', 'road']


# --- YOLO ----------------------------------------------------------------------------------------------------


def yolo(number: int, ring: list, size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    return ' '.join([str(number), *(repr(value / side) for point in ring for value, side in zip(point, size))])


@pytest.mark.parametrize('pattern', ['{split}/{kind}/a', '{kind}/{split}/a'])
@pytest.mark.parametrize('classes', ['[road, car]', '{1: car, 0: road}'])
def test_yolo_draws_shares_of_the_image_as_shown(pattern, classes, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rings = dict(train=[(0, STAR), (1, TRIANGLE)], valid=[(1, [(-2, 3), (9, 3), (9, 30)])], test=[])
    for split, drawn in rings.items():
        size, turn = ((HEIGHT, WIDTH), dict(exif=exif)) if split == 'train' else ((WIDTH, HEIGHT), {})
        photo(pattern.format(split=split, kind='images') + '.rf.0.jpg', size, **turn)  # with points, as Roboflow's
        lines = [yolo(*each) for each in drawn] + ['1 0.5 0.5 0.1 0.1', ''] * (split == 'train')
        write(tmp_path / 'src' / (pattern.format(split=split, kind='labels') + '.rf.0.txt'), '\n'.join(lines))
    photo(pattern.format(split='test', kind='images') + 'lone.jpg')
    write(tmp_path / 'src/data.yaml', f'train: ../train/images\nval: ../valid/images\nnc: 2\nnames: {classes}\n')
    converted = convert_labels(tmp_path / 'src', tmp_path / 'dst')
    found = masks(tmp_path / 'dst')
    assert found.keys() == {'train/a.rf.0', 'valid/a.rf.0', 'test/a.rf.0'}
    np.testing.assert_array_equal(found['train/a.rf.0'], np.where(expected(TRIANGLE), 2, expected(STAR)))
    np.testing.assert_array_equal(found['valid/a.rf.0'], 2 * expected(rings['valid'][0][1]))
    assert found['test/a.rf.0'].shape == (HEIGHT, WIDTH) and not found['test/a.rf.0'].any()
    assert names(tmp_path / 'dst') == ['background', 'road', 'car']
    said = str(converted.notes)
    for what in ('and are cut (1)', 'box without an outline (1)', 'no shape, so that they are all background (1)',
                 'without an annotation, which are left out (1)', 'EXIF orientation'):
        assert what in said


@pytest.mark.parametrize('line, said', [
    ('2 0 0 1 0 1 1', r'data\.yaml has no class of the number 2'), ('1 0 0 1 0 1 x', "'x'"),
    ('1 0 0 1 0 1', r'an odd number of coordinates \(5\)'), ('1 0 0 7 0 1 1', 'the coordinate 7 is no share')])
def test_yolo_lines_that_are_wrong_are_refused(line, said, photo, tmp_path):
    photo('images/a.jpg')
    write(tmp_path / 'src/data.yaml', 'names: [road, car]')
    write(tmp_path / 'src/labels/a.txt', f'{yolo(0, STAR)}\n{line}\n')
    with pytest.raises(LabelsError, match=rf'labels/a\.txt, line 2: .*{said}'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')


def test_yolo_without_polygons_or_names_is_refused(photo, tmp_path):
    photo('images/a.jpg')
    write(tmp_path / 'src/labels/a.txt', '0 0.5 0.5 0.2 0.2\n')
    with pytest.raises(LabelsError, match=r'no \.yaml file names.*write classes\.txt'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')
    write(tmp_path / 'src/classes.txt', 'road\ncar')  # as Label Studio does
    with pytest.raises(LabelsError, match=r'src has boxes \(1\) and no polygons'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')
    write(tmp_path / 'src/labels/a.txt', yolo(1, STAR))
    convert_labels(tmp_path / 'src', tmp_path / 'dst')
    np.testing.assert_array_equal(masks(tmp_path / 'dst')['a'], 2 * expected(STAR))
    for text, said in (('names: [road, car]\nkpt_shape: [17, 3]', 'key points'), ('names: [car]', 'differently')):
        write(tmp_path / 'src/data.yaml', text)
        with pytest.raises(LabelsError, match=said):
            convert_labels(tmp_path / 'src', tmp_path / 'dst')
        write(tmp_path / 'src/old.yml', 'names: [road, car]')
    with pytest.raises(LabelsError, match='give the folder of the dataset'):
        convert_labels(tmp_path / 'src/data.yaml', tmp_path / 'new')


# --- what is found -------------------------------------------------------------------------------------------


def test_accents_are_the_same_whether_parted_from_their_letters_or_not(photo, tmp_path):
    photo('e\u0301.jpg')
    write(tmp_path / 'src/x.json', labelme(dict(label='x', points=TRIANGLE), image='\xe9.jpg'))
    convert_labels(tmp_path / 'src', tmp_path / 'dst')
    assert len(list((tmp_path / 'dst/images').iterdir())) == 1


def test_images_are_copied_where_the_disk_knows_no_links(photo, tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(1, 'Operation not permitted')
    path = photo()
    write(tmp_path / 'src/photo.json', labelme())
    monkeypatch.setattr(Path, 'symlink_to', refuse)
    for _ in range(2):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')
        copy = tmp_path / 'dst/images/photo.jpg'
        assert copy.read_bytes() == path.read_bytes() and not copy.is_symlink()


def test_all_suffixes_that_a_dataset_takes_are_of_images(photo, tmp_path):
    photo('photo.jpg').rename(tmp_path / 'src/photo.jfif')  # as browsers on Windows save JPEGs
    write(tmp_path / 'src/photo.json', labelme(image='photo.jpg'))
    convert_labels(tmp_path / 'src', tmp_path / 'dst')
    assert (tmp_path / 'dst/images/photo.jfif').is_file()


def test_nothing_outside_the_new_folder_is_removed(photo, tmp_path):
    path = photo()
    write(tmp_path / 'src/photo.json', labelme())
    convert_labels(tmp_path / 'src', tmp_path / 'dst')
    (tmp_path / 'dst/pairs.csv').write_text(f'image,mask\n{path},../src/photo.json\n')  # as somebody changed it
    convert_labels(tmp_path / 'src', tmp_path / 'dst')
    assert path.is_file() and (tmp_path / 'src/photo.json').is_file()


def test_labels_that_hardly_differ_are_warned_of(photo, tmp_path):
    photo()
    shapes = [dict(label=label, points=TRIANGLE) for label in ('car', 'Car ', 'bus')]
    write(tmp_path / 'src/photo.json', labelme(*shapes))
    notes = convert_labels(tmp_path / 'src', tmp_path / 'dst').notes
    assert notes[0] == "WARNING: 'Car ' and 'car' are taken for two classes. If they are one, give them one name"


def test_several_tools_are_told_apart(photo, tmp_path):
    photo()
    write(tmp_path / 'src/photo.json', labelme(dict(label='x', points=TRIANGLE)))
    write(tmp_path / 'src/coco.json', coco(dict(category_id=3, segmentation=[[1, 1, 9, 1, 9, 9, 1, 9]])))
    with pytest.raises(LabelsError, match=r'1 files of labelme and 1 files of COCO: choose with --format'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')
    convert_labels(tmp_path / 'src', tmp_path / 'dst', tool='labelme')
    np.testing.assert_array_equal(masks(tmp_path / 'dst')['photo'], expected(TRIANGLE))
    with pytest.raises(LabelsError, match='is not there'):
        convert_labels(tmp_path / 'nowhere', tmp_path / 'new')
    (tmp_path / 'task.zip').write_bytes(b'PK')
    with pytest.raises(LabelsError, match='unpack it first'):
        convert_labels(tmp_path / 'task.zip', tmp_path / 'new')


def test_the_new_folder_may_lie_in_that_of_the_annotations(photo, tmp_path):
    photo('a/photo.jpg')
    write(tmp_path / 'src/x.json', labelme(dict(label='x', points=TRIANGLE)))
    for _ in range(2):
        assert convert_labels(tmp_path / 'src', tmp_path / 'src/dst').notes == []
    assert (tmp_path / 'src/dst/images/photo.jpg').resolve() == tmp_path / 'src/a/photo.jpg'


def test_no_mask_is_written_over_another(photo, tmp_path):
    for name in ('images/x.jpg', 'data/x.jpg', 'data/y.jpg', 'data/y.png', 'data/y_jpg.bmp'):
        photo(name)
        drawn = labelme(dict(label=name, points=TRIANGLE), image=Path(name).name)
        write(tmp_path / f'src/{name}.json', drawn)
    convert_labels(tmp_path / 'src', tmp_path / 'dst')
    assert names(tmp_path / 'dst') == ['background', 'data/x.jpg', 'data/y.jpg', 'data/y.png', 'data/y_jpg.bmp',
                                       'images/x.jpg']
    assert sorted(mask.max() for mask in masks(tmp_path / 'dst').values()) == [1, 2, 3, 4, 5]


def test_images_that_fit_alike_are_refused(photo, tmp_path):
    photo('a/photo.jpg')
    photo('b/photo.jpg')
    write(tmp_path / 'src/x.json', labelme(dict(label='x', points=TRIANGLE)))
    with pytest.raises(LabelsError, match=r'may be .*photo.jpg or .*photo.jpg: say where'):
        convert_labels(tmp_path / 'src', tmp_path / 'dst')
    convert_labels(tmp_path / 'src', tmp_path / 'dst', images=tmp_path / 'src/b')
    assert (tmp_path / 'dst/images/photo.jpg').resolve().parent.name == 'b'


def test_real_files_of_users(tmp_path):
    if not ODD.is_dir():
        pytest.skip('odd_labels is not there')
    convert_labels(ODD / '02_labelme_json', tmp_path / 'labelme')
    for name, mask in masks(tmp_path / 'labelme').items():
        with Image.open(ODD / f'01_voc_palette_border255/{name}_vocaug_mask.png') as image:
            voc = np.array(image)
        known = (mask != 255) & (voc != 255)
        assert (mask == voc)[known].mean() > 0.96  # people outlined both
    convert_labels(ODD / '26_label_studio_polygons', tmp_path / 'studio')
    convert_labels(ODD / '29_supervisely_bitmap_json', tmp_path / 'supervisely')
    mask, = masks(tmp_path / 'supervisely').values()
    colours, = (np.array(Image.open(path).convert('RGB')) for path in (ODD / '05_rgba_colour_mask').glob('*736.png'))
    pairs = {(number, tuple(colour)) for number, colour in zip(mask.ravel().tolist(), colours.reshape(-1, 3).tolist())}
    assert len(pairs) == len(np.unique(mask))  # each class has one colour, in every pixel
