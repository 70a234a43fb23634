"""Faster R-CNN + SLaK-T, 36 epochs on trainval of VOC 2007 and 2012, tested on VOC 2007."""

_base_ = 'faster_rcnn_slak_t_voc.py'

dataset_2007 = _base_.train_dataloader.dataset
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        # The meta information of the two datasets differs in this key only.
        ignore_keys=['dataset_type'],
        datasets=[
            dataset_2007,
            dict(
                dataset_2007,
                ann_file='VOC2012/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root='VOC2012/'),
            ),
        ],
    )
)
