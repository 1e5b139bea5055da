"""A large log for the speed test: made when it is needed, never stored."""

from __future__ import annotations

from pathlib import Path

OOM = "RuntimeError: CUDA out of memory. Tried to allocate 1.29 GiB (GPU 0; 23.70 GiB total capacity)"
PER_EPOCH = 3517


def train_line(step: int) -> str:
    """Return one line as mmcv's text logger writes it, for the step-th logged step."""
    epoch, iteration = divmod(step * 50, PER_EPOCH)
    seconds = step * 140
    clock = f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    losses = ", ".join(
        f"d{layer}.loss_{kind}: {(1 + layer) / (1 + step % 97):.4f}"
        for layer in range(5)
        for kind in ("cls", "bbox")
    )
    return (
        f"2023-04-{1 + step // 700 % 28:02d} {clock},{step % 1000:03d} - mmdet - INFO - "
        f"Epoch [{epoch % 24 + 1}][{iteration}/{PER_EPOCH}]\tlr: 1.998e-04, eta: 2 days, 1:12:40, "
        f"time: 2.601, data_time: 0.061, memory: 9110, {losses}, "
        f"loss: {30 / (1 + step % 89):.4f}, grad_norm: {20 + step % 31}.11"
    )


def compile_line(step: int) -> str:
    """Return one line of a ninja build, with a harmless warning now and then."""
    if step % 5 == 4:
        return f"./mmcv/ops/csrc/pytorch/nms.cpp:{step % 400}:16: warning: comparison of different signedness"
    return f"[{step % 67 + 1}/67] c++ -MMD -I/opt/conda/include/torch -c op_{step % 67}.cpp"


def write_big_log(path: Path, megabytes: float = 24.0, error: str = OOM, error_at: float = 0.99) -> Path:
    """Write about `megabytes` to `path`; `error` stands at `error_at` of it ('' for a healthy log)."""
    wanted, size, step, placed = int(megabytes * 1e6), 0, 0, not error
    with path.open("w", encoding="utf-8") as file:
        while size < wanted:
            line = compile_line(step) if step % 8 == 7 else train_line(step)
            if not placed and size >= wanted * error_at:
                placed, line = True, error
            size += file.write(line + "\n")
            step += 1
    return path
