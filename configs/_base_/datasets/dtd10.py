# Ten of the 47 textures of the Describable Textures Dataset, 120 photographs of each, in a folder for each texture.
# train.txt and test.txt list images and their class numbers; `mmseg-gpt study dtd10` writes such lists. At 224 pixels.
_base_ = 'listed_photographs.py'
num_classes = 10
photographs = dict(
    data_root='data/dtd10',
    metainfo=dict(
        classes=('banded', 'blotchy', 'braided', 'bubbly', 'bumpy', 'chequered', 'cobwebbed', 'cracked', 'crosshatched',
                 'crystalline')))
train_dataloader = dict(dataset=photographs)
test_dataloader = dict(dataset=photographs)
del photographs  # not a setting of its own
