"""Showing which runs are carried out and how far they are: bars on a terminal, lines now and then elsewhere."""

import time
from collections.abc import Hashable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from ...wording import duration
from .record import FINISHED
from .run import Runnable

SCORES = ('loss', 'mIoU', 'accuracy/top1')
EVERY = 5  # seconds between lines where there is no terminal
HEAD_START = 30  # seconds of experience that expected times count as, so that one slow start does not dominate


class Display:
    """Lines for people; on a terminal, below them, a bar for each thing that is going on."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        fixed = Column(no_wrap=True)
        self.bars = Bars(
            TextColumn('     ', table_column=fixed), BarColumn(20, table_column=fixed),
            TextColumn('{task.fields[said]} {task.description}', markup=False, table_column=fixed),
            console=self.console, transient=True, disable=not self.console.is_terminal)
        self.rows: dict[Hashable, int] = {}
        self.last = 0.

    def __enter__(self) -> 'Display':
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self.console.print(text)
        self.last = time.time()

    def add(self, key: Hashable, title: str) -> None:
        """Adds a bar, for something that has not reported anything yet; of a long title, there is room for the end."""
        room = max(10, self.console.width - 70)
        self.rows[key] = self.bars.add_task(title if len(title) <= room else f'...{title[3 - room:]}', total=None,
                                            said='starting')

    def update(self, key: Hashable, done: int | None, total: int | None, said: str) -> None:
        """Moves a bar."""
        self.bars.update(self.rows[key], completed=done, total=total, said=said)

    def remove(self, key: Hashable) -> None:
        """Removes a bar."""
        self.bars.remove_task(self.rows.pop(key))

    def say_now_and_then(self, text: str) -> None:
        """Prints a line where there are no bars, unless the last one was a moment ago."""
        if self.bars.disable and time.time() - self.last > EVERY:
            self.say(text)


class RunsDisplay(Display):
    """Shows runs that are carried out, and the time left for all.

    Args:
        runs: All of them.
        left: Those that are not done yet.
        records: Of those that have been begun before, by name.
        jobs: How many at once; where it is one, its commands are printed as well.
    """

    def __init__(self, runs: Sequence[Runnable], left: Sequence[Runnable], records: Mapping[str, dict],
                 jobs: int) -> None:
        super().__init__()
        self.number, self.left, self.jobs, self.begun = len(runs), list(left), jobs, len(runs) - len(left)
        self.spent = {run: records[run.name]['seconds'] for run in runs
                      if records.get(run.name, {}).get('status') == FINISHED}
        self.add(self, '')
        self.count()

    def begin(self, run: Runnable) -> None:
        """Shows that a run begins."""
        self.begun += 1
        if self.jobs == 1:
            self.say(f'[{self.begun}/{self.number}] {run.title}{self.time_left()}')
        self.add(run, run.title if self.jobs > 1 else '')
        self.count()

    def show(self, run: Runnable, event: Mapping) -> None:
        """Shows what a run has reported."""
        if event['event'] == 'command':
            if self.jobs == 1:
                self.say(f'    $ {event["command"]}')
            self.update(run, 0, None, 'starting')
        elif event['event'] == 'progress':
            self.update(run, event['done'], event['total'], said := in_words(event))
            if self.jobs == 1:
                self.say_now_and_then(f'      {said}')

    def leave(self, run: Runnable, why: str) -> None:
        """Shows that a run is left to another process, or done."""
        self.left.remove(run)
        self.say(f'      {why}' if self.jobs == 1 else f'{run.title}: {why}')
        self.remove(run)
        self.count()

    def end(self, run: Runnable, record: Mapping, lost: bool = False) -> None:
        """Shows what has become of a run; of one that was lost to another machine, just that."""
        if lost:
            self.leave(run, 'another machine has taken it over, as this one was cut off')
            return
        if record['status'] == FINISHED:
            self.spent[run] = record['seconds']
        numbers = ', '.join(f'{name} {value:.2f}' for name, value in record.get('numbers', {}).items())
        said, how = record.get('reason', numbers), f'{record["status"]} in {duration(record["seconds"])}'
        said = f'{said} ({how})' if said else how
        self.left.remove(run)
        if self.jobs == 1:
            self.say(f'      {said}\n')
        else:
            self.say(f'[{self.number - len(self.left)}/{self.number}] {run.title}: {said}{self.time_left()}')
        self.remove(run)
        self.count()

    def count(self) -> None:
        """Moves the bar of all runs."""
        done = self.number - len(self.left)
        self.update(self, done, self.number, f'{done}/{self.number}{self.time_left()}'.replace('   ', ' '))

    def time_left(self) -> str:
        """Says how long all that is left will take, as far as the runs so far tell; '' where they do not."""
        expected = sum(run.seconds or 1 for run in self.left)
        known = HEAD_START if any(run.seconds for run in self.left) else 0
        tried = sum(run.seconds or 1 for run in self.spent) + known
        if not tried or not expected:
            return ''
        return f'   (about {duration(expected * (sum(self.spent.values()) + known) / tried / self.jobs)} left in all)'


def in_words(event: Mapping) -> str:
    """Says how far a command is: ``train 120/300, 1 min 12 s left, loss 0.61``."""
    seconds = event.get('seconds_left')
    return ', '.join([f'{event["phase"]} {event["done"]}/{event["total"]}',
                      *([f'{duration(seconds)} left'] if seconds is not None else []),
                      *(f'{name} {event[name]:.4g}' for name in SCORES if event.get(name) is not None)])
