_base_ = [
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
    'td-hm_ViTPose-small_8xb64-210e_coco-256x192.py'
]

custom_imports = dict(imports=[*_base_.custom_imports.imports, 'udp_plugin'])

codec = dict(_base_.codec, type='UDPOffsetHeatmap')

model = dict(head=dict(type='UDPHeatmapHead', decoder=codec))

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
