"""Configurations in the layout of upstream's, written for these tests."""

BASE = """
data = dict(samples_per_gpu=4, workers_per_gpu=4,
            train=dict(type='Other', test_mode=False, box_type_3d='LiDAR'))
evaluation = dict(interval=24)
"""

TEMPLATE = """
'''A configuration in the layout of mmdet3d 1.x.'''
_base_ = ['./base.py']
reach = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
norm = dict(mean={mean}, std={std}, to_rgb={to_rgb})
names = ['car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier',
         'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone']
dim = 256
side = {side}
order = ('self_attn', 'norm', 'cross_attn', 'norm', 'ffn', 'norm')
model = dict(
    type='BEVFormer', use_grid_mask=True, video_test_mode=True,
    img_backbone=dict(type='ResNet', depth={depth}, num_stages=4, out_indices={out}, frozen_stages=1,
                      norm_cfg=dict(type='BN2d', requires_grad=False), norm_eval=True,
                      style='{style}', {extra}),
    img_neck=dict(type='FPN', in_channels={channels}, out_channels=dim, start_level=0, num_outs={levels},
                  add_extra_convs='on_output', relu_before_extra_convs=True),
    pts_bbox_head=dict(
        type='BEVFormerHead', bev_h=side, bev_w=side, num_query=900, num_classes=10, in_channels=dim,
        sync_cls_avg_factor=True, with_box_refine=True, as_two_stage=False,
        transformer=dict(
            type='PerceptionTransformer', rotate_prev_bev=True, use_shift=True, use_can_bus=True,
            embed_dims=dim,
            encoder=dict(
                type='BEVFormerEncoder', num_layers={layers}, pc_range=reach, num_points_in_pillar=4,
                return_intermediate=False,
                transformerlayers=dict(
                    type='BEVFormerLayer',
                    attn_cfgs=[
                        dict(type='TemporalSelfAttention', embed_dims=dim, num_levels=1),
                        dict(type='SpatialCrossAttention', pc_range=reach, embed_dims=dim,
                             deformable_attention=dict(type='MSDeformableAttention3D', embed_dims=dim,
                                                       num_points=8, num_levels={levels}))],
                    feedforward_channels=dim * 2, ffn_dropout=0.1, operation_order=order)),
            decoder=dict(
                type='DetectionTransformerDecoder', num_layers=6, return_intermediate=True,
                transformerlayers=dict(
                    type='DetrTransformerDecoderLayer',
                    attn_cfgs=[dict(type='MultiheadAttention', embed_dims=dim, num_heads=8, dropout=0.1),
                               dict(type='CustomMSDeformableAttention', embed_dims=dim, num_levels=1)],
                    feedforward_channels=dim * 2, ffn_dropout=0.1, operation_order=order))),
        bbox_coder=dict(type='NMSFreeCoder', post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
                        pc_range=reach, max_num=300, voxel_size=[0.2, 0.2, 8], num_classes=10),
        positional_encoding=dict(type='LearnedPositionalEncoding', num_feats=dim // 2,
                                 row_num_embed=side, col_num_embed=side),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='L1Loss', loss_weight=0.25), loss_iou=dict(type='GIoULoss', loss_weight=0.0)),
    train_cfg=dict(pts=dict(grid_size=[512, 512, 1], point_cloud_range=reach, assigner=dict(
        type='HungarianAssigner3D', cls_cost=dict(type='FocalLossCost', weight=2.0),
        reg_cost=dict(type='BBox3DL1Cost', weight=0.25), iou_cost=dict(type='IoUCost', weight=0.0),
        pc_range=reach))))
root = 'data/nuscenes/'
{scaling}
train_pipeline = [
    dict(type='LoadMultiViewImageFromFiles', to_float32=True),
    dict(type='PhotoMetricDistortionMultiViewImage'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True, with_attr_label=False),
    dict(type='ObjectRangeFilter', point_cloud_range=reach), dict(type='ObjectNameFilter', classes=names),
    dict(type='NormalizeMultiviewImage', **norm)] + scale + [
    dict(type='PadMultiViewImage', size_divisor=32),
    dict(type='DefaultFormatBundle3D', class_names=names),
    dict(type='CustomCollect3D', keys=['gt_bboxes_3d', 'gt_labels_3d', 'img'])]
test_pipeline = [
    dict(type='LoadMultiViewImageFromFiles', to_float32=True), dict(type='NormalizeMultiviewImage', **norm),
    dict(type='MultiScaleFlipAug3D', img_scale=(1600, 900), pts_scale_ratio=1, flip=False,
         transforms=scale + [
        dict(type='PadMultiViewImage', size_divisor=32),
        dict(type='DefaultFormatBundle3D', class_names=names, with_label=False),
        dict(type='CustomCollect3D', keys=['img'])])]
data = dict(
    samples_per_gpu=1,
    train=dict(type='CustomNuScenesDataset', ann_file=root + 'nuscenes_infos_temporal_train.pkl',
               classes=names,
               pipeline=train_pipeline, use_valid_flag=True, bev_size=(side, side), queue_length={queue}),
    test=dict(type='CustomNuScenesDataset', pipeline=test_pipeline, classes=names))
optimizer = dict(type='AdamW', lr=2e-4, weight_decay=0.01,
                 paramwise_cfg=dict(custom_keys={{'img_backbone': dict(lr_mult=0.1)}}))
optimizer_config = dict(grad_clip=dict(max_norm=35, norm_type=2))
lr_config = dict(policy='CosineAnnealing', warmup='linear', warmup_iters=500, warmup_ratio=1.0 / 3,
                 min_lr_ratio=1e-3)
total_epochs = 24
runner = dict(type='EpochBasedRunner', max_epochs=total_epochs)
{end}
"""

CAFFE = dict(
    mean=[103.530, 116.280, 123.675],
    std=[1.0, 1.0, 1.0],
    to_rgb=False,
    depth=101,
    style="caffe",
    end="load_from = 'ckpts/r101_dcn_fcos3d_pretrain.pth'",
)
DCN = (
    "dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False), "
    "stage_with_dcn=(False, False, True, True)"
)
SCALE = "scale = [dict(type='RandomScaleImageMultiViewImage', scales=[{}])]"
TINY = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    side=50,
    depth=50,
    out=(3,),
    style="pytorch",
    extra="",
    channels=[2048],
    levels=1,
    layers=3,
    queue=3,
    scaling=SCALE.format(0.5),
    end="",
)
VARIANTS = {
    "bevformer_tiny": TINY,
    "bevformer_small": dict(TINY, **CAFFE, side=150, extra="with_cp=True, " + DCN, scaling=SCALE.format(0.8)),
    "bevformer_base": dict(
        TINY,
        **CAFFE,
        side=200,
        extra=DCN,
        out=(1, 2, 3),
        channels=[512, 1024, 2048],
        levels=4,
        layers=6,
        queue=4,
        scaling="scale = []",
    ),
}


def write(folder, text, name="bevformer_tiny"):
    (folder / "base.py").write_text(BASE)
    path = folder / f"{name}.py"
    path.write_text(text)
    return path
