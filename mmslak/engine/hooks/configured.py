"""Finding a hook in a config, whichever of the two places it is registered in."""

from mmengine.config import Config, ConfigDict


def configured_hooks(cfg: Config, kind: str) -> list[ConfigDict]:
    """Return the settings of all hooks of one type in a config.

    Args:
        cfg (Config): Hooks are registered by name in ``default_hooks`` or as a list in
            ``custom_hooks``.
        kind (str): Name of the class, such as ``DynamicSparsityHook``; a scope before it in the
            config (``mmslak.``) does not matter.

    Returns:
        list[ConfigDict]: The entries of the config themselves, so that they can be changed.
    """
    named = (cfg.get('default_hooks') or {}).values()
    hooks = [*named, *(cfg.get('custom_hooks') or [])]
    return [hook for hook in hooks if hook and _type_name(hook.get('type')) == kind]


def _type_name(kind: str | type | None) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).split('.')[-1]
