"""Numbers, lists and tables as people write them."""

from mmseg_gpt.wording import markdown_table


def test_a_table_of_markdown_has_its_numbers_to_the_right():
    assert markdown_table(('name', 'mIoU'), [('ours', '38.44'), ('', '')]) == (
        '| name | mIoU |\n| --- | ---: |\n| ours | 38.44 |\n|  |  |')
    assert markdown_table(('a', 'b'), (), left=2) == '| a | b |\n| --- | --- |'
