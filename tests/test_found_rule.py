"""What masks of a whole dataset mean: each kind is read right, and what could be silently wrong is said."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_gpt.datasets.found.class_table import ClassTable, read_classes
from mmseg_gpt.datasets.found.findings import Understanding
from mmseg_gpt.datasets.found.known import voc_colour
from mmseg_gpt.datasets.found.masks import MaskError, read_mask
from mmseg_gpt.datasets.found.rewrite import write_masks
from mmseg_gpt.datasets.found.rule import MaskRule, distinct_colours, full_palette
from mmseg_gpt.datasets.found.types import Pair
from mmseg_gpt.datasets.found.understand import understand_masks

ODD = Path(__file__).parents[2] / 'shared/odd_labels'
HEIGHT, WIDTH = 16, 24
COLOURS = dict(road=(128, 64, 128), car=(0, 0, 142), sky=(70, 130, 180), black=(0, 0, 0))


def regions(*values: object) -> np.ndarray:
    """Returns a mask (16, 24) of equal stripes with some values, or (16, 24, 3) with some colours."""
    stripes = np.array(values)[np.arange(WIDTH) * len(values) // WIDTH]
    return np.repeat(stripes[None], HEIGHT, 0)


def write(root: Path, masks: list, suffix: str = '.png', **options: object) -> dict[str, list[Pair]]:
    """Writes masks and images beside them; all are training pairs, and the first ones are for validation too."""
    root.mkdir(exist_ok=True, parents=True)
    pairs = []
    for number, mask in enumerate(masks):
        pair = Pair(root / f'{number}_image.jpg', root / f'{number}{suffix}')
        Image.new('RGB', (WIDTH, HEIGHT)).save(pair.image)
        if isinstance(mask, np.ndarray):
            mask = Image.fromarray(mask if mask.dtype == np.uint16 else mask.astype(np.uint8))
        mask.save(pair.mask, **options)
        pairs.append(pair)
    return dict(train=pairs, val=pairs[:2])


def understand(splits: dict[str, list[Pair]], classes: str | None = None, ignore: tuple = ()) -> Understanding:
    return understand_masks(splits, classes and read_classes(classes), ignore)


def read(splits: dict[str, list[Pair]], found: Understanding, number: int = 0) -> list[int]:
    """Returns the class numbers in the first row of a mask, at the middle of each sixth."""
    assert not found.problems, found.problems
    mask = found.rule.apply(read_mask(splits['train'][number].mask))
    assert mask.dtype == np.uint8 and mask.shape == (HEIGHT, WIDTH)
    return mask[HEIGHT // 2, 2::4].tolist()


def said(sentences: list[str], *words: str) -> bool:
    return any(all(word in sentence for word in words) for sentence in sentences)


def test_numbers_without_names(tmp_path):
    splits = write(tmp_path, [regions(0, 1, 2), regions(0, 255)])
    found = understand(splits)
    assert read(splits, found) == [0, 0, 1, 1, 2, 2] and read(splits, found, 1) == [0, 0, 0, 255, 255, 255]
    assert found.classes == ('class 0', 'class 1', 'class 2') and len(set(found.rule.palette)) == 3
    assert found.pixels['train'].tolist() == [16 * 20, 16 * 8, 16 * 8] and found.images['train'].tolist() == [2, 1, 1]
    assert found.ignored == dict(train=16 * 12, val=16 * 12) and found.sizes['val'] == [(WIDTH, HEIGHT)] * 2
    assert said(found.notes, '0 = class 0, 1 = class 1') and said(found.notes, 'no class has it: 255', '25.0%')
    assert read_classes(write_text(tmp_path, found.template)).rows[0].name == 'class 0'


def write_text(folder: Path, text: str) -> Path:
    (folder / 'given.csv').write_text(text)
    return folder / 'given.csv'


def test_gaps_are_classes_of_their_own(tmp_path):
    splits = write(tmp_path, [regions(1, 4, 9)] * 2)
    found = understand(splits)
    assert read(splits, found) == [0, 0, 1, 1, 2, 2] and found.classes == ('class 1', 'class 4', 'class 9')
    assert said(found.warnings, 'have gaps: 1, 4, 9')


def test_masks_that_were_scaled_with_smoothing_are_warned_of(tmp_path):
    sharp, masks = [regions(0, 3, 1), regions(3, 0, 2)], []
    for mask in sharp:
        small = Image.fromarray(mask.astype(np.uint8)).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.NEAREST)
        masks.append(np.array(small.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)))
    found = understand(write(tmp_path / 'smooth', masks), 'a,b,c,d')
    assert not found.problems and said(found.warnings, 'In 4 masks', '2 in', '0.png', 'scaled with smoothing')
    assert not said(understand(write(tmp_path / 'sharp', sharp), 'a,b,c,d').warnings, 'smoothing')


def test_names_are_numbered_and_merged(tmp_path):
    splits = write(tmp_path, [regions(0, 1, 2, 3)] * 2)
    found = understand(splits, 'road,vehicle=car+truck,sky')
    assert read(splits, found) == [0, 1, 1, 1, 2, 2] and found.classes == ('road', 'vehicle', 'sky')
    found = understand(splits, 'road=0,vehicle=1+3,sky=2')
    assert read(splits, found) == [0, 1, 1, 2, 1, 1]


def test_void_in_a_table_is_ignored_and_the_others_keep_their_values(tmp_path):
    splits = write(tmp_path, [regions(0, 1, 2)] * 2)
    found = understand(splits, 'road,void,sky')
    assert read(splits, found) == [0, 0, 255, 255, 1, 1] and found.classes == ('road', 'sky')
    assert said(found.notes, "Ignored as 'void': 1, 33.3%")


@pytest.mark.parametrize('ignore', [(2,), ('2',), ('tree',)])
def test_another_value_than_255_is_ignored(tmp_path, ignore):
    splits = write(tmp_path, [regions(0, 1, 2)] * 2)
    found = understand(splits, 'road,sky,tree' if ignore == ('tree',) else 'road,sky', ignore)
    assert read(splits, found) == [0, 0, 1, 1, 255, 255] and found.classes == ('road', 'sky')
    assert found.ignored['train'] == 2 * 8 * HEIGHT
    assert said(found.notes, 'Ignored by --ignore', ': 2, 33.3% of the pixels')
    assert said(understand(splits, 'a,b,c', ('1,2,3',)).problems, '--ignore 1,2,3 is a colour')


def test_an_ignored_value_that_never_occurs_or_is_nothing_is_said(tmp_path):
    splits = write(tmp_path, [regions(0, 1, 2)] * 2)
    assert said(understand(splits, 'a,b,c', (12,)).warnings, '--ignore 12: no mask has this value')
    problems = understand(splits, 'a,b,c', ('voild',)).problems
    assert said(problems, '--ignore voild is no value, no colour and no class', 'a, b, c')


def test_zero_that_is_not_labelled_swallows_no_class(tmp_path):
    splits = write(tmp_path, [regions(0, 1, 2)] * 2)
    problems = understand(splits, 'road,sky').problems  # are these of 0 and 1, or of 1 and 2?
    assert said(problems, 'has the value 2, which is of no class', '--ignore 2', '--ignore 0', 'classes.csv')
    found = understand(splits, 'road,sky', (0,))
    assert read(splits, found) == [255, 255, 0, 0, 1, 1]
    assert said(found.notes, 'those of the values 1 to 2; 0 is ignored')
    unclear = understand(splits, 'background,road,sky', (0,)).problems
    assert said(unclear, '--ignore 0 can be understood in two ways', '--ignore background')
    assert read(splits, understand(splits, 'background,road,sky', ('background',))) == [255, 255, 0, 0, 1, 1]
    splits = write(tmp_path / 'from_1', [regions(1, 2)] * 2)
    found = understand(splits, 'road,sky')
    assert read(splits, found) == [0, 0, 0, 1, 1, 1] and said(found.notes, 'those of the values 1 to 2; 0 never occurs')


def test_a_declared_class_without_pixels_stops(tmp_path):
    splits = write(tmp_path, [regions(0, 1)] * 2 + [regions(0, 1, 2)])
    found = understand(splits, 'road,sky,tree')
    assert not found.problems and said(found.warnings, '1 of 3 classes have no pixel in val (tree)', 'leave them out')
    found = understand(splits, 'road,sky,tree,bike')
    assert said(found.problems, '1 of 4 classes have no pixel in train (bike)', '--classes classes.csv')
    again = understand(splits, str(write_text(tmp_path, found.template)))  # the remedy that it names
    assert not again.problems and again.classes == ('road', 'sky', 'tree')
    splits['train'] = splits['train'][:2]
    splits['val'] = write(tmp_path / 'val', [regions(0, 1, 2)])['train']
    found = understand(splits, 'road,sky,tree,bike')
    assert said(found.problems, 'no pixel in train (tree, bike)', '--ignore tree, as other splits have them')
    again = understand(splits, str(write_text(tmp_path, found.template)), ('tree',))
    assert not again.problems and again.classes == ('road', 'sky')
    merged = understand(splits, 'street=road+sky,tree,bike')
    assert '1,"street"' in merged.template and '2,"tree"' in merged.template


def test_255_that_is_meant_as_a_class(tmp_path):
    splits = write(tmp_path, [regions(0, 1, 255)] * 2)
    assert said(understand(splits, 'road,sky,tree').problems, 'no pixel in train (tree)', '"255,name"')
    assert read(splits, understand(splits, 'road=0,sky=1,tree=255')) == [0, 0, 1, 1, 2, 2]
    splits = write(tmp_path / 'levels', [regions(0, 128, 255)] * 2)
    assert said(understand(splits).problems, 'not clear whether 255 is a class or not labelled', '--ignore 255')
    assert read(splits, understand(splits, None, (255,))) == [0, 0, 1, 1, 255, 255]
    splits = write(tmp_path / 'all', [np.arange(256).reshape(16, 16).repeat(2, 1)[:, :WIDTH]] * 2)
    assert said(understand(splits, ','.join(f'c{i}' for i in range(256))).problems, 'has 256 classes; 254 are the most')


@pytest.mark.parametrize('highest', [1, 255, 38])
def test_binary_masks(tmp_path, highest):
    splits = write(tmp_path, [regions(0, highest), regions(0, 0)])
    found = understand(splits)
    assert read(splits, found) == [0, 0, 0, 1, 1, 1] and read(splits, found, 1) == [0] * 6
    assert found.rule.kind == 'binary' and found.classes == ('background', 'foreground')
    assert said(found.notes, f"{highest} is 'foreground'") and bool(found.warnings) == (highest == 38)
    assert understand(splits, 'crack').classes == ('background', 'crack')
    assert understand(splits, 'sound,crack').classes == ('sound', 'crack')
    assert understand(splits, 'sound,crack').ignored == dict(train=0, val=0)


def blurred(values: tuple[int, int] = (0, 255)) -> np.ndarray:
    mask = np.full((HEIGHT * 8, WIDTH * 8), values[0], np.uint8)
    return cv2.circle(mask, (60, 60), 40, int(values[1]), -1, cv2.LINE_AA)


def test_masks_of_two_codings_are_refused(tmp_path):
    one, white = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    one[2:5, 2:5], white[2:5, 2:5] = 1, 255
    splits = write(tmp_path, [one, white, one, white])
    found = understand(splits)
    assert any('does 255 stand for the same class as 1' in problem for problem in found.problems)
    assert any('does 255' in problem for problem in understand(splits, 'ground,crack').problems)
    assert not any('does 255' in problem for problem in understand(splits, ignore=(255, )).problems)


def write_large(root: Path, masks: list[np.ndarray], suffix: str = '.png') -> dict[str, list[Pair]]:
    splits = write(root, masks, suffix)
    for pair in splits['train']:
        Image.new('RGB', (WIDTH * 8, HEIGHT * 8)).save(pair.image)
    return splits


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_gray_edges_are_decided_by_a_threshold_that_is_said(tmp_path, suffix):
    splits = write_large(tmp_path, [blurred()] * 2, suffix)
    found = understand(splits, 'crack')
    assert found.rule.kind == 'binary' and found.rule.threshold == 128 and not found.problems
    assert said(found.warnings, 'between 0 and 255', "128 and more is 'crack'", f'0{suffix}')
    mask = found.rule.apply(read_mask(splits['train'][0].mask))
    assert mask[60, 60] == 1 and mask[120, 150] == 0 and set(np.unique(mask)) == {0, 1}
    assert np.abs(mask.astype(int) - (blurred() >= 128)).mean() < 0.001


def test_a_border_of_a_third_gray_is_asked_about(tmp_path):
    mask = np.zeros((128, 192), np.uint8)
    mask[16:64, 16:80] = 128
    mask[19:61, 19:77] = 255
    splits = write_large(tmp_path, [mask] * 2, '.jpg')
    assert said(understand(splits).problems, '0.jpg has the value 12', 'is it a third class? Then save')
    assert understand(splits, 'background,crack').rule.kind == 'binary'


def test_rare_classes_are_not_taken_for_gray_edges(tmp_path):
    masks = [np.zeros((128, 192), np.uint8) for _ in range(2)]
    for mask in masks:
        mask[100:, 100:] = 255
        for value in range(1, 6):
            mask[8 * value:8 * value + 3, 8:11] = value
    found = understand(write_large(tmp_path, masks))
    assert found.rule.kind == 'indices' and len(found.classes) == 6 and not found.problems


def test_numbers_in_a_jpeg_are_refused(tmp_path):
    found = understand(write(tmp_path, [regions(0, 40, 90)] * 2, '.jpg'), 'a,b,c')
    assert said(found.problems, '0.jpg is in a format that blurs values', 'Export the masks as PNG')


def test_depth_and_objects_are_no_classes(tmp_path):
    depth = np.random.default_rng(0).integers(0, 9000, (HEIGHT, WIDTH)).astype(np.uint16)
    splits = write(tmp_path / 'depth', [depth] * 2)
    for classes in (None, 'road,sky'):
        assert said(understand(splits, classes).problems, '0.png has values to ', 'depths, gray levels or numbers')
    splits = write(tmp_path / 'objects', [regions(7, 24000, 26001, 26002).astype(np.uint16)] * 2)
    assert said(understand(splits).problems, 'class * 1000 + object', '*_labelIds')
    gray = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH))
    assert said(understand(write(tmp_path / 'gray', [gray] * 2)).problems, 'depths, gray levels')
    photograph = np.random.default_rng(0).integers(0, 256, (128, 192, 3))
    assert said(understand(write_large(tmp_path / 'photo', [photograph] * 2)).problems, 'it is a photograph')
    counted = [regions(*range(number)) for number in (3, 6, 2, 4)]
    splits = write(tmp_path / 'counted', counted)
    assert said(understand(splits).problems, 'count from 1 up to another number, as numbers of objects do')
    assert not understand(splits, 'a,b,c,d,e,f').problems  # unless they are named


def test_16_bits_with_named_values_are_read(tmp_path):
    splits = write(tmp_path, [regions(0, 300, 65535).astype(np.uint16)] * 2)
    assert understand(splits).problems
    assert read(splits, understand(splits, 'a=0,b=300,c=65535')) == [0, 0, 1, 1, 2, 2]


def table(folder: Path, *names: str) -> str:
    """Writes a labelmap.txt of some of the colours above."""
    (folder / 'labelmap.txt').write_text(''.join('{}:{},{},{}::\n'.format(name, *COLOURS[name]) for name in names))
    return str(folder / 'labelmap.txt')


def coloured(*names: str) -> np.ndarray:
    return regions(*(COLOURS[name] for name in names))


@pytest.mark.parametrize('alpha', [False, True])
def test_colours_of_a_table(tmp_path, alpha):
    masks = [coloured('road', 'car', 'sky'), coloured('black', 'black', 'road')]
    if alpha:
        masks = [np.dstack([mask, np.full((HEIGHT, WIDTH), 255)]) for mask in masks]
    splits = write(tmp_path, masks)
    found = understand(splits, table(tmp_path, 'road', 'car', 'sky', 'black'))
    assert read(splits, found) == [0, 0, 1, 1, 2, 2] and read(splits, found, 1) == [3, 3, 3, 3, 0, 0]
    assert found.rule.palette == tuple(COLOURS.values()) and not found.warnings
    found = understand(splits, table(tmp_path, 'road', 'car', 'sky', 'black') + ',traffic=road+car', ('0,0,0',))
    assert found.classes == ('traffic', 'sky', 'black') and said(found.problems, 'no pixel in train (black)')
    found = understand(splits, table(tmp_path, 'road', 'car', 'sky', 'black'), ('black',))
    assert read(splits, found, 1) == [255] * 4 + [0, 0] and said(found.notes, "'black' is ignored, by --ignore")
    assert said(understand(splits, table(tmp_path, 'road', 'car', 'sky'), (11,)).problems, '--ignore 11 is a value')


def test_a_mask_without_colour_among_coloured_ones_is_read_by_its_colour(tmp_path):
    splits = write(tmp_path, [coloured('road', 'car'), coloured('black', 'black')])
    found = understand(splits, table(tmp_path, 'road', 'car', 'black'))
    assert read(splits, found, 1) == [2] * 6


def test_colours_without_a_table_are_shown_to_be_named(tmp_path):
    splits = write(tmp_path, [coloured('road', 'car', 'sky')] * 2)
    for classes in (None, 'street,vehicle,sky'):
        found = understand(splits, classes)
        assert found.rule is None
        assert said(found.problems, '0.png', '(128,64,128) 33.3%', '(0,0,142) 33.3%', '--classes classes.csv')
    named = found.template.replace('colour 128 64 128', 'street')
    found = understand(splits, str(write_text(tmp_path, named)))
    assert not found.problems and 'street' in found.classes and len(found.classes) == 3


def test_the_users_own_table_is_not_overwritten(tmp_path):
    splits = write(tmp_path, [regions(0, 1, 2)] * 2)
    own = write_text(tmp_path, 'value,name\n0,road\n1,sky\n')
    found = understand_masks(splits, read_classes(own), template=own)
    assert found.template_file == tmp_path / 'given_found.csv' and said(found.problems, str(found.template_file))


def test_one_colour_on_black_is_binary(tmp_path):
    splits = write(tmp_path, [coloured('black', 'road')] * 2)
    found = understand(splits, 'crack')
    assert read(splits, found) == [0, 0, 0, 1, 1, 1] and found.classes == ('background', 'crack')


def test_a_colour_that_is_not_in_the_table_is_refused_with_the_nearest(tmp_path):
    masks = [coloured('road', 'car'), regions(COLOURS['road'], COLOURS['car'], COLOURS['car'], (120, 60, 120))]
    found = understand(write(tmp_path, masks), table(tmp_path, 'road', 'car'))
    assert said(found.problems, '1.png has colours that are not in', '(120,60,120) in 12.5% of the pixels',
                "nearest to 'road' (128,64,128)", '--ignore r,g,b')
    assert '120,60,120' in found.template and '"road",128,64,128' in found.template


def test_blurred_colours_are_read_as_near_ones_or_ignored_and_said(tmp_path):
    large = coloured('road', 'black', 'sky').astype(np.uint8).repeat(8, 0).repeat(8, 1)
    splits = write_large(tmp_path, [large] * 2, '.jpg')
    found = understand(splits, table(tmp_path, 'road', 'black', 'sky'))
    assert not found.problems
    assert said(found.warnings, 'within 24 levels of one, and are read as it', 'are ignored', '.jpg')
    mask = found.rule.apply(read_mask(splits['train'][0].mask))
    truth = np.repeat([0, 1, 2], 64)[None]
    assert set(np.unique(mask)) <= {0, 1, 2, 255} and (mask == 255).mean() < 0.05
    assert (np.where(mask == 255, truth, mask) == truth).mean() > 0.999
    smooth = cv2.GaussianBlur(large, (0, 0), 9)  # nearly all is between the colours
    found = understand(write_large(tmp_path / 'smooth', [smooth] * 2), table(tmp_path, 'road', 'black', 'sky'))
    assert said(found.problems, 'has colours that are not in')


def palette_mask(values: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette(np.array(colours, np.uint8).tobytes())
    return image


def test_palettes_give_the_classes_their_colours(tmp_path):
    splits = write(tmp_path, [palette_mask(regions(0, 1, 2), (9, 9, 9), *list(COLOURS.values())[:2])] * 2)
    found = understand(splits)
    assert read(splits, found) == [0, 0, 1, 1, 2, 2]
    assert found.rule.palette == ((9, 9, 9), COLOURS['road'], COLOURS['car'])
    found = understand(splits, table(tmp_path, 'road', 'car'), ('9,9,9',))  # by colour, as the table has no values
    assert read(splits, found) == [255, 255, 0, 0, 1, 1]


def test_palettes_that_differ_are_read_by_colour(tmp_path):
    road, car = COLOURS['road'], COLOURS['car']
    splits = write(tmp_path, [palette_mask(regions(0, 1), road, car), palette_mask(regions(0, 1), car, road)])
    found = understand(splits, table(tmp_path, 'road', 'car'))
    assert read(splits, found) == [0, 0, 0, 1, 1, 1] and read(splits, found, 1) == [1, 1, 1, 0, 0, 0]
    assert said(found.notes, 'palettes of the masks differ', '0.png', '1.png')
    assert said(understand(splits).problems, 'Name them in classes.csv')


def test_colours_of_a_table_whose_masks_have_numbers(tmp_path):
    splits = write(tmp_path, [regions(0, 1)] * 2)
    found = understand(splits, table(tmp_path, 'road', 'car'))
    assert read(splits, found) == [0, 0, 0, 1, 1, 1] and found.rule.palette == (COLOURS['road'], COLOURS['car'])
    assert said(found.notes, 'have numbers, not the colours of')


def test_sizes_that_differ_are_named(tmp_path):
    splits = write(tmp_path, [regions(0, 1)] * 3)
    Image.new('RGB', (WIDTH * 2, HEIGHT * 2)).save(splits['train'][1].image)
    found = understand(splits)
    assert said(found.problems, '1.png has 24x16 pixels', '1_image.jpg has 48x32', 'scaled', 'nearest neighbour')
    Image.new('RGB', (HEIGHT, WIDTH)).save(splits['train'][1].image)
    assert said(understand(splits).problems, '1.png has 24x16', 'one of the two was turned')
    Image.new('RGB', (WIDTH, HEIGHT - 1)).save(splits['train'][1].image)
    assert said(understand(splits).problems, '1.png has 24x16', 'differ by one row or column')
    Image.new('RGB', (WIDTH, HEIGHT - 3)).save(splits['train'][1].image)
    assert said(understand(splits).problems, '1.png has 24x16', 'cropped')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (WIDTH, HEIGHT)).save(splits['train'][1].image, exif=exif)
    assert said(understand(splits).problems, '1_image.jpg has EXIF orientation 6', 'ImageOps.exif_transpose')
    Image.new('RGB', (HEIGHT, WIDTH)).save(splits['train'][1].image, exif=exif)  # upright, the mask fits
    assert len(understand(splits).problems) == 1


def test_damaged_files_are_told_together(tmp_path):
    splits = write(tmp_path, [regions(0, 1)] * 4)
    for pair in splits['train'][:3]:
        pair.mask.write_bytes(pair.mask.read_bytes().replace(b'\r\n', b'\n'))
    splits['train'][3].image.write_bytes(b'\x89PNG\n\x1a\n')
    found = understand(splits)
    assert len(found.problems) == 2 and said(found.problems, '0.png was damaged as if it were text', '(3 files: ')
    assert said(found.problems, '3_image.jpg was damaged as if it were text')
    assert said(understand(dict(train=[], val=[])).problems, 'No image has a mask')


def test_masks_that_are_ignored_as_a_whole_are_counted(tmp_path):
    found = understand(write(tmp_path, [regions(255, 255), regions(0, 1), regions(255, 255)]))
    assert said(found.warnings, '2 masks in train are ignored as a whole', '0.png') and found.blank['val']
    assert said(found.warnings, '66.7% of the pixels in train are ignored')
    assert said(understand(write(tmp_path / 'one', [regions(0, 0)] * 2)).problems, 'at least two classes are needed')


def known(root: Path, folder: str, names: list[str], mask: object) -> dict[str, list[Pair]]:
    (root / folder).mkdir()
    splits = write(root / folder, [mask] * len(names))
    pairs = [Pair(pair.image, pair.mask.rename(pair.mask.with_name(name)))
             for pair, name in zip(splits['train'], names)]
    return dict(train=pairs, val=pairs)


def test_known_datasets_are_recognised_and_said(tmp_path):
    splits = known(tmp_path, 'trainannot', ['0001TP_006690.png', 'Seq05VD_f00000.png'], regions(0, 3, 11))
    found = understand(splits)
    assert found.classes[:2] == ('sky', 'building') and len(found.classes) == 11
    assert read(splits, found) == [0, 0, 3, 3, 255, 255] and said(found.notes, 'those of CamVid', '--classes')
    assert understand(splits, 'a=0,b=3,c=11').classes == ('a', 'b', 'c')  # the user's word holds
    splits = known(tmp_path, 'fine', ['a_gtFine_labelIds.png', 'b_gtFine_labelIds.png'], regions(0, 7, 33))
    found = understand(splits)
    assert read(splits, found) == [255, 255, 0, 0, 18, 18] and found.classes[18] == 'bicycle'
    splits = known(tmp_path, 'train_ids', ['a_gtFine_labelTrainIds.png'] * 1, regions(0, 18, 255))
    assert read(splits, understand(splits)) == [0, 0, 18, 18, 255, 255]
    splits = known(tmp_path, 'ade', ['ADE_val_00000001.png'], regions(0, 1, 150))
    assert read(splits, understand(splits)) == [255, 255, 0, 0, 149, 149]
    assert understand(splits).classes[149] == 'flag'


def test_vocs_palette_alone_is_not_voc(tmp_path):
    mask = palette_mask(regions(0, 1, 15), *(voc_colour(value) for value in range(21)))
    splits = known(tmp_path, 'SegmentationClass', ['2007_000032.png'], mask)
    assert understand(splits).classes[15] == 'person' and voc_colour(15) == (192, 128, 128)
    splits = known(tmp_path, 'labelme', ['street.png'], mask)  # labelme paints all masks so
    assert understand(splits).classes == ('class 0', 'class 1', 'class 15')


def test_colours_are_distinct_and_always_the_same():
    colours = distinct_colours(254)
    assert len(set(colours)) == 254 and colours == distinct_colours(254)
    palette = full_palette([(1, 2, 3), None, (1, 2, 3)])
    assert palette[0] == (1, 2, 3) and len(set(palette)) == 3


@pytest.mark.parametrize('kind', ['indices', 'colours', 'binary'])
def test_a_rule_survives_its_text(kind):
    named = {(1, 2, 3): 0, (4, 5, 6): 255} if kind == 'colours' else {-1: 255, 300: 1}
    rule = MaskRule(kind, ('a', 'b'), ((1, 2, 3), (4, 5, 6)), named, 128, 3)
    assert MaskRule.from_json(rule.as_json()) == rule


def test_masks_are_written_once_and_again_when_they_change(tmp_path):
    splits = write(tmp_path / 'data', [regions(0, 5, 255), regions(5, 0)])
    splits['test'] = [Pair(splits['train'][0].image, None)]
    before = {pair.mask: pair.mask.read_bytes() for pair in splits['train']}
    found = understand(splits)
    lists = write_masks(splits, found.rule, tmp_path / 'work')
    assert set(lists) == {'train', 'val', 'test'}
    rows = [line.split(',') for line in lists['train'].read_text().splitlines()]
    assert rows[0] == ['image', 'mask'] and rows[1][0] == str(splits['train'][0].image)
    assert lists['test'].read_text().splitlines()[1].endswith('0_image.jpg,')
    target = tmp_path / 'work' / rows[1][1]
    with Image.open(target) as image:
        assert image.mode == 'P' and np.array(image)[0, 2::4].tolist() == [0, 0, 1, 1, 255, 255]
        assert image.getpalette()[:6] == [channel for colour in found.rule.palette for channel in colour]
    other = tmp_path / 'work' / rows[2][1]
    times = target.stat().st_mtime_ns, other.stat().st_mtime_ns
    write_masks(splits, found.rule, tmp_path / 'work')
    assert (target.stat().st_mtime_ns, other.stat().st_mtime_ns) == times  # nothing to do
    Image.fromarray(regions(5, 5, 0).astype(np.uint8)).save(splits['train'][0].mask)
    other.write_bytes(b'cut short')
    write_masks(splits, found.rule, tmp_path / 'work')
    assert np.array(Image.open(target))[0, 2::4].tolist() == [1, 1, 1, 1, 0, 0]
    assert np.array(Image.open(other))[0, 2::4].tolist() == [1, 1, 1, 0, 0, 0]
    swapped = understand(splits, 'b=5,a=0').rule  # another rule: all are written again
    write_masks(splits, swapped, tmp_path / 'work')
    assert np.array(Image.open(target))[0, 2::4].tolist() == [0, 0, 0, 0, 1, 1]
    assert splits['train'][1].mask.read_bytes() == before[splits['train'][1].mask]
    assert not list((tmp_path / 'work').rglob('*.unfinished'))
    Image.fromarray(regions(5, 7).astype(np.uint8)).save(splits['train'][0].mask)
    with pytest.raises(MaskError, match=r'masks cannot be written: .*0\.png has the values 7, which are of no class'):
        write_masks(splits, found.rule, tmp_path / 'work')


def test_what_was_read_is_kept_and_read_again_when_it_changes(tmp_path, monkeypatch):
    from mmseg_gpt.datasets.found import facts
    splits = write(tmp_path / 'data', [regions(0, 1), regions(0, 2)])
    splits['val'] = splits['train'][:1]
    cache = tmp_path / 'work/facts.jsonl'
    read_files = []

    def read_and_remember(path, size):
        read_files.append(Path(path).name)
        return read_mask(path, size)

    monkeypatch.setattr(facts, 'read_mask', read_and_remember)
    first = understand_masks(splits, cache=cache)
    cache.write_text(cache.read_text() + '\ncut sho')  # as an interrupt leaves it
    again = understand_masks(splits, cache=cache)
    assert read_files == ['0.png', '1.png'] and again.rule == first.rule
    assert again.pixels['train'].tolist() == first.pixels['train'].tolist()
    Image.fromarray(regions(0, 3, 3).astype(np.uint8)).save(splits['train'][1].mask)
    changed = understand_masks(splits, cache=cache)
    assert read_files[2:] == ['1.png'] and changed.classes[-1] == 'class 3'
    assert understand_masks(splits, cache=cache).classes == changed.classes and len(read_files) == 3


@pytest.mark.parametrize('kind', ['numbers', 'colours'])
def test_large_masks_are_rewritten_in_bands(tmp_path, monkeypatch, kind):
    from mmseg_gpt.datasets.found import rule
    masks = [coloured('road', 'car', 'sky') if kind == 'colours' else regions(0, 300, 2).astype(np.uint16)] * 2
    splits = write(tmp_path, masks)
    found = understand(splits, table(tmp_path, 'road', 'car', 'sky') if kind == 'colours' else 'a=0,b=300,c=2')
    monkeypatch.setattr(rule, 'BAND', 50)
    assert read(splits, found) == [0, 0, 1, 1, 2, 2]


def test_many_masks_are_read_and_written_by_several_processes(tmp_path):
    splits = write(tmp_path / 'data', [regions(0, 1, 2)] * 40)
    totals = []

    def progress(done, total):
        totals.append(total)
        return done

    found = understand_masks(splits, workers=2, progress=progress)
    write_masks(splits, found.rule, tmp_path / 'work', workers=2, progress=progress)
    assert found.images['train'].tolist() == [40] * 3 and len(list((tmp_path / 'work/masks/train').iterdir())) == 40
    assert totals == [40, 42]


@pytest.mark.skipif(not ODD.is_dir(), reason='the odd labels are not there')
@pytest.mark.parametrize('folder, image, mask, outcome', [
    ('01_*', '2011_000003.jpg', '2011_000003_vocaug_mask.png', 'VOC 2012'),
    ('02_*', '2011_000003.jpg', '2011_000003.json', 'mmseg-gpt labels'),
    ('05_*', '*736.jpg', '*736.png', 'Name them in classes.csv'),
    ('11_*', '*_challenge.png', '*_challenge.png', 'ADE20K'),
    ('11_*', '*_raw.png', '*_raw.png', "ADE20K's full coding"),
    ('12_*', 'img_dir*', 'ann_dir*', '2 = class 2'),
    ('13_*', '0001.jpg', '0001.mat', '55 = class 55'),
    ('13_*', '1005.jpg', '1005.mat', 'holds tags'),
    ('18_*', '*leftImg8bit.png', '*instanceIds.png', '*_labelIds'),
    ('18_*', '*leftImg8bit.png', '*labelIds.png', 'of which 19 are classes'),
    ('18_*', '*leftImg8bit.png', '*labelTrainIds.png', 'trainIds'),
    ('19_*', 'images*', 'annotations*', '849 different ones'),
    ('21_*', 'image_*003.jpg', 'mask_*003.png', '1068x622'),
    ('21_*', 'image_*002.jpg', 'mask_*002.PNG', '(0,255,255)'),
    ('22_*', 'color_107*.jpg', 'color_107*_mask.png', 'every CRLF in it has become LF'),
    ('23_*', '*108719.jpg', '*108719.png', "128 and more is 'foreground'"),
    ('29_*', 'ds0/img/*.jpg', 'ds0/ann/*.json', 'mmseg-gpt labels'),
])
def test_odd_labels_of_real_users(folder, image, mask, outcome):
    root = next(ODD.glob(folder))
    pair = Pair(next(root.glob(image)), next(root.glob(mask)))
    found = understand_masks(dict(train=[pair], val=[pair]))
    assert said(found.problems + found.warnings + found.notes, outcome)
    assert found.rule is None or isinstance(found.rule, MaskRule)


def test_a_table_is_a_value(tmp_path):
    assert read_classes('a,b') == read_classes('a,b') and isinstance(read_classes('a,b'), ClassTable)


def test_made_up_names_are_ignored_by_their_numbers(tmp_path):
    splits = write(tmp_path, [regions(0, 1, 2), regions(0, 1), regions(0, 1)])
    warnings = understand(dict(train=splits['train'][1:], val=splits['train'][:1])).warnings
    assert said(warnings, 'class 2', '--ignore 2,')
