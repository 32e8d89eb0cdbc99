"""Adapting a ViT to one's own images from Python."""

from pathlib import Path

from .look import Say
from .options import Names, Request
from .result import Adapted, load
from .run import carry_out, work_dir_of


def adapt(folder: str | Path | None = None, *, images: str | Path | None = None, masks: str | Path | None = None,
          classes: Names | None = None, vit: str = Request.vit, weights: str | Path | None = None,
          method: str = Request.method, head: str | None = None, iterations: int | None = None,
          work_dir: str | Path | None = None, dry_run: bool = False, say: Say = print,
          **options: object) -> Adapted | None:
    """Adapts a ViT to images of one's own, and measures it; does what ``mmseg-gpt adapt`` does.

    Called again with the same arguments it goes on where it was interrupted, or returns the finished result.

    Args:
        folder: The folder of the images and of their masks, or with a folder for each class.
        images: The folder of the images, in its place or inside it.
        masks: The folder of the masks, or a pattern of their names.
        classes: Names of the classes, or a file that says what the values or colours of the masks stand for.
        vit: The ViT, as ``mmseg-gpt configs`` lists them: 'dinov2-s', 'mae', 'dinov3-l', ...
        weights: The file of its weights, or an address; by default where they were published.
        method: How the ViT is adapted: 'lora', 'gpt', 'linear', 'full', ...
        head: The segmentation head: 'linear', 'setr_pup', ...; by default what the machine has time for.
        iterations: Steps of the training; by default what the data and the machine suggest.
        work_dir: Where all is written; by default ``work_dirs`` and the name of the folder.
        dry_run: Whether to stop when the files are understood and the config is written.
        say: Function that gets each sentence for the user.
        **options: Further :class:`Request`, by name.

    Returns:
        Adapted: The finished model, which predicts; None after a dry run.

    Raises:
        OwnDataError: something is wrong with what was asked for or found; the message says what to do.
        SystemExit: a check before the run has found something wrong, or the run was interrupted.
    """
    asked = Request.of(folder=folder, images=images, masks=masks, classes=classes, vit=vit, weights=weights,
                       method=method, head=head, iterations=iterations, work_dir=work_dir, **options)
    given = ', '.join(f'{name}={value!r}' for name, value in vars(asked).items()
                      if value != getattr(Request, name, None))
    result = carry_out(asked, say, f'mmseg_gpt.adapt({given})', dry_run)
    return load(work_dir_of(asked)) if result else None
