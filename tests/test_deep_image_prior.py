"""Deep Image Prior: what comes back from a representation, its scores, the files that are kept, and the tool."""

import json
import runpy
import shlex
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image

import mmseg_gpt.checkpoints.load as load
from mmseg_gpt.analysis import encoder as encoders
from mmseg_gpt.analysis.deep_image_prior import Generator, decay, reconstruct, start
from mmseg_gpt.analysis.encoder import Encoder, read_encoder
from mmseg_gpt.analysis.reconstruction_figures import draw_pictures, draw_scores, shortened, write_all
from mmseg_gpt.analysis.reconstructions import Reconstruction, Settings, read_picture, reconstruct_all, scores, summary
from mmseg_gpt.checkpoints import read_file

ROOT = Path(__file__).parents[1]
SIZE = 16
SETTINGS = Settings(iterations=2, lr=0.01, seed=0)


@pytest.fixture
def encoder(tiny_vit) -> Encoder:
    return Encoder(tiny_vit(img_size=SIZE, patch_size=4).float(), [127.5] * 3, [60.] * 3)


def picture(size: int = SIZE) -> np.ndarray:
    """A red disc on a ground that goes from black to green."""
    rows, columns = np.mgrid[:size, :size] / (size - 1)
    disc = np.hypot(rows - 0.5, columns - 0.4) < 0.3
    return np.stack([255 * disc, 200 * columns * ~disc, 40 * np.ones_like(rows)], axis=2).astype(np.uint8)


def as_image(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(pixels).permute(2, 0, 1) / 255


def as_pixels(image: torch.Tensor) -> np.ndarray:
    return (image.permute(1, 2, 0) * 255).round().byte().numpy()


def test_the_encoder_gives_the_output_of_a_block(tiny_vit):
    """Against a hook on the block, with the ViT's own forward; normalised by hand."""
    vit, outputs = tiny_vit(num_registers=2), []
    vit.blocks[1].register_forward_hook(lambda *args: outputs.append(args[2]))
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    mean, std = torch.tensor([10., 20., 30.]).view(3, 1, 1), torch.tensor([50., 60., 70.]).view(3, 1, 1)
    vit((255 * images.flip(1) - mean) / std)
    found = Encoder(vit, [10., 20., 30.], [50., 60., 70.], rgb=False)(images, block=2)
    assert found.shape == (2, 1 + 2 + 16, 32), 'all tokens: CLS, registers, patches'
    assert torch.allclose(found, outputs[0], atol=1e-5)
    with pytest.raises(ValueError, match='no block 5: the ViT has blocks 1 to 4'):
        Encoder(vit, [0.] * 3, [1.] * 3)(images, block=5)


def test_prompts_and_temperatures_are_not_used(tiny_vit):
    vit = tiny_vit(prompt=dict(type='GatedPrompt', num_tokens=3), temperature=True)
    alone = tiny_vit()
    alone.load_state_dict(vit.vit_state())
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(*(Encoder(each, [0.] * 3, [255.] * 3)(images, 4) for each in (vit, alone)))


@pytest.mark.parametrize('size', [(8, 8), (33, 50), (64, 64)])
def test_the_generator_draws_images_of_any_size(size):
    drawn = Generator(min(size))(torch.rand(1, 32, *size))
    assert drawn.shape == (1, 3, *size) and drawn.min() > 0 and drawn.max() < 1
    with pytest.raises(ValueError, match='7 pixels are too small'):
        Generator(7)


def test_an_image_comes_back_from_the_first_block(encoder):
    """Far better than what the generator draws at first, than noise, and than the best image of one colour."""
    torch.manual_seed(1)
    state, pixels = torch.get_rng_state(), picture()
    steps = list(reconstruct(encoder, as_image(pixels), block=1, iterations=150))
    assert [step for step, _, _ in steps] == list(range(151))
    first, last = (scores(pixels, as_pixels(drawn)) for _, drawn, _ in (steps[0], steps[-1]))
    flat = np.broadcast_to(pixels.mean(axis=(0, 1)).astype(np.uint8), pixels.shape)
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    assert last[0] > 10 + max(first[0], *(scores(pixels, other)[0] for other in (flat, noise)))
    assert last[1] > 0.7 and steps[-1][2] < 0.01 * steps[0][2]
    assert torch.equal(torch.get_rng_state(), state), "the program's own random numbers were used"


def test_the_distance_is_the_squared_one_over_the_variance(encoder):
    image = as_image(picture())
    _, drawn, distance = next(reconstruct(encoder, image, block=3))
    target = encoder(image[None], 3)
    by_hand = ((encoder(drawn[None], 3) - target)**2).mean() / target.var()
    assert distance == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_seed_decides(encoder):
    def last(seed):
        return list(reconstruct(encoder, as_image(picture()), 1, iterations=2, seed=seed))[-1][1]
    assert torch.equal(last(0), last(0)) and not torch.equal(last(0), last(1))


def test_the_seed_is_of_no_other_generator(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', lambda seed: pytest.fail('a GPU has been seeded'))
    before = torch.get_rng_state()
    start(32, 40, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_learning_rate_falls_at_the_end():
    rates = [decay(step, 100) for step in range(101)]
    assert rates[75] == 1 and rates[100] == 0 and rates[90] == pytest.approx(0.4)
    assert all(later <= earlier for earlier, later in pairwise(rates))


def test_a_distance_that_is_not_finite_is_an_error(encoder):
    encoder.vit.cls_token.data.fill_(float('nan'))
    with pytest.raises(ValueError, match=r'block 2: .* learning rate below 0.005'):
        list(reconstruct(encoder, as_image(picture()), 2, iterations=1))


def test_scores_by_hand():
    """All pixels 16 off: PSNR is 20 log10(255 / 16); and of flat pictures SSIM is its term of means alone."""
    one, other = np.full((8, 8, 3), 100, np.uint8), np.full((8, 8, 3), 116, np.uint8)
    psnr, ssim = scores(one, other)
    assert psnr == pytest.approx(20 * np.log10(255 / 16))
    constant = (0.01 * 255)**2
    assert ssim == pytest.approx((2 * 100 * 116 + constant) / (100**2 + 116**2 + constant))
    assert scores(one, one) == (np.inf, 1)


def test_summary_by_hand():
    found = [Reconstruction(image, 'mae', block, 9, None, 0., psnr, ssim) for image, block, psnr, ssim in (
        ('a', 1, 20., .8), ('b', 1, 23., .9), ('a', 4, 15., .5))]
    assert summary(found) == [
        dict(vit='mae', block=1, images=2, psnr=21.5, psnr_std=pytest.approx(1.5 * 2**.5), ssim=pytest.approx(.85),
             ssim_std=pytest.approx(.05 * 2**.5)),
        dict(vit='mae', block=4, images=1, psnr=15., psnr_std=None, ssim=.5, ssim_std=None)]


def test_read_picture_takes_the_upright_centre(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10, 10:30] = (255, 0, 0)  # the upper half of the centre square
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / 'a.png', exif=exif)
    found = read_picture(tmp_path / 'a.png', 10)
    assert found.shape == (10, 10, 3)
    assert (found[8:, ..., 0] > 230).all() and not found[:2].any() and not found[..., 1:].any()
    (tmp_path / 'b.png').write_bytes((tmp_path / 'a.png').read_bytes()[:-60])
    with pytest.raises(ValueError, match=r'b\.png is not an image'):
        read_picture(tmp_path / 'b.png', 10)


def run_all(encoder: Encoder, folder: Path, settings: Settings = SETTINGS, blocks=(1, 3)) -> list[Reconstruction]:
    return list(reconstruct_all({'mae': encoder}, {'disc': picture()}, blocks, settings, folder))


def test_what_is_finished_is_kept_and_the_rest_made(encoder, tmp_path):
    first = run_all(encoder, tmp_path, blocks=(1, ))
    assert [each.step for each in first] == [0, 2]
    kept = tmp_path / 'mae/disc_block01.png'
    assert (np.asarray(Image.open(kept)) == first[-1].pixels).all()
    before = kept.stat().st_mtime_ns
    more = run_all(encoder, tmp_path)
    assert [(each.block, each.step) for each in more] == [(1, 2), (3, 0), (3, 2)]
    assert (more[0].pixels == first[-1].pixels).all() and more[0][3:4] + more[0][5:] == first[-1][3:4] + first[-1][5:]
    assert kept.stat().st_mtime_ns == before and [p.name for p in sorted(kept.parent.iterdir())] == [
        'disc_block01.png', 'disc_block03.png']


@pytest.mark.parametrize('changed, said', [
    (dict(iterations=3), r'iterations \(2 there, 3 here\)'), (dict(seed=1), 'seed'), (dict(lr=0.02), 'lr'),
    ('weights', 'vit'), ('mean', 'mean'), ('heads', r'num_heads \(4 there, 2 here\)'), ('eps', 'norm_eps')])
def test_leftovers_of_other_settings_are_refused(encoder, tiny_vit, tmp_path, changed, said):
    run_all(encoder, tmp_path)
    if changed == 'weights':
        encoder.vit.cls_token.data += 1
    elif changed == 'mean':
        encoder.mean += 0.1
    elif changed in ('heads', 'eps'):
        options = dict(norm_eps=1e-3) if changed == 'eps' else dict(arch=dict(encoder.vit.arch, num_heads=2))
        other = tiny_vit(img_size=SIZE, patch_size=4, **options).float()
        other.load_state_dict(encoder.vit.state_dict())
        encoder = Encoder(other, [127.5] * 3, [60.] * 3)
    settings = SETTINGS._replace(**changed) if isinstance(changed, dict) else SETTINGS
    with pytest.raises(ValueError, match=rf'disc_block01.png was made with other settings: {said}.*another --out'):
        run_all(encoder, tmp_path, settings, blocks=(4, 1))
    assert not (tmp_path / 'mae/disc_block04.png').exists(), 'it was found out after work had been done'


def test_a_block_that_is_not_there_is_found_out_first(encoder, tmp_path):
    with pytest.raises(ValueError, match='no block 5'):
        next(reconstruct_all({'mae': encoder}, {'disc': picture()}, (1, 5), SETTINGS, tmp_path))


def test_damaged_and_foreign_files_are_refused(encoder, tmp_path):
    run_all(encoder, tmp_path, blocks=(1, ))
    kept = tmp_path / 'mae/disc_block01.png'
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r'disc_block01.png is damaged.*remove it'):
        run_all(encoder, tmp_path)
    Image.fromarray(picture()).save(kept)
    with pytest.raises(ValueError, match='or no reconstruction of this tool'):
        run_all(encoder, tmp_path)


def found_for(vits, blocks, originals) -> list[Reconstruction]:
    return [Reconstruction(name, vit, block, 9, pixels, .1, 20. + block, .5)
            for name, pixels in originals.items() for vit in vits for block in blocks]


def test_an_image_that_comes_back_exactly_has_an_infinite_psnr_that_tables_leave_out(tmp_path):
    originals = {'flat': picture(), 'other': picture()}
    found = found_for(('A', ), (1, 4), originals)
    found[0] = found[0]._replace(psnr=np.inf)
    first, second = summary(found)
    assert (first['psnr'], first['psnr_std'], first['ssim_std'], second['psnr_std']) == (np.inf, None, 0, 0)
    write_all(found, originals, ('A', ), (1, 4), 9, tmp_path / 'dip.png')
    for name, rows in (('dip', 4), ('dip_scores', 2)):
        numbers = json.loads((tmp_path / f'{name}.json').read_text(), parse_constant=pytest.fail)['rows']
        assert [row['psnr'] for row in numbers] == [None, *[24., 21., 24.][:rows - 1]]
        assert 'inf' not in (tmp_path / f'{name}.csv').read_text()
    assert 'nan' not in (tmp_path / 'dip_scores.svg').read_text().lower()


def test_the_grid_shows_every_picture_with_its_scores():
    originals = {'one': picture(), 'other': 255 - picture(), 'third': picture() // 2}
    found = found_for(('ViT A', 'ViT B'), (1, 4), originals)
    found[0] = found[0]._replace(step=5)
    figure = draw_pictures(originals, ('ViT A', 'ViT B'), (1, 4), 9, found[:-1])
    shown = [axis for axis in figure.axes if axis.axison]
    assert len(shown) == 3 * (1 + 4), 'an original and four reconstructions for each image'
    assert sum((axis.images[0].get_array().shape == (16, 16, 3)) for axis in shown) == 14, 'the last is missing'
    labels = [axis.get_xlabel() for axis in shown]
    assert 'PSNR 21.0 dB\nSSIM 0.500\niteration 5' in labels and 'PSNR 24.0 dB\nSSIM 0.500' in labels
    assert labels.count('not yet') == 1
    titles = [axis.get_title() + axis.get_title(loc='left') for axis in shown]
    assert [titles.count(title) for title in ('one', 'other', 'third', 'Block 1', 'Block 4')] == [1, 1, 1, 3, 3]
    assert [axis.get_ylabel() for axis in shown].count('ViT B') == 3
    assert '16x16 pixels, 9 iterations' in figure.get_suptitle()


def test_the_grid_has_the_colours_of_the_picture():
    """Rendered: red first, and the picture is where its axis is."""
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    figure = draw_pictures({'red': red}, ('MAE', ), (1, ), 9, [])
    figure.canvas.draw()
    rendered = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    box = figure.axes[0].get_window_extent()
    inside = rendered[int(rendered.shape[0] - box.y1) + 3:int(rendered.shape[0] - box.y0) - 3,
                      int(box.x0) + 3:int(box.x1) - 3]
    assert (inside == (255, 0, 0)).all() and inside.size
    assert not (rendered[int(rendered.shape[0] - box.y0) + 3:] == (255, 0, 0)).all(axis=2).any()


def test_the_scores_are_drawn_by_block():
    found = [Reconstruction(image, vit, block, 9, None, 0., psnr + block, .5) for vit, psnr in (('A', 20.), ('B', 10.))
             for image in 'ab' for block in (4, 1)]
    found += [found[0]._replace(image='c', psnr=27.)]
    figure = draw_scores(found)
    psnr, ssim = figure.axes
    assert [psnr.get_ylabel(), ssim.get_ylabel(), psnr.get_xlabel()] == ['PSNR (dB)', 'SSIM', 'Block']
    lines = [container.lines[0] for container in psnr.containers]
    assert lines[0].get_ydata() == pytest.approx([21., (24 + 24 + 27) / 3]), 'ordered by block, mean of images'
    assert lines[1].get_ydata() == pytest.approx([11., 14.])
    assert lines[0].get_linestyle() != lines[1].get_linestyle() and lines[0].get_marker() != lines[1].get_marker()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['A', 'B']
    assert '2 to 3 images, mean and standard deviation' in figure.get_suptitle()
    assert '(1 image)' in draw_scores(found[:1]).get_suptitle()


def test_numbers_of_what_is_finished_are_written(tmp_path):
    originals = {'one': picture()}
    found = found_for(('A', ), (1, 4, 7), originals)
    found[2] = found[2]._replace(step=3)
    written = write_all(found, originals, ('A', ), (1, 4, 7), 9, tmp_path / 'dip.png', seed=5)
    assert [path.name for path in written] == [
        'dip.png', 'dip.svg', 'dip.csv', 'dip.json', 'dip_scores.png', 'dip_scores.svg', 'dip_scores.csv',
        'dip_scores.json']
    numbers = json.loads((tmp_path / 'dip.json').read_text())
    assert numbers['seed'] == 5 and numbers['iterations'] == 9
    assert numbers['rows'] == [dict(image='one', vit='A', block=block, distance=.1, psnr=20. + block, ssim=.5)
                               for block in (1, 4)]
    assert [path.name for path in write_all([], originals, ('A', ), (1, ), 9, tmp_path / 'no.png')] == [
        'no.png', 'no.svg']


def test_long_names_are_shortened():
    assert shortened('a' * 20, 20) == 'a' * 20
    assert len(shortened('abcdefghijklmnop', 10)) == 10 and shortened('abcdefghijklmnop', 10) == 'abcd...nop'


def vit_config(tiny_vit, folder: Path, **preprocessor) -> Config:
    """A config whose pretrained ViT, of 32x32 pixels, lies in ``folder``."""
    torch.save(dict(model=tiny_vit().float().state_dict()), folder / 'vit.pth')
    return Config(dict(model=dict(
        data_preprocessor=dict(mean=[1., 2., 3.], std=[4., 5., 6.], **preprocessor),
        backbone=dict(type='GatedPromptViT', arch=dict(embed_dims=32, num_layers=4, num_heads=4), img_size=512,
                      patch_size=8, prompt=dict(type='GatedPrompt', num_tokens=3), temperature=True,
                      init_cfg=dict(type='PretrainedViT', checkpoint=str(folder / 'vit.pth'))))), cfg_text='#',
        filename='some.py')


@pytest.mark.parametrize('option, rgb', [(dict(bgr_to_rgb=True), True), (dict(to_rgb=True), True), ({}, False)])
def test_read_encoder_takes_the_vit_and_the_normalisation_of_a_config(tiny_vit, tmp_path, option, rgb):
    encoder = read_encoder(vit_config(tiny_vit, tmp_path, **option), 32)
    saved = torch.load(tmp_path / 'vit.pth', weights_only=True)['model']
    assert all(torch.equal(saved[name], weight) for name, weight in encoder.vit.state_dict().items())
    assert not any(weight.requires_grad for weight in encoder.parameters())
    images = torch.rand(1, 3, 32, 32)
    order = [0, 1, 2] if rgb else [2, 1, 0]
    by_hand = torch.stack([(255 * images[0, c] - m) / s for c, m, s in zip(order, (1, 2, 3), (4, 5, 6))])[None]
    assert torch.allclose(encoder(images, 1), encoder.vit.blocks[0](encoder.vit.embed(by_hand)[0]), atol=1e-4)


def test_read_encoder_takes_a_trained_model_and_says_what_is_missing(tiny_vit, tmp_path, monkeypatch):
    cfg, reads = vit_config(tiny_vit, tmp_path), []
    for module in (encoders, load):
        monkeypatch.setattr(module, 'read_file', lambda path: reads.append(path) or read_file(path))
    other = {f'backbone.{name}': weight + 1 for name, weight in tiny_vit().float().state_dict().items()}
    torch.save(dict(state_dict=other), tmp_path / 'tuned.pth')
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'tuned.pth')
    encoder = read_encoder(cfg, 32)
    assert torch.equal(encoder.vit.cls_token, other['backbone.cls_token']) and len(reads) == 1
    for options in (dict(lora=dict(rank=1)), dict(biases=True), dict(adapter=dict(width=2))):
        adapted = {f'backbone.{name}': weight for name, weight in tiny_vit(**options).float().state_dict().items()}
        torch.save(dict(state_dict=adapted), tmp_path / 'tuned.pth')
        with pytest.raises(ValueError, match='holds updates of the layers of its ViT'):
            read_encoder(cfg, 32)
    torch.save(dict(state_dict=other), tmp_path / 'tuned.pth')
    for key, said in (('init_cfg', 'names no pretrained ViT'), ('type', 'must be a GatedPromptViT, this one is None')):
        del cfg.model.backbone[key]
        with pytest.raises(ValueError, match=f'some.py.*{said}'):
            read_encoder(cfg, 32)
    with pytest.raises(ValueError, match='no mean and std'):
        read_encoder(Config(dict(model=dict(backbone=dict(type='GatedPromptViT')))), 32)


@pytest.fixture
def run_tool(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int | str, str]]:
    """Runs the tool in this process; gives its exit code or last words, and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / 'tools')

    def run(*options: str) -> tuple[int | str, str]:
        monkeypatch.setattr(sys, 'argv', ['deep_image_prior.py', *options])
        code = 0
        try:
            runpy.run_path(str(ROOT / 'tools/deep_image_prior.py'), run_name='__main__')
        except SystemExit as stopped:
            code = stopped.code
        MMLogger._instance_dict.pop('deep_image_prior', None)
        return code, ''.join(capsys.readouterr())

    return run


def test_the_tool_makes_figures_and_goes_on(tiny_vit, tmp_path, run_tool):
    vit_config(tiny_vit, tmp_path, to_rgb=True).dump(tmp_path / 'some.py')
    (tmp_path / 'images/bird').mkdir(parents=True)
    for i in range(4):
        Image.fromarray(picture(20 + i)).save(tmp_path / f'images/bird/{i}.png')
    options = ['--vits', 'Tiny=some.py', '--images', 'images', '--limit', '2', '--size', '16', '--iterations', '2',
               '--device', 'cpu', '--out', 'out/dip.png', '--blocks']
    code, printed = run_tool(*options, '1')
    assert code == 0, printed
    assert [p.name for p in sorted((tmp_path / 'out/dip/Tiny').iterdir())] == [
        'bird-0_block01.png', 'bird-2_block01.png'], 'two of four, evenly spaced'
    code, printed = run_tool(*options, '1', '4')
    assert code == 0 and '4/4  bird-2  Tiny  block 4  PSNR' in printed
    assert 'written: out/dip.png, out/dip.svg, out/dip.csv, out/dip.json, out/dip_scores.png' in printed
    numbers = json.loads((tmp_path / 'out/dip.json').read_text())
    assert numbers['command'].endswith(f'tools/deep_image_prior.py {shlex.join(options)} 1 4')
    by_place = {(row['image'], row['block']): row for row in numbers['rows']}
    assert sorted(by_place) == [(f'bird-{i}', block) for i in (0, 2) for block in (1, 4)]
    kept = np.asarray(Image.open(tmp_path / 'out/dip/Tiny/bird-2_block04.png'))
    row = by_place['bird-2', 4]
    assert (row['psnr'], row['ssim']) == scores(read_picture(tmp_path / 'images/bird/2.png', 16), kept)
    code, _ = run_tool(*options, '1', '--seed', '1')
    assert code.startswith('out/dip/Tiny/bird-0_block01.png was made with other settings: seed (0 there, 1 here)')


@pytest.mark.parametrize('options, said', [
    ([], 'Nothing was started, because this is missing'),
    (['--vits', 'mae_b', 'x/mae_b.py'], 'two ViTs are called mae_b'),
    (['--vits', 'nothing_b'], 'there is no config nothing_b'),
    (['--vits', 'a/b=mae_b'], '"a/b" cannot be the name of a ViT'),
    (['--vits', 'x=mae_b:y.pth'], 'The pretrained ViT, y.pth'),
    (['--vits', 'x=mae_b:timm://'], 'checkpoint timm://: give a path'),
    (['--images', 'nowhere'], 'nowhere is neither an image nor a folder'),
    (['--images', 'text.png'], 'text.png is not an image'),
    (['--images', 'a.png', 'b/a.png'], 'a.png and b/a.png would have the same name'),
    (['--size', '7'], '--size must be at least 8'), (['--blocks', '0'], '0 is not above 0'),
    (['--out', 'dip.jpg'], 'dip.jpg must end in')])
def test_the_tool_says_what_is_wrong(tmp_path, run_tool, options, said):
    (tmp_path / 'b').mkdir()
    for name in ('a.png', 'b/a.png'):
        Image.fromarray(picture()).save(tmp_path / name)
    (tmp_path / 'text.png').write_text('no picture')
    code, printed = run_tool('--vits', 'mae_b', '--images', 'a.png', *options)
    assert code and said in f'{code}{printed}'
    assert not (tmp_path / 'work_dirs').exists()
