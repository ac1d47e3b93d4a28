_base_ = [
    'mmpose::body_2d_keypoint/topdown_heatmap/mpii/td-hm_cpm_8xb64-210e_mpii-368x368.py'
]

custom_imports = dict(imports=['udp_plugin'], allow_failed_imports=False)

codec = dict(_base_.codec, type='UDPOffsetHeatmap')

model = dict(
    backbone=dict(out_channels=48),
    head=dict(type='UDPCPMHead', in_channels=48, decoder=codec),
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
