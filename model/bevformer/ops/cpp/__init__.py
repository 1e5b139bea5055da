"""The attentions as a small library in C++, compiled on first use: `attention.cpp`."""

from ...errors import ConfigError
from ..backends import Backend


def load(device_type: str) -> Backend:
    """The backend; compiles it where no build is kept.  Raises ConfigError when it cannot run here."""
    if device_type != "cpu":
        raise ConfigError(
            "ops.attention=cpp was asked for on %s" % device_type,
            "It is written for the CPU.",
            "Use ops.attention=auto.",
        )
    from .attention import Operators
    from .library import library

    operators = Operators(library())
    return Backend("cpp", operators.deform_attn, operators.temporal_attn, operators.spatial_attn)
