"""The weights that the authors of SLaK published, and where.

The links and scores are those of https://github.com/VITA-Group/SLaK.
"""

from dataclasses import dataclass

_DRIVE = 'https://drive.google.com/file/d/{}/view'
_SURFDRIVE = 'https://surfdrive.surf.nl/files/index.php/s/{}'


@dataclass(frozen=True)
class PublishedWeights:
    """One file of the authors.

    Attributes:
        model (str): What the weights are of.
        score (str): Score that the authors report.
        page (str): Page of the file, for a browser.
    """

    model: str
    score: str
    page: str

    @property
    def url(self) -> str:
        """Address for a download. gdown finds the file from the page of Google Drive."""
        return f'{self.page}/download' if 'surfdrive' in self.page else self.page


def _drive(file_id: str) -> str:
    return _DRIVE.format(file_id)


def _surfdrive(share: str) -> str:
    return _SURFDRIVE.format(share)


#: Name -> weights.
PUBLISHED = {
    'slak_tiny_300e_in1k': PublishedWeights(
        'SLaK-T, 300 epochs', '82.5 top-1', _drive('1Iut2f5FMS_77jGPYoUJDQzDIXOsax1u4')
    ),
    'slak_small_300e_in1k': PublishedWeights(
        'SLaK-S, 300 epochs', '83.8 top-1', _drive('1etM6KQbnlsgDAZ37adsQJ3UI8Bbv2AVe')
    ),
    'slak_base_300e_in1k': PublishedWeights(
        'SLaK-B, 300 epochs', '84.0 top-1', _drive('1duUxUD3RSblQ6eDHd0n-u0aulwGypf1j')
    ),
    'slak_tiny_120e_in1k': PublishedWeights(
        'SLaK-T, 120 epochs', '81.6 top-1', _surfdrive('WiQYWNclJ9bW5XV')
    ),
    'slak_tiny_k31_120e_in1k': PublishedWeights(
        'SLaK-T with kernels up to 31, 120 epochs', '81.5 top-1', _surfdrive('VXzBxFXQdlAQ7h8')
    ),
    'slak_tiny_k61_120e_in1k': PublishedWeights(
        'SLaK-T with kernels up to 61, 120 epochs', '81.5 top-1', _surfdrive('VpR1te71NmVImJb')
    ),
    'convnext_tiny_distilled_in1k': PublishedWeights(
        'ConvNeXt-T distilled from SLaK-T', '83.1 top-1', _surfdrive('cR6KLvxjlUshUQA')
    ),
    'convnext_small_distilled_in1k': PublishedWeights(
        'ConvNeXt-S distilled from SLaK-S', '84.3 top-1', _surfdrive('PYqL3rVff3Nu2sP')
    ),
    'upernet_slak_tiny_160k_ade20k': PublishedWeights(
        'UperNet with SLaK-T', '47.6 mIoU', _surfdrive('cc6Pqb7IZaecWMv')
    ),
    'upernet_slak_small_160k_ade20k': PublishedWeights(
        'UperNet with SLaK-S', '49.4 mIoU', _surfdrive('HMLBXtKUDY6wyFF')
    ),
    'upernet_slak_base_160k_ade20k': PublishedWeights(
        'UperNet with SLaK-B', '50.0 mIoU', _surfdrive('JDZ6dMBMZDxUHQG')
    ),
    'cascade_mask_rcnn_slak_tiny_1x_coco': PublishedWeights(
        'Cascade Mask R-CNN with SLaK-T', '48.4 box AP, 41.8 mask AP', _surfdrive('2IvPyGgSTT2RvPu')
    ),
}
