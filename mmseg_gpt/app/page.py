"""The page: what of it is shown where, and what happens when something is clicked. All answers are the desk's."""

from collections.abc import Callable
from functools import wraps
from html import escape

import gradio as gr

from ..datasets import SampleError
from ..datasets.left_out import READ, UNREAD
from ..wording import listed
from .desk import Desk
from .photograph import Photograph, Segmented

QUERIES = {'the place clicked': 'patch', 'CLS': 'cls', 'a prompt': 'prompt'}
LEAVE_AFTER = 3600  # seconds after which a photograph that nobody asks about is removed
CSS = '''
#classes label span { padding-left: .5em; border-left: 1.4em solid transparent; }
'''
HOW = ('Drop a photograph. Then click a place of it: the probabilities there are shown, and what the patch at that '
       'place attends to in each block of the ViT. Colours of attention are scaled for each block; the most is said as '
       'multiples of what each token would get if all got the same, with the share that goes to prompts.')


def build_page(desk: Desk) -> gr.Blocks:
    """Returns the page for a desk."""
    tasks = list(desk.pool.tasks)
    with gr.Blocks(title='mmseg_gpt', analytics_enabled=False, delete_cache=(600, LEAVE_AFTER)) as page:
        photograph = gr.State(None, time_to_live=LEAVE_AFTER, delete_callback=desk.clear)
        place = gr.State(None)
        gr.Markdown(f'## mmseg_gpt: {escape(listed(tasks, 20))}\n{HOW}')
        with gr.Row():
            with gr.Column(scale=3):
                file = gr.File(label=f'Photograph, up to {desk.limits.megabytes:g} MiB',
                               file_types=sorted(READ | UNREAD), height=110, elem_id='upload')
                task = gr.Radio(tasks, value=tasks[0], label='Task', elem_id='task', visible=len(tasks) > 1)
                shown = gr.Image(interactive=False, format='jpeg', show_label=False, buttons=['fullscreen'],
                                 elem_id='overlay')
                opacity = gr.Slider(0, 1, 0.5, label='Opacity of the masks', elem_id='opacity')
                with gr.Row():
                    mask = gr.DownloadButton('Label map', interactive=False, elem_id='mask')
                    drawn = gr.DownloadButton('Overlay', interactive=False, elem_id='drawn')
            with gr.Column(scale=2):
                colours = gr.HTML(padding=False)
                classes = gr.CheckboxGroup(label='Classes, and their share of the pixels', elem_id='classes')
                probable = gr.Label(label='Probabilities', show_label=True, elem_id='probabilities')
        with gr.Row():
            query = gr.Radio(list(QUERIES), value=next(iter(QUERIES)), label='What attends', elem_id='query')
            prompt = gr.Number(1, label='Number of the prompt', precision=0, minimum=1, elem_id='prompt')
        attention = gr.Gallery(label='Attention in each block', show_label=False, columns=6, object_fit='contain',
                               elem_id='attention', height='auto', buttons=['fullscreen'])
        act = Acts(desk)
        hidden = dict(api_visibility='private')
        result = [colours, classes, shown, mask, probable]
        looked = [photograph, place, task, query, prompt]
        gr.on([file.upload, file.clear], act.lay, [file, task, photograph], [photograph, place], **hidden).then(
            act.show, [photograph, task, opacity], result, **hidden).then(
            act.look, looked, [probable, attention], **hidden).then(
            act.draw, [photograph, task, classes, opacity], drawn, **hidden)
        task.change(act.show, [photograph, task, opacity], result, **hidden).then(
            act.look, looked, [probable, attention], **hidden).then(
            act.draw, [photograph, task, classes, opacity], drawn, **hidden)
        for change in (classes.input, opacity.release):
            change(act.masks, [photograph, task, classes, opacity], shown, **hidden).then(
                act.draw, [photograph, task, classes, opacity], drawn, **hidden)
        shown.select(act.click, photograph, place, **hidden).then(
            act.look, looked, [probable, attention], **hidden)
        gr.on([query.input, prompt.change], act.look, looked, [probable, attention], **hidden)
    return page.queue(max_size=32, default_concurrency_limit=1)


def in_words(act: Callable) -> Callable:
    """Lets what is expected to go wrong be said on the page."""
    @wraps(act)
    def done(*arguments: object) -> object:
        try:
            return act(*arguments)
        except (ValueError, SampleError) as error:
            raise gr.Error(str(error), print_exception=False) from error
    return done


class Acts:
    """What happens when something on the page is changed.

    Args:
        desk: What answers.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        for name in ('lay', 'show', 'look', 'masks', 'draw', 'click'):
            setattr(self, name, in_words(getattr(self, name)))

    def lay(self, file: str | None, task: str, before: Photograph | None) -> tuple:
        """Lays another photograph on the desk, or none."""
        self.desk.clear(before)
        return self.desk.lay(file) if file else None, None

    def show(self, photograph: Photograph | None, task: str, opacity: float) -> tuple:
        """Shows what a task says: colours, classes, picture, file, probabilities."""
        if photograph is None:
            return '', gr.update(choices=[], value=[]), None, gr.update(value=None, interactive=False), None
        found = photograph.segmented.get(task)
        if found is None:
            return ('', gr.update(choices=[], value=[]), photograph.picture, gr.update(value=None, interactive=False),
                    self.desk.probabilities(photograph, task, (0, 0)))
        choices = [(f'{name}  {share:.1%}', name) for name, share in found.shares.items()]
        names = list(found.shares)
        return (legend(found), gr.update(choices=choices, value=names),
                self.desk.masks(photograph, task, names, opacity),
                gr.update(value=str(found.label_map), interactive=True), None)

    def masks(self, photograph: Photograph | None, task: str, classes: list[str], opacity: float) -> object:
        """Shows the masks of some classes."""
        if photograph is None or task not in photograph.segmented:
            return gr.skip()
        return self.desk.masks(photograph, task, classes, opacity)

    def draw(self, photograph: Photograph | None, task: str, classes: list[str], opacity: float) -> dict:
        """Writes what is shown as a file to fetch."""
        if photograph is None or task not in photograph.segmented:
            return gr.update(value=None, interactive=False)
        return gr.update(value=str(self.desk.write_overlay(photograph, task, classes, opacity)), interactive=True)

    def click(self, photograph: Photograph | None, event: gr.SelectData) -> tuple[int, int] | None:
        """Notes the place that was clicked."""
        return photograph and photograph.pixel(*event.index)

    def look(self, photograph: Photograph | None, place: tuple[int, int] | None, task: str, query: str,
             prompt: float | None) -> tuple:
        """Shows probabilities and attention at the place; without one, attention of CLS only."""
        if photograph is None:
            return None, []
        asked = QUERIES[query]
        asked = f'prompt:{int(prompt or 1)}' if asked == 'prompt' else 'cls' if place is None else asked
        probable = self.desk.probabilities(photograph, task, place or (0, 0)) if (
            place or task in photograph.classified) else None
        return probable, self.desk.attention(photograph, task, place, asked)


def legend(found: Segmented) -> str:
    """Returns the style that gives the switch of each class its colour."""
    rules = []
    for i, name in enumerate(found.shares, 1):
        red, green, blue = map(int, found.palette[found.names.index(name)])
        rules.append(f'#classes label:nth-of-type({i}) span {{ border-left-color: rgb({red}, {green}, {blue}) '
                     '!important }')
    return f'<style>{" ".join(rules)}</style>'
