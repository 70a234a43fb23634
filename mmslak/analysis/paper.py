"""The numbers of the paper, and the network that each of them belongs to."""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

#: Kernel sizes of the four stages, by that of the first stage.
KERNEL_SIZES = {
    7: (7, 7, 7, 7),
    31: (31, 29, 27, 13),
    51: (51, 49, 47, 13),
    61: (61, 59, 57, 13),
}
#: Blocks of the four stages of ConvNeXt-T and SLaK-T.
DEPTHS_T = (3, 3, 9, 3)
#: Widths of the four stages: of ConvNeXt, and of SLaK with 1.3 times the width (section 4.1).
WIDTHS = {
    'T': ((96, 192, 384, 768), (124, 249, 499, 998)),
    'S': ((96, 192, 384, 768), (124, 249, 499, 998)),
    'B': ((128, 256, 512, 1024), (166, 332, 665, 1331)),
}
#: Sparsity of SLaK (section 4.1).
SPARSITY = 0.4


# --- networks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """The config of a network: a file, and what differs from it.

    Args:
        config (str): File in ``configs/`` without its suffix, ``mmpretrain::FILE``, or empty.
        options (dict): Dotted keys and values that are merged into the config; the whole config
            if ``config`` is empty.
        packages (tuple[str]): Packages that it needs besides the three toolboxes.
    """

    config: str = ''
    options: dict = field(default_factory=dict)
    packages: tuple[str, ...] = ()


def convnext_t(mode: str, kernel: int, width_factor: float = 1.0) -> Network:
    """Return ConvNeXt-T with larger kernels, as in tables 1, 2 and 8.

    Args:
        mode (str): Mode of the blocks, see :class:`mmslak.models.SLaK`.
        kernel (int): Kernel size of the first stage, a key of :data:`KERNEL_SIZES`.
        width_factor (float): Width relative to that of ConvNeXt-T.
    """
    options = {
        'model.backbone.mode': mode,
        'model.backbone.kernel_sizes': KERNEL_SIZES[kernel],
        'model.backbone.width_factor': width_factor,
        'model.head.in_channels': int(768 * width_factor),
    }
    return Network('slak_t_120e_in1k', options)


def pvt(depths: tuple[int, ...]) -> Network:
    """Return PVT as a classifier; MMDetection has it as a backbone only."""
    model = dict(
        type='ImageClassifier',
        backbone=dict(
            type='mmdet.PyramidVisionTransformer',
            num_layers=depths,
            pretrain_img_size=224,
            out_indices=(3,),
        ),
        neck=dict(type='mmslak.PoolLastFeatureMap'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=512),
    )
    return Network(options=dict(model=model))


def timm(name: str) -> Network:
    """Return a classifier of timm, built through MMPretrain's wrapper."""
    model = dict(type='TimmClassifier', model_name=name)
    return Network(options=dict(model=model), packages=('timm',))


def mmpretrain(path: str) -> Network:
    """Return one of MMPretrain's own configs."""
    return Network(f'mmpretrain::{path}.py')


REPLKNET_ADE20K = Network(
    'upernet_slak_t_80k_ade20k',
    {
        'model.backbone.mode': 'reparam',
        'model.backbone.kernel_sizes': KERNEL_SIZES[31],
        'model.backbone.width_factor': 1.0,
        'model.decode_head.in_channels': [96, 192, 384, 768],
        'model.auxiliary_head.in_channels': 384,
    },
)
SLAK_T, SLAK_S, SLAK_B = (Network(f'slak_{size}_in1k') for size in 'tsb')
SLAK_B_384 = Network('slak_b_384_in1k')
SLAK_T_120_EPOCHS = Network('slak_t_120e_in1k')
#: Configs that train the network of another one on other data.
SAME_NETWORK = {'faster_rcnn_slak_t_voc0712': 'faster_rcnn_slak_t_voc'}


# --- tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A row of a table, or one group of columns of a row.

    Args:
        label (str): Its name in the paper.
        params (float, optional): Parameters in millions; None if the paper has no number.
        gmacs (float, optional): Multiply-adds in G, which the paper calls FLOPs.
        network (Network, optional): None if no library has it.
        sparsity (float): Sparsity of the backbone; 0 for a dense network.
        size (int, optional): Side of the image in pixels. Default: that of the task.
        classifier (Network, optional): The classifier whose SNIP allocation the backbone of a
            segmentor or detector inherits. Default: the network itself.
    """

    label: str
    params: float | None
    gmacs: float | None
    network: Network | None
    sparsity: float = 0.0
    size: int | None = None
    classifier: Network | None = None


class Table(NamedTuple):
    """A table of the paper."""

    title: str
    rows: list[Row]


def _sparse(label, params, gmacs, network, sparsity=SPARSITY, size=None, classifier=None) -> Row:
    return Row(label, params, gmacs, network, sparsity, size, classifier)


_UPERNET_T, _UPERNET_S, _UPERNET_B = (
    Network(f'baselines/upernet_convnext_{size}_ade20k') for size in 'tsb'
)

#: Number of a table in the paper -> its rows with parameters and multiply-adds.
TABLES = {
    1: Table(
        'ConvNeXt-T with larger kernels, 224 x 224',
        [
            Row('naive 7-7-7-7', 29, 4.5, Network('baselines/convnext_t_in1k')),
            Row('naive 31-29-27-13', 32, 6.5, Network('baselines/convnext_t_naive_120e_in1k')),
            Row('naive 51-49-47-13', 38, 9.4, convnext_t('naive', 51)),
            Row('naive 61-59-57-13', 43, 11.6, convnext_t('naive', 61)),
            Row(
                'RepLKNet 31-29-27-13', 32, 6.1, Network('baselines/convnext_t_replknet_120e_in1k')
            ),
            Row('RepLKNet 51-49-47-13', 38, 9.3, convnext_t('reparam', 51)),
            Row('RepLKNet 61-59-57-13', 43, 11.5, convnext_t('reparam', 61)),
        ],
    ),
    2: Table(
        "ConvNeXt-T by the steps of the paper's recipe, 224 x 224",
        [
            # Its accuracy is that of table 1: the paper decomposed the larger kernels only.
            Row('decomposed 7-7-7-7', 29, 4.5, convnext_t('naive', 7)),
            Row('decomposed 31-29-27-13', 30, 5.0, convnext_t('decomposed', 31)),
            Row('decomposed 51-49-47-13', 31, 5.4, convnext_t('decomposed', 51)),
            Row('decomposed 61-59-57-13', 31, 5.6, convnext_t('decomposed', 61)),
            _sparse('sparse groups 7-7-7-7', 17, 2.6, convnext_t('naive', 7)),
            _sparse('sparse groups 31-29-27-13', 18, 2.9, convnext_t('decomposed', 31)),
            _sparse('sparse groups 51-49-47-13', 18, 3.1, convnext_t('decomposed', 51)),
            _sparse('sparse groups 61-59-57-13', 19, 3.2, convnext_t('decomposed', 61)),
            _sparse('sparse groups, wide 7-7-7-7', 29, 4.5, convnext_t('naive', 7, 1.3)),
            _sparse('sparse groups, wide 31-29-27-13', 30, 4.8, convnext_t('decomposed', 31, 1.3)),
            _sparse('sparse groups, wide 51-49-47-13', 30, 5.0, SLAK_T_120_EPOCHS),
            _sparse('sparse groups, wide 61-59-57-13', 31, 5.2, convnext_t('decomposed', 61, 1.3)),
        ],
    ),
    3: Table(
        'ImageNet-1K classification',
        [
            Row('ResNet-50', 26, 4.1, mmpretrain('_base_/models/resnet50')),
            Row('ResNeXt-50-32x4d', 25, 4.3, mmpretrain('_base_/models/resnext50_32x4d')),
            Row('ResMLP-24', 30, 6.0, timm('resmlp_24_224')),
            Row('DeiT-S', 22, 4.6, mmpretrain('deit/deit-small_4xb256_in1k')),
            Row('Swin-T', 28, 4.5, Network('baselines/swin_t_in1k')),
            Row('TNT-S', 24, 5.2, mmpretrain('_base_/models/tnt_s_patch16_224')),
            Row('T2T-ViT_t-14', 22, 6.1, mmpretrain('_base_/models/t2t-vit-t-14')),
            Row('ConvNeXt-T', 29, 4.5, Network('baselines/convnext_t_in1k')),
            _sparse('SLaK-T', 30, 5.0, SLAK_T),
            Row('Mixer-B/16', 59, 11.6, mmpretrain('_base_/models/mlp_mixer_base_patch16')),
            Row('ResNet-101', 45, 7.9, mmpretrain('_base_/models/resnet101')),
            Row('ResNeXt101-32x4d', 44, 8.0, mmpretrain('_base_/models/resnext101_32x4d')),
            Row('PVT-Large', 61, 9.8, pvt((3, 8, 27, 3))),
            Row('T2T-ViT_t-19', 39, 9.8, mmpretrain('_base_/models/t2t-vit-t-19')),
            Row('Swin-S', 50, 8.7, Network('baselines/swin_s_in1k')),
            Row('ConvNeXt-S', 50, 8.7, Network('baselines/convnext_s_in1k')),
            _sparse('SLaK-S', 55, 9.8, SLAK_S),
            Row('DeiT-Base/16', 87, 17.6, mmpretrain('deit/deit-base_16xb64_in1k')),
            Row('RepLKNet-31B', 79, 15.3, mmpretrain('_base_/models/replknet-31B_in1k')),
            Row('Swin-B', 88, 15.4, Network('baselines/swin_b_in1k')),
            Row('ConvNeXt-B', 89, 15.4, Network('baselines/convnext_b_in1k')),
            _sparse('SLaK-B', 95, 17.1, SLAK_B),
            Row(
                'ViT-Base/16, 384 x 384',
                87,
                55.4,
                mmpretrain('vision_transformer/vit-base-p16_64xb64_in1k-384px'),
                size=384,
            ),
            Row(
                'DeiT-B/16, 384 x 384',
                86,
                55.4,
                mmpretrain('deit/deit-base_16xb32_in1k-384px'),
                size=384,
            ),
            Row(
                'Swin-B, 384 x 384',
                88,
                47.1,
                mmpretrain('_base_/models/swin_transformer/base_384'),
                size=384,
            ),
            Row(
                'RepLKNet-31B, 384 x 384',
                79,
                45.1,
                mmpretrain('_base_/models/replknet-31B_in1k'),
                size=384,
            ),
            Row('ConvNeXt-B, 384 x 384', 89, 45.0, Network('baselines/convnext_b_in1k'), size=384),
            _sparse('SLaK-B, 384 x 384', 95, 50.3, SLAK_B_384, size=384, classifier=SLAK_B),
        ],
    ),
    4: Table(
        'Semantic segmentation on ADE20K, UperNet, 2048 x 512',
        [
            Row('120 epochs: ConvNeXt-T', 60, 939, _UPERNET_T),
            Row('120 epochs: ConvNeXt-S', 82, 1027, _UPERNET_S),
            Row('120 epochs: ConvNeXt-T (RepLKNet)', 64, 973, REPLKNET_ADE20K),
            _sparse(
                '120 epochs: SLaK-T',
                65,
                936,
                Network('upernet_slak_t_80k_ade20k'),
                classifier=SLAK_T,
            ),
            Row('300 epochs: ConvNeXt-T', 60, 939, _UPERNET_T),
            _sparse(
                '300 epochs: SLaK-T', 65, 936, Network('upernet_slak_t_ade20k'), classifier=SLAK_T
            ),
            Row('300 epochs: ConvNeXt-S', 82, 1027, _UPERNET_S),
            _sparse(
                '300 epochs: SLaK-S', 91, 1028, Network('upernet_slak_s_ade20k'), classifier=SLAK_S
            ),
            Row('300 epochs: ConvNeXt-B', 122, 1170, _UPERNET_B),
            _sparse(
                '300 epochs: SLaK-B', 135, 1172, Network('upernet_slak_b_ade20k'), classifier=SLAK_B
            ),
        ],
    ),
    5: Table(
        'Object detection on PASCAL VOC 2007, Faster R-CNN, 1280 x 800',
        [
            Row('ResNet-50', None, None, Network('baselines/faster_rcnn_resnet50_voc')),
            Row('ResNet-101', None, None, Network('baselines/faster_rcnn_resnet101_voc')),
            Row('ConvNeXt-T', 45, 208, Network('baselines/faster_rcnn_convnext_t_voc')),
            Row(
                'ConvNeXt-T (RepLKNet)',
                55,
                207,
                Network('baselines/faster_rcnn_convnext_t_replknet_voc'),
            ),
            _sparse('SLaK-T', 49, 205, Network('faster_rcnn_slak_t_voc'), classifier=SLAK_T),
        ],
    ),
    7: Table(
        'Comparison with CSWin Transformer, ImageNet-1K',
        [
            Row('CSWin-T', 23, 4.3, None),
            Row('CSWin-S', 35, 6.9, None),
            Row('CSWin-B', 78, 15.0, None),
            Row('CSWin-B, 384 x 384', 78, 47.0, None),
            _sparse('SLaK-T', 30, 5.0, SLAK_T),
            _sparse('SLaK-S', 55, 9.8, SLAK_S),
            _sparse('SLaK-B', 95, 17.1, SLAK_B),
            _sparse('SLaK-B, 384 x 384', 95, 50.3, SLAK_B_384, size=384, classifier=SLAK_B),
        ],
    ),
    8: Table(
        'Sparsity and width, SLaK-T, 224 x 224',
        [
            _sparse('0.20, 1.1x', 29, 5.0, convnext_t('decomposed', 51, 1.1), 0.20),
            _sparse('0.40, 1.3x', 30, 5.0, SLAK_T_120_EPOCHS, 0.40),
            _sparse('0.55, 1.5x', 30, 4.9, convnext_t('decomposed', 51, 1.5), 0.55),
            _sparse('0.70, 1.9x', 32, 5.0, convnext_t('decomposed', 51, 1.9), 0.70),
            _sparse('0.82, 2.5x', 32, 5.1, convnext_t('decomposed', 51, 2.5), 0.82),
        ],
    ),
}


def row_of(table: int, label: str) -> Row:
    """Return the row of a table with the given label."""
    return next(row for row in TABLES[table].rows if row.label == label)


def row_of_config(config: str) -> tuple[int, Row] | None:
    """Find the row of the paper that a config of this package reproduces.

    Args:
        config (str): Name of the config, such as ``upernet_slak_t_ade20k``.

    Returns:
        tuple[int, Row] or None: Number of the table, and the first row there whose network is
        this config without other options. None if the paper has no such row.
    """
    config = SAME_NETWORK.get(config, config)
    for number, table in TABLES.items():
        for row in table.rows:
            network = row.network
            if network is None or network.options or '::' in network.config:
                continue
            if PurePath(network.config).name == config:
                return number, row
    return None
