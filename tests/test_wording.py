"""Numbers, lists and tables as people write them."""

import pytest

from mmseg_gpt.wording import gist, markdown_table


@pytest.mark.parametrize('message, said', [
    ('one line', 'one line'), ('', ''), ('stopped at 3: loss\nImages: unknown', 'stopped at 3: loss'),
    ('Wrong:\n\n  * a: is b', 'Wrong: a: is b'), ('Wrong:\n\n  * a\n  * b\nSee c', 'Wrong: a (and 1 more)'),
    ('does not fill it:\n  missing: a\n  unexpected: b', 'does not fill it: missing: a'), ('Alone:', 'Alone:')])
def test_the_gist_of_a_message_says_why(message, said):
    assert gist(message) == said


def test_a_table_of_markdown_has_its_numbers_to_the_right():
    assert markdown_table(('name', 'mIoU'), [('ours', '38.44'), ('', '')]) == (
        '| name | mIoU |\n| --- | ---: |\n| ours | 38.44 |\n|  |  |')
    assert markdown_table(('a', 'b'), (), left=2) == '| a | b |\n| --- | --- |'
