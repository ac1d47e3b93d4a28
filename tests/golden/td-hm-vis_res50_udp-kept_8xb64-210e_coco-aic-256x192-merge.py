_base_ = [
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
    'td-hm-vis_res50_8xb64-210e_coco-aic-256x192-merge.py'
]

custom_imports = dict(imports=['udp_plugin'], allow_failed_imports=False)

model = dict(
    type='UDPTopdownPoseEstimator',
    head=dict(pose_cfg=dict(type='UDPHeatmapHead')),
)
