"""What methods, ViTs and tasks are called in tables and figures."""

from .methods import METHODS
from .tasks import ADE20K, TASKS
from .vits import VITS


def title(name: str) -> str:
    """Returns the title of a method, a ViT or a task; what is none of them keeps its name."""
    for table in (METHODS, VITS, TASKS, ADE20K):
        if name in table:
            return table[name].title
    return name
