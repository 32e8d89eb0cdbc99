# Oxford Flowers 17: 17 kinds of flowers, 80 photographs of each, in a folder for each kind. train.txt and test.txt list
# images and their class numbers. At 224 pixels.
_base_ = 'listed_photographs.py'
num_classes = 17
photographs = dict(
    data_root='data/flowers17',
    metainfo=dict(
        classes=('daffodil', 'snowdrop', 'lily_of_the_valley', 'bluebell', 'crocus', 'iris', 'tigerlily', 'tulip',
                 'fritillary', 'sunflower', 'daisy', 'coltsfoot', 'dandelion', 'cowslip', 'buttercup', 'windflower',
                 'pansy')))
train_dataloader = dict(dataset=photographs)
test_dataloader = dict(dataset=photographs)
del photographs  # not a setting of its own
