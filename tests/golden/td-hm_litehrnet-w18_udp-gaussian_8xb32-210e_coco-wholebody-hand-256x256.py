_base_ = [
    'mmpose::hand_2d_keypoint/topdown_heatmap/coco_wholebody_hand/'
    'td-hm_litehrnet-w18_8xb32-210e_coco-wholebody-hand-256x256.py'
]

custom_imports = dict(imports=['udp_plugin'], allow_failed_imports=False)

codec = dict(_base_.codec, type='UDPGaussianHeatmap')

model = dict(
    head=dict(type='UDPHeatmapHead', decoder=codec),
    test_cfg=dict(shift_heatmap=False),
)

# The base's pipelines with UDP's warp and target.
train_pipeline = [
    *_base_.train_pipeline[:-3],
    dict(type='TopDownAffineUDP', input_size=codec['input_size']),
    dict(type='OffsetTargetGenerator', encoder=codec),
    dict(type='PackPoseInputs'),
]
val_pipeline = [
    *_base_.val_pipeline[:-2],
    dict(type='TopDownAffineUDP', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=val_pipeline))
