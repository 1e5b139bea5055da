"""BEVFormer: bird's-eye-view detection from six cameras (Li et al., ECCV 2022), in plain PyTorch.

Python 3.8 syntax, torch >= 1.10.  Never imports bevrepro.
"""

__version__ = "0.1.0"
