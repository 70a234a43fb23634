"""Finding hooks in a config, in ``default_hooks`` and in ``custom_hooks``."""

from mmengine.config import Config, ConfigDict

#: Hooks of which a training has at most one, and which the configs of this package name.
_SINGLE = ('DynamicSparsityHook', 'EMAHook', 'FinishTrainingHook')
#: Names of the hooks that MMEngine registers if a config does not name them.
_MMENGINE = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')

#: Hooks of every training, in the order in which those of the same priority run.
_DEFAULTS = dict(
    plain_checkpoint='PlainCheckpointHook',
    exact_resume='ExactResumeHook',
    step_images='StepImagesHook',
    non_finite='NonFiniteHook',
    throughput='ThroughputHook',
    # After the line on the throughput of this iteration.
    stop_signal='StopSignalHook',
)


def configured_hooks(cfg: Config, kind: str) -> list[ConfigDict]:
    """Return the settings of all hooks of one type in a config.

    Args:
        cfg (Config): A config with hooks in the dict ``default_hooks`` or in the list
            ``custom_hooks``.
        kind (str): Name of the class, such as ``DynamicSparsityHook``. The scope of the type in the
            config, such as ``mmslak.``, is ignored.

    Returns:
        list[ConfigDict]: The settings in the config itself. Changing them changes the config. Those
        of ``custom_hooks`` come last.
    """
    named = (cfg.get('default_hooks') or {}).values()
    hooks = [*named, *(cfg.get('custom_hooks') or [])]
    return [hook for hook in hooks if hook and _type_name(hook.get('type')) == kind]


def add_default_hooks(cfg: Config) -> None:
    """Add the hooks of every training to ``default_hooks``.

    The config may set some of their arguments without their type, and None disables a hook.

    Args:
        cfg (Config): Changed in place.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    for name, kind in _DEFAULTS.items():
        if hooks.setdefault(name, ConfigDict()) is not None:
            hooks[name] = dict(dict(type=f'mmslak.{kind}'), **hooks[name])
    if hooks.get('checkpoint') and hooks.checkpoint.get('type') == 'CheckpointHook':
        hooks.checkpoint.type = 'mmslak.SafeCheckpointHook'


def remove_replaced_hooks(cfg: Config) -> None:
    """Remove hooks from ``default_hooks`` if ``custom_hooks`` has another one of their type.

    A config that inherits from one of this package may list its own ``DynamicSparsityHook``,
    ``EMAHook`` or ``FinishTrainingHook`` in ``custom_hooks``. It then replaces the inherited one.

    Args:
        cfg (Config): Changed in place.
    """
    listed = {_type_name(hook.get('type')) for hook in cfg.get('custom_hooks') or []}
    named = cfg.get('default_hooks') or {}
    for name, hook in list(named.items()):
        if hook and _type_name(hook.get('type')) in listed.intersection(_SINGLE):
            del named[name]


def remove_disabled_hooks(cfg: Config) -> None:
    """Remove the hooks in ``default_hooks`` that are None.

    MMEngine does this for its own hooks, and fails for those that this package names.

    Args:
        cfg (Config): Changed in place.
    """
    named = cfg.get('default_hooks') or {}
    for name, hook in list(named.items()):
        if hook is None and name not in _MMENGINE:
            del named[name]


def _type_name(kind: str | type | None) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).split('.')[-1]
