"""The pages: what they link to is there, what they show can be run, and the README agrees with what was measured."""

import re
import shutil
from pathlib import Path

import pytest

from mmseg_gpt.engine.config import find_config

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')])
CONFIGS = [(page, i) for page in ('docs/own_data.md', 'docs/vits.md', 'README.md')
           for i, shown in enumerate(re.findall(r'(?ms)^```python\n(.*?)^```', (ROOT / page).read_text()))
           if '_base_' in shown]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding='utf-8')


def blocks(page: str, language: str = '') -> list[str]:
    """Returns the fenced blocks of a page in a language."""
    return re.findall(rf'^```{language}\n(.*?)^```', text_of(page), re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as Python-Markdown and GitHub make them from words."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(encoding='utf-8'), re.MULTILINE)
    return {re.sub(r'[\s-]+', '-', re.sub(r'[^\w\s-]', '', heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize('page', PAGES)
def test_what_a_page_shows_or_links_to_is_there(page):
    wrong = []
    for path, anchor in re.findall(r'\]\(([^)#:]*)(?:#([^)]*))?\)', text_of(page)):
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(f'{path}#{anchor}')
    assert not wrong


@pytest.mark.parametrize('page', PAGES)
def test_commands_name_tools_configs_and_targets_that_are_there(page):
    text, targets = text_of(page), re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    named = re.findall(r'\b((?:tools|configs|tests|mmseg_gpt)/[\w/.-]*\.py)\b', text)
    folders = re.findall(r'(?<![\w/.-])((?:tools|configs|tests|mmseg_gpt)(?:/\w+)*)/?(?=[`\s)])', text)
    assert not [path for path in folders if not (ROOT / path).exists()]
    made_by_readers = {'configs/mine.py', 'configs/NAME.py'}
    assert not [path for path in named if path not in made_by_readers and not (ROOT / path).is_file()]
    assert not [target for target in re.findall(r'(?:^|`)make ([\w-]+)', text, re.MULTILINE) if target not in targets]


@pytest.mark.parametrize('page', PAGES)
def test_commands_have_options_that_their_tools_know(page):
    for line in '\n'.join(blocks(page)).replace('\\\n', ' ').splitlines():
        found = re.search(r'(tools/\w+\.py)(.*)', line.partition('#')[0])
        if found:
            known = '\n'.join(path.read_text() for path in (ROOT / found[1], ROOT / 'tools/arguments.py'))
            assert not [option for option in re.findall(r' (--[a-z][\w-]*)', found[2])
                        if f"'{option}'" not in known and f"'{option[2:]}'" not in known]


@pytest.mark.parametrize(('page', 'i'), CONFIGS)
def test_a_config_that_a_page_shows_is_read(page, i, tmp_path):
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    shown = tmp_path / f'configs/shown_{i}.py'
    shown.write_text(blocks(page, 'python')[i])
    cfg = find_config(str(shown))
    assert cfg.model.backbone.type == 'GatedPromptViT' and cfg.train_dataloader.dataset.pipeline
    if page == 'docs/own_data.md':
        dataset = cfg.train_dataloader.dataset
        assert dataset.data_root == 'data/mine' and cfg.val_dataloader.dataset.data_root == 'data/mine'
        assert {head.num_classes for head in [cfg.model.decode_head, *cfg.model.auxiliary_head]} == {3}
        assert 'reduce_zero_label=True' not in str([cfg.tta_pipeline, cfg.test_pipeline]).replace("': ", '=')


def test_the_readme_is_short():
    assert len(text_of('README.md').splitlines()) <= 150


def table_with(column: str, text: str) -> list[dict[str, str]]:
    """Returns the rows of the first table that has a column, by its header."""
    lines = [[cell.strip() for cell in line.strip('|').split('|')] if line.startswith('|') else []
             for line in text.replace('**', '').splitlines()]
    start = next(i for i, cells in enumerate(lines) if column in cells)
    rows = lines[start + 2:lines.index([], start)]
    return [dict(zip(lines[start], cells, strict=True)) for cells in rows]


def test_the_results_in_the_readme_are_those_that_were_measured():
    shown = table_with('Method', text_of('README.md'))
    measured = {row['Method']: row for row in table_with('Method', text_of('docs/photographs.md'))}
    printed = text_of('docs/model_zoo.md')
    assert len(shown) == len(measured) == 11
    for row in shown:
        method, paper = row['Method'], row.pop('ADE20K, MAE ViT-B: mIoU, as the paper has it')
        assert row.items() <= measured[method].items() and any(' ± ' in cell for cell in row.values())
        if paper:
            assert re.search(rf'^\| {method} \| (100|10 x 12) \| MAE ViT-B/16 \| {paper} / ', printed, re.MULTILINE)
