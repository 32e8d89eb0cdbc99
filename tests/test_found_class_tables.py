"""Tables of classes in the forms that people and tools write them, and what is wrong with some."""

import json

import pytest

from mmseg_gpt.datasets.found.class_table import ClassTableError, Row, find_classes, read_classes

ROAD, CAR = Row('road', None, (128, 64, 128)), Row('car', None, (0, 0, 142))


@pytest.mark.parametrize('name, text, rows', [
    ('names.txt', 'road\n\nparked car\n', [Row('road'), Row('parked car')]),
    ('names.txt', '\ufeffroad\r\ncar\r\n', [Row('road'), Row('car')]),
    ('one_line.txt', 'road, car', [Row('road'), Row('car')]),
    ('values.txt', '0 road\n7 parked car\n', [Row('road', 0), Row('parked car', 7)]),
    ('values.txt', 'road: 0\nparked car: 7\n', [Row('road', 0), Row('parked car', 7)]),
    ('numbers.txt', 'sky 2\nfloor 0\nbox 1\n', [Row('sky', 2), Row('floor', 0), Row('box', 1)]),
    ('planes.txt', 'Boeing 707\nAirbus 320\n', [Row('Boeing 707'), Row('Airbus 320')]),
    ('coins.txt', '1 euro\n2 euro\n', [Row('1 euro'), Row('2 euro')]),
    ('labelmap.txt', '# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142::\n', [ROAD, CAR]),
    ('colours.txt', '128 64 128\troad\n0 0 142\tcar\n', [ROAD, CAR]),
    ('colours.txt', 'road 128 64 128\ncar 0 0 142', [ROAD, CAR]),
    ('hex.txt', '# own\nroad #804080\ncar #00008e\n', [ROAD, CAR]),
    ('hex.txt', '#804080 road\n#00008e car\n', [ROAD, CAR]),
    ('all.txt', '0 road 128 64 128\n7 car 0 0 142\n', [ROAD._replace(value=0), CAR._replace(value=7)]),
    ('all.txt', '0 128 64 128 road\n7 0 0 142 car\n', [ROAD._replace(value=0), CAR._replace(value=7)]),
    ('all.csv', 'road,0,128,64,128\ncar,7,0,0,142\n', [ROAD._replace(value=0), CAR._replace(value=7)]),
    ('lanes.txt', 'lane 1 128 64 128\nlane 2 0 0 142', [ROAD._replace(name='lane 1'), CAR._replace(name='lane 2')]),
    ('kaggle.csv', 'name,r,g,b\nroad,128,64,128\ncar,0,0,142\n', [ROAD, CAR]),
    ('found.csv', 'name,r,g,b,share of pixels,first mask\n"road",128,64,128,3%,"a,b.png"\ncar,0,0,142,1%,c\n',
     [ROAD, CAR]),
    ('_classes.csv', 'Pixel Value, Class\n0, road\n7, car\n', [Row('road', 0), Row('car', 7)]),
    ('semicolons.csv', 'id;label;color\n0;road;#804080\n7;car;#00008e\n',
     [ROAD._replace(value=0), CAR._replace(value=7)]),
    ('one_column.csv', 'name\nroad\ncar\n', [Row('road'), Row('car')]),
    ('header.txt', 'id name\n0 road\n7 car\n', [Row('road', 0), Row('car', 7)]),
    ('header.txt', 'Name R G B\nroad 128 64 128\ncar 0 0 142\n', [ROAD, CAR]),
    ('whisky.txt', 'Red Label\nBlack Label\n', [Row('Red Label'), Row('Black Label')]),
    ('plain.csv', 'road,128,64,128\ncar,0,0,142\n', [ROAD, CAR]),
    ('list.json', ['road', 'car'], [Row('road'), Row('car')]),
    ('objects.json', [dict(name='road', id=0, color=[128, 64, 128]), dict(name='car', id=7, color='#00008e')],
     [ROAD._replace(value=0), CAR._replace(value=7)]),
    ('coco.json', dict(images=[], categories=[dict(id=1, name='road'), dict(id=7, name='car')]),
     [Row('road', 1), Row('car', 7)]),
    ('meta.json', dict(classes=[dict(title='road', color='#804080'), dict(title='car', color='#00008e')]), [ROAD, CAR]),
    ('values.json', dict(road=0, car=7), [Row('road', 0), Row('car', 7)]),
    ('by_value.json', {'0': 'road', '7': 'car'}, [Row('road', 0), Row('car', 7)]),
    ('by_value.json', {'0': dict(name='road', color='#804080'), '1': dict(id=7, name='car', color='#00008e')},
     [ROAD._replace(value=0), CAR._replace(value=7)]),
    ('by_name.json', dict(road=[128, 64, 128], car='#00008e'), [ROAD, CAR]),
    ('labels.txt', '__ignore__\n_background_\ncar\n', [Row('__ignore__', -1), Row('_background_', 0), Row('car', 1)]),
])
def test_files_of_classes(tmp_path, name, text, rows):
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding='utf-8')
    table = read_classes(path)
    assert list(table.rows) == rows and table.source == str(path)
    assert read_classes(str(path)) == table


def test_a_cell_array_of_names(tmp_path):
    scipy_io = pytest.importorskip('scipy.io')
    import numpy as np
    scipy_io.savemat(tmp_path / 'label_list.mat', dict(label_list=np.array(['null', 'bag'], object)))
    assert read_classes(tmp_path / 'label_list.mat').names == ('null', 'bag')


def test_names_on_the_command_line():
    assert read_classes('road, car,sky').rows == (Row('road'), Row('car'), Row('sky'))
    merged = read_classes('road,vehicle=car+truck,sky')
    assert merged.rows == (Row('road'), Row('car'), Row('truck'), Row('sky'))
    assert merged.names == ('road', 'vehicle', 'sky') and [row.value for row in merged.numbered().rows] == [0, 1, 2, 3]
    assert read_classes('road,car,truck,car=car+truck').rows == (Row('road'), Row('car'), Row('truck'))
    valued = read_classes('road=0,car=13+14')
    assert valued.rows == (Row('road', 0), Row('car', 13), Row('car', 14)) and valued.names == ('road', 'car')


def test_merges_after_a_file(tmp_path):
    path = tmp_path / 'classes.csv'
    path.write_text('name,value\nroad,0\ncar,13\ntruck,14\nroad,15\nvoid,16\n')
    assert read_classes(path).names == ('road', 'car', 'truck')  # lines of one name are one class; void is none
    assert read_classes(f'{path},vehicle=car+truck').names == ('road', 'vehicle')
    assert read_classes(f'{path}, vehicle=13+14').names == ('road', 'vehicle')
    with pytest.raises(ClassTableError, match=r"merges 'trucks', which .*classes\.csv does not have; it has 'truck'"):
        read_classes(f'{path},vehicle=car+trucks')
    with pytest.raises(ClassTableError, match='only merges such as car=car'):
        read_classes(f'{path},sky')


@pytest.mark.parametrize('name', ['void', 'Unlabelled', 'unlabeled', 'ignore', '__ignore__', "don't care", 'dont_care'])
def test_names_that_say_unlabelled_are_no_classes(name):
    assert read_classes(f'{name},background,car').names == ('background', 'car')


@pytest.mark.parametrize('text, said', [
    ('none.txt', 'none.txt, which is to name the classes, is not there'),
    ('road,,car', 'a comma too many'),
    ('road,car=', 'merged as in car=car'),
    ('road=0,car', 'gives the values of some classes, but not of car'),
    ('road=0,car=0', "gives the value 0 to both 'road' and 'car'"),
    ('void', 'only classes that are ignored'),
])
def test_wrong_names_are_refused(text, said):
    with pytest.raises(ClassTableError, match=said):
        read_classes(text)


@pytest.mark.parametrize('name, text, said', [
    ('empty.txt', '\n', 'empty.txt names no class'),
    ('half.csv', 'name,r,g,b\nroad,128,64,128\ncar,0,0,x\n', r"half.csv, line 3 \(car,0,0,x\): "),
    ('far.csv', 'name,r,g,b\nroad,128,64,300\n', 'is no colour'),
    ('twice.csv', 'name,r,g,b\nroad,1,2,3\ncar,1,2,3\n', "the colour .* to both 'road' and 'car'"),
    ('gap.csv', 'name,value\nroad,0\ncar,5\nsky,\n', r'gap.csv gives the values of some classes, but not of sky'),
    ('flags.json', '{"road": true}', 'Write a list of names'),
    ('broken.json', '{"a"', 'cannot be read'),
    ('data.yaml', 'nc: 2\nnames:\n- road\n- car\n', 'data.yaml, .* is a .yaml file, and these are not read: write'),
    ('number.json', '3', 'Write a list of names, or of objects'),
])
def test_wrong_files_are_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ClassTableError, match=said):
        read_classes(tmp_path / name)


def test_a_table_in_the_folder_is_found(tmp_path):
    (tmp_path / 'labels.csv').write_text('image,label\na.jpg,road\n')
    (tmp_path / 'meta.json').write_text('{"version": [1]}')
    assert find_classes(tmp_path) is None  # neither is about classes
    for split in ('train', 'valid'):
        (tmp_path / split).mkdir()
        (tmp_path / split / '_classes.csv').write_text('Pixel Value, Class\n0, background\n1, road\n')
    table = find_classes(tmp_path)
    assert table.names == ('background', 'road') and table.source == str(tmp_path / 'train/_classes.csv')
    (tmp_path / 'valid/_classes.csv').write_text('Pixel Value, Class\n0, background\n1, tree\n')
    with pytest.raises(ClassTableError, match='name classes differently; say which holds, with --classes'):
        find_classes(tmp_path)
