"""Finding hooks in a config, in ``default_hooks`` and in ``custom_hooks``."""

from mmengine.config import Config, ConfigDict


def configured_hooks(cfg: Config, kind: str) -> list[ConfigDict]:
    """Return the settings of all hooks of one type in a config.

    Args:
        cfg (Config): A config with hooks in the dict ``default_hooks`` or in the list
            ``custom_hooks``.
        kind (str): Name of the class, such as ``DynamicSparsityHook``. The scope of the type in the
            config, such as ``mmslak.``, is ignored.

    Returns:
        list[ConfigDict]: The settings in the config itself. Changing them changes the config.
    """
    named = (cfg.get('default_hooks') or {}).values()
    hooks = [*named, *(cfg.get('custom_hooks') or [])]
    return [hook for hook in hooks if hook and _type_name(hook.get('type')) == kind]


def _type_name(kind: str | type | None) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).split('.')[-1]
