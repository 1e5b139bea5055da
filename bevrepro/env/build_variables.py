"""Which of the user's variables a build of operators sees, and which of them make another wheel.

Whatever could change what is compiled is either in the name of the wheel that is kept (building.kept_folder)
or taken out of the build's environment: two settings never share a wheel. MAX_JOBS changes nothing but the
time; LD_LIBRARY_PATH says where the compilers find their own libraries.
"""

from collections.abc import Mapping

# The user's own say on how compilers are called. These five were in the wheel's name from the beginning.
FLAGS = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS")
# Theirs as well, and needed where headers or libraries lie in odd places: in the name where they are set.
CALLS = {
    "CPPFLAGS": "setuptools adds it to every compilation",
    "LDSHARED": "setuptools links with it",
    "LDCXXSHARED": "setuptools links C++ with it",
    "CPATH": "gcc looks there for headers",
    "C_INCLUDE_PATH": "gcc looks there for headers",
    "CPLUS_INCLUDE_PATH": "gcc looks there for headers",
    "LIBRARY_PATH": "gcc looks there for libraries",
    "LD_RUN_PATH": "the linker writes it into what it links",
    "COMPILER_PATH": "gcc looks there for the assembler and the linker",
    "GCC_EXEC_PREFIX": "gcc looks there for its own parts",
}
NVCC_CALLS = {
    "NVCC_PREPEND_FLAGS": "nvcc reads it before its arguments",
    "NVCC_APPEND_FLAGS": "nvcc reads it after its arguments",
    "NVCC_CCBIN": "nvcc compiles the host's part with it",
    "MMCV_CUDA_ARGS": "mmcv's setup.py hands it to nvcc",
}
# What the target, its lock and its toolkit decide: left out, so that a shell does not decide it again.
DECIDED = {
    "TORCH_CUDA_ARCH_LIST": "arch_list of the target",
    "FORCE_CUDA": "[build.environment] of the target",
    "FORCE_MLU": "[build.environment] of the target",
    "FORCE_MPS": "[build.environment] of the target",
    "FORCE_NPU": "[build.environment] of the target",
    "MMCV_WITH_OPS": "[build.environment] of the target",
    "MMCV_WITH_ORT": "[build.environment] of the target",
    "MMCV_WITH_TRT": "[build.environment] of the target",
    "CUDA_HOME": "the target's own toolkit",
    "CUDA_PATH": "the target's own toolkit",
    "CUDA_INC_PATH": "the target's own toolkit",
    "CUDAHOSTCXX": "the target's own toolkit",
    "PYTORCH_NVCC": "the target's own toolkit",
    "CUDNN_HOME": "nothing here needs cuDNN",
    "CUDNN_PATH": "nothing here needs cuDNN",
    "ROCM_HOME": "no target is for ROCm",
    "ROCM_PATH": "no target is for ROCm",
    "PYTORCH_ROCM_ARCH": "no target is for ROCm",
    "BUILD_SPLIT_CUDA": "how the locked torch was built says it",
    "SETUPTOOLS_USE_DISTUTILS": "the locked setuptools",
    "DIST_EXTRA_CONFIG": "the sdist's own configuration",
    "_PYTHON_HOST_PLATFORM": "the target's interpreter",
    "_PYTHON_PROJECT_BASE": "the target's interpreter",
    "_PYTHON_SYSCONFIGDATA_NAME": "the target's interpreter",
}


def cleaned(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what is decided, and without a GPU: setup.py would compile CUDA where torch sees one."""
    return {
        **{key: value for key, value in environ.items() if key not in DECIDED},
        "CUDA_VISIBLE_DEVICES": "",
    }


def in_key(environ: Mapping[str, str], cuda: bool) -> dict[str, str]:
    """What makes another wheel beside FLAGS; empty where nothing is set. `cuda`: nvcc is called."""
    return {name: environ[name] for name in (*CALLS, *(NVCC_CALLS if cuda else ())) if name in environ}


def said(environ: Mapping[str, str]) -> str | None:
    """A sentence about what is left out; None where nothing is."""
    rows = [f"{name} ({why})" for name, why in DECIDED.items() if environ.get(name)]
    return f"Not taken from your environment: {', '.join(rows)}." if rows else None
