"""Checks of settings, which raise a ValueError naming the key, the value and what is allowed."""


def check_number(key: str, value, low: float, high: float, limit: str | None = None) -> None:
    """Check that ``value`` is a number between ``low`` and ``high``, both included.

    Args:
        key (str): Name of the setting.
        value: Its value.
        low (float): Smallest allowed value.
        high (float): Largest allowed value.
        limit (str, optional): Text for ``high`` in the message.
    """
    if not _is_number(value) or not low <= value <= high:
        raise ValueError(f'{key} must be in [{low}, {limit or high}], got {value!r}')


def check_sparsity(key: str, value) -> None:
    """Check that ``value`` is a number in [0, 1)."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f'{key} must be a number in [0, 1), got {value!r}')


def check_count(key: str, value) -> None:
    """Check that ``value`` is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'{key} must be a positive integer, got {value!r}')


def check_choice(key: str, value, allowed: tuple[str, ...]) -> None:
    """Check that ``value`` is one of the allowed ones."""
    if value not in allowed:
        raise ValueError(f'{key} must be one of {", ".join(map(repr, allowed))}, got {value!r}')


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
