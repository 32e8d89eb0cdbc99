"""Features of a frozen ViT, computed once for each image of a run."""

from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...adapters import unwrap
from ...events import report
from ...models import GatedPromptViT
from ...models.kept_features import FeatureFile, KeptFeatures, identity_of
from ..errors import RunStopped

GIGABYTES = 10  # that the file may have unless ``keep_features`` says another number
PATIENCE = 100  # images after the first epoch of which none was known, by which it is seen that none will be


@HOOKS.register_module()
class KeepFeaturesHook(Hook):
    """Keeps features of a frozen ViT in the work directory, where the config asks for it.

    It does so with ``keep_features=True``, or a number of gigabytes; see :mod:`mmseg_gpt.models.kept_features`. That
    is of use where the same images come again: in trainings without random crops, scales and colours, and in
    validations. Where the augmentation makes every image a new one, this is seen in the second epoch, and training goes
    on without it. An interrupted run finds its features again; a finished one has removed them.

    Raises:
        RunStopped: something of the ViT is trained, or there are several processes; the code is 'keep-features'.
    """

    priority = 'LOWEST'  # after the checkpoint hook has compared the ViT with its file

    def __init__(self) -> None:
        self.kept: KeptFeatures | None = None
        self.epoch = 0
        self.finished = False

    def before_run(self, runner) -> None:
        if runner.cfg.get('keep_features'):
            only_backbone(runner.model)
            if runner.world_size > 1:
                refuse('the run has several processes, and only one can keep features: start it without torchrun, or '
                       'without keep_features')

    def before_train(self, runner) -> None:
        wanted = runner.cfg.get('keep_features')
        if not wanted:
            return
        vit, limit = only_backbone(runner.model), int((GIGABYTES if wanted is True else float(wanted)) * 1e9)
        self.kept = KeptFeatures(vit, FeatureFile(Path(runner.work_dir), identity_of(vit), limit, runner.iter))
        # Both lie in the message hub, and so in every checkpoint.
        known = runner.message_hub.runtime_info.get('kept_features') or {}
        self.kept.counts.update(known.get('counts') or {})
        self.kept.in_training = known.get('in_training', True)
        self.store(runner)
        self.epoch = len(runner.train_loop.dataloader.dataset)

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        if not self.kept:
            return
        self.kept.iteration, counts = runner.iter, self.kept.counts
        # Here and not after an iteration, whose checkpoint would be written before.
        if self.kept.in_training and not counts['read'] and counts['seen'] >= self.epoch + min(self.epoch, PATIENCE):
            self.give_up(runner)

    def give_up(self, runner) -> None:
        """Goes on without kept features in training, and says why."""
        counts = self.kept.counts
        runner.logger.warning(
            f'iteration {runner.iter + 1}: features of images are not kept any more in training, because none of the '
            f'{counts["seen"]} images so far came twice: the augmentation makes each a new one. Those of validations '
            'are kept. To use them in training, leave random crops, scales and colours out of the pipeline')
        self.kept.in_training = False
        self.kept.file.remove()
        old = self.kept.file
        self.kept.file = FeatureFile(Path(runner.work_dir), identity_of(self.kept.vit), old.limit, 0)
        report('features', kept=False, **counts)
        self.store(runner)

    def store(self, runner) -> None:
        """Puts the counts where checkpoints take them from."""
        runner.message_hub.update_info('kept_features', dict(counts=self.kept.counts,
                                                             in_training=self.kept.in_training))

    def after_train(self, runner) -> None:
        if self.kept:
            counts, file = self.kept.counts, self.kept.file
            runner.logger.info(
                f'features: {counts["read"]} of {counts["seen"]} training images and {counts["val_read"]} of '
                f'{counts["val_seen"]} validation images were read and not computed; {len(file.entries)} images took '
                f'{file.end / 1e9:.2f} GB')
            report('features', kept=self.kept.in_training, gigabytes=round(file.end / 1e9, 3), **counts)
            self.finished = True

    def release(self, runner) -> None:
        """Gives the ViT its forward back, also after an error; a finished run needs no features any more."""
        if self.kept:
            self.kept.release()
            self.kept.file.remove() if self.finished else self.kept.file.close()
            self.kept = None


def only_backbone(model) -> GatedPromptViT:
    """Returns the ViT of a model, of which nothing is trained.

    Raises:
        RunStopped: there is none, or something of it is trained.
    """
    vits = [module for module in unwrap(model).modules() if isinstance(module, GatedPromptViT)]
    if len(vits) != 1:
        refuse(f'the model has {len(vits)} ViTs of the class GatedPromptViT, and it must be one')
    trained = [name for name, weight in vits[0].named_parameters() if weight.requires_grad]
    if trained:
        refuse(f'this run trains {len(trained)} tensors of the ViT ({trained[0]}{", ..." if trained[1:] else ""}), so '
               'its features change with every step. Take a method that trains the head only, or leave keep_features '
               'out')
    return vits[0]


def refuse(reason: str) -> None:
    """Raises the error that features cannot be kept."""
    raise RunStopped('keep-features', f'keep_features: {reason}')
