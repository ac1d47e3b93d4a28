_base_ = [
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
    'td-hm_mspn50_8xb32-210e_coco-256x192.py'
]

custom_imports = dict(imports=['udp_plugin'], allow_failed_imports=False)

codec = [dict(each, type='UDPOffsetHeatmap') for each in _base_.codec]

model = dict(head=dict(type='UDPMSPNHead', decoder=codec[-1]))

# The base's pipelines with UDP's warp and target.
train_pipeline = [
    *_base_.train_pipeline[:-3],
    dict(type='TopDownAffineUDP', input_size=codec[0]['input_size']),
    dict(type='OffsetTargetGenerator', multilevel=True, encoder=codec),
    dict(type='PackPoseInputs'),
]
val_pipeline = [
    *_base_.val_pipeline[:-2],
    dict(type='TopDownAffineUDP', input_size=codec[0]['input_size']),
    dict(type='PackPoseInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=val_pipeline))
