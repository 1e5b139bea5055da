"""BEVFormer's blocks once more, in NumPy, written from the contract: loops over points, no shared code."""

import math

import numpy as np


def linear(p, name, x):
    return x @ p[name + ".weight"].T + p[name + ".bias"]


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def layer_norm(p, name, x):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[name + ".weight"]
        + p[name + ".bias"]
    )


def bilinear(plane_hwD, u, v):
    """Value at (u, v) in [0, 1] of the plane's extent: zero outside, cell centres at +0.5."""
    h, w = plane_hwD.shape[:2]
    x, y = u * w - 0.5, v * h - 0.5
    out = np.zeros(plane_hwD.shape[2])
    for yi in (math.floor(y), math.floor(y) + 1):
        for xi in (math.floor(x), math.floor(x) + 1):
            if 0 <= xi < w and 0 <= yi < h:
                out += plane_hwD[yi, xi] * (1 - abs(x - xi)) * (1 - abs(y - yi))
    return out


def temporal_self_attention(p, query, position, history, initial, reference, shift, hw, heads, points):
    """One sample.  query, position (Q, C); history, initial (Q, C) or None; reference (Q, 2); shift (2,)."""
    h, w = hw
    Q, C = query.shape
    first, second = (query, query) if history is None else (history, initial)
    moved = reference if history is None else reference + shift
    planes = [linear(p, "value_proj", value).reshape(h, w, heads, -1) for value in (first, second)]
    both = np.concatenate([first, query + position], 1)
    offsets = linear(p, "sampling_offsets", both).reshape(Q, heads, 2, points, 2)  # (head, queue, point, xy)
    weights = linear(p, "attention_weights", both).reshape(Q, heads, 2, points)
    out = np.zeros((Q, C))
    for q in range(Q):
        for head in range(heads):
            for queue in range(2):
                soft = softmax(weights[q, head, queue])
                for k in range(points):
                    u, v = (moved if queue == 0 else reference)[q] + offsets[q, head, queue, k] / (w, h)
                    part = slice(head * C // heads, (head + 1) * C // heads)
                    out[q, part] += soft[k] * bilinear(planes[queue][:, :, head], u, v) / 2
    return linear(p, "output_proj", out) + query


def spatial_cross_attention(p, query, features, shapes, uv, seen, heads, points):
    """One sample.  features (N, S, C), levels concatenated; uv (N, Q, Z, 2); seen (N, Q, Z)."""
    Q, C = query.shape
    N, Z, L = len(features), uv.shape[2], len(shapes)
    out = np.zeros((Q, C))
    for q in range(Q):
        cameras = [n for n in range(N) if seen[n, q].any()]
        offsets = linear(p, "deformable_attention.sampling_offsets", query[q]).reshape(heads, L, points, 2)
        weights = linear(p, "deformable_attention.attention_weights", query[q]).reshape(heads, L * points)
        for n in cameras:
            value = linear(p, "deformable_attention.value_proj", features[n])
            for head in range(heads):
                soft, start = softmax(weights[head]).reshape(L, points), 0
                part = slice(head * C // heads, (head + 1) * C // heads)
                for level, (h, w) in enumerate(shapes):
                    plane = value[start : start + h * w, part].reshape(h, w, -1)
                    start += h * w
                    for k in range(points):  # point-major: height = k mod Z
                        u, v = uv[n, q, k % Z] + offsets[head, level, k] / (w, h)
                        out[q, part] += soft[level, k] * bilinear(plane, u, v)
        out[q] /= max(1, len(cameras))
    return linear(p, "output_proj", out) + query


def bev_cross_attention(p, query, position, bev, reference, hw, heads, points):
    """One sample of the decoder's.  query, position (O, C); bev (S, C); reference (O, 2)."""
    h, w = hw
    num, C = query.shape
    moved = query + position
    plane = linear(p, "value_proj", bev).reshape(h, w, heads, -1)
    offsets = linear(p, "sampling_offsets", moved).reshape(num, heads, points, 2)
    weights = linear(p, "attention_weights", moved).reshape(num, heads, points)
    out = np.zeros((num, C))
    for o in range(num):
        for head in range(heads):
            soft = softmax(weights[o, head])
            part = slice(head * C // heads, (head + 1) * C // heads)
            for k in range(points):
                u, v = reference[o] + offsets[o, head, k] / (w, h)
                out[o, part] += soft[k] * bilinear(plane[:, :, head], u, v)
    return linear(p, "output_proj", out) + query


def self_attention(p, query, position, heads):
    """Among object queries: position on query and key, not on value."""
    num, C = query.shape
    wq, wk, wv = np.split(p["attn.in_proj_weight"], 3)
    bq, bk, bv = np.split(p["attn.in_proj_bias"], 3)
    q, k, v = (query + position) @ wq.T + bq, (query + position) @ wk.T + bk, query @ wv.T + bv
    out = np.zeros((num, C))
    for head in range(heads):
        part = slice(head * C // heads, (head + 1) * C // heads)
        for o in range(num):
            out[o, part] = softmax(k[:, part] @ q[o, part] / math.sqrt(C // heads)) @ v[:, part]
    return linear(p, "attn.out_proj", out) + query


def feed_forward(p, x):
    return x + linear(p, "layers.1", np.maximum(linear(p, "layers.0.0", x), 0))


def project(lidar2img_N44, points_QZ3, image_hw):
    """(N, Q, Z, 2) and (N, Q, Z): where each pillar point falls in each camera, and whether it is seen."""
    N, (Q, Z) = len(lidar2img_N44), points_QZ3.shape[:2]
    uv, seen = np.zeros((N, Q, Z, 2)), np.zeros((N, Q, Z), bool)
    for n in range(N):
        for q in range(Q):
            for z in range(Z):
                x, y, depth, _ = lidar2img_N44[n] @ np.append(points_QZ3[q, z], 1.0)
                uv[n, q, z] = x / max(depth, 1e-5) / image_hw[1], y / max(depth, 1e-5) / image_hw[0]
                seen[n, q, z] = depth > 1e-5 and (uv[n, q, z] > 0).all() and (uv[n, q, z] < 1).all()
    return uv, seen
