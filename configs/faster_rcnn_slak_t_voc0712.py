"""Faster R-CNN + SLaK-T, 36 epochs on the trainval sets of VOC 2007 and 2012; tested on 2007's."""

_base_ = 'faster_rcnn_slak_t_voc.py'

dataset_2007 = _base_.train_dataloader.dataset
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        # The two differ in what the toolbox notes of a data set beside its classes.
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
