_base_ = [
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
    'cspnext-m_udp_8xb256-210e_aic-coco-256x192.py'
]

custom_imports = dict(imports=['udp_plugin'], allow_failed_imports=False)

codec = dict(_base_.codec, type='UDPGaussianHeatmap')

model = dict(head=dict(type='UDPHeatmapHead', decoder=codec))

# The base's pipelines with UDP's warp and target.
train_pipeline = [
    *_base_.train_pipeline[:-5],
    dict(type='TopDownAffineUDP', input_size=codec['input_size']),
    *_base_.train_pipeline[-4:-2],
    dict(type='OffsetTargetGenerator', encoder=codec),
    dict(type='PackPoseInputs'),
]
val_pipeline = [
    *_base_.val_pipeline[:-2],
    dict(type='TopDownAffineUDP', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
train_pipeline_stage2 = [
    *_base_.train_pipeline_stage2[:-5],
    dict(type='TopDownAffineUDP', input_size=codec['input_size']),
    *_base_.train_pipeline_stage2[-4:-2],
    dict(type='OffsetTargetGenerator', encoder=codec),
    dict(type='PackPoseInputs'),
]

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], switch_pipeline=train_pipeline_stage2),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=val_pipeline))
