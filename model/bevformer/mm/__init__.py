"""The only room that touches OpenMMLab 1.x (mmcv, mmdet, mmdet3d).  Importing it imports none of them.

`import bevformer.mm.register` registers the bundled parts under upstream's names.
"""

from .operators import import_openmmlab, modulated_deform_conv2d, ms_deform_attn, nms

__all__ = ["import_openmmlab", "modulated_deform_conv2d", "ms_deform_attn", "nms"]
