"""Learning-rate groups of the ConvNeXt family, which SLaK shares."""

DECAY_TYPES = ('layer_wise', 'stage_wise')


def last_stage_group(blocks: int) -> int:
    """Return the layer-wise group of stage 4 if stage 3 has this number of blocks.

    It is 6 for 9 blocks (tiny) and 12 for 27 blocks (small and base): one group for every three
    blocks, after the groups of the stem, stage 1 and stage 2.
    """
    return 4 + (blocks - 1) // 3


def layer_depth(
    param_name: str, prefix: str, deepest: int, decay_type: str = 'layer_wise'
) -> tuple[int, int]:
    """Return the learning-rate group of a parameter, and the number of groups.

    MMPretrain calls them the layer depth and the number of layers. The learning rate of a group is
    ``lr * decay_rate ** (num_groups - 1 - group)``.

    =====================================  ============  ============
    parameter                              layer-wise    stage-wise
    =====================================  ============  ============
    stem (``downsample_layers.0``)         0             0
    stage 1                                1             1
    downsampling 2                         2             0
    stage 2                                2             2
    downsampling 3                         3             0
    stage 3, block j (counted from 0)      3 + j // 3    3
    downsampling 4                         ``deepest``   0
    stage 4                                ``deepest``   4
    everything else (norms of the          deepest + 1   deepest + 1
    outputs, neck, heads)
    =====================================  ============  ============

    Source: the fine-tuning recipe of ConvNeXt; ``get_layer_depth`` of MMPretrain's backbones.

    Args:
        param_name (str): Name of the parameter in the whole model.
        prefix (str): Prefix of the names of the backbone, such as ``backbone.``.
        deepest (int): Layer-wise group of stage 4, from :func:`last_stage_group`. There are
            ``deepest + 2`` groups with either decay type.
        decay_type (str): ``layer_wise`` or ``stage_wise``.

    Returns:
        tuple[int, int]: The group, counted from 0, and the number of groups.

    Raises:
        ValueError: If ``decay_type`` is unknown.
    """
    if decay_type not in DECAY_TYPES:
        allowed = ', '.join(map(repr, DECAY_TYPES))
        raise ValueError(f'decay_type must be one of {allowed}, got {decay_type!r}')
    num_groups = deepest + 2
    if not param_name.startswith(prefix):
        return num_groups - 1, num_groups
    parts = param_name[len(prefix) :].split('.')
    if parts[0] == 'downsample_layers':
        group = (0, 2, 3, deepest)[int(parts[1])] if decay_type == 'layer_wise' else 0
    elif parts[0] == 'stages':
        stage, block = int(parts[1]), int(parts[2])
        if decay_type == 'layer_wise':
            group = (1, 2, 3 + block // 3, deepest)[stage]
        else:
            group = stage + 1
    else:
        group = num_groups - 1
    return group, num_groups
