"""The figures of `python -m benchmarks.speed decode` as text."""

from statistics import median
from typing import Any

from benchmarks.speed.decode_cost import STEP

PLAIN, PLAIN_FLOAT32 = "plain decoder, bfloat16", "plain decoder, float32"


def report(figures: dict[str, Any]) -> str:
    limit, reading = (median(b[name] for b in figures["bandwidths"]) for name in ("product", "reading"))
    image, text, target = figures["sequence"]
    lines = [
        f"GPT-{figures['settings']['size']}, {image} + {text} + {target} positions, guidance 3, one image; "
        f"{figures['settings']['threads']} threads, {figures['machine']['device']}",
        f"plain bfloat16 matrix-vector product, the limit below: {limit / 1e9:.1f} GB/s; "
        f"reading: {reading / 1e9:.1f} GB/s",
        "",
        f"{'way':32}{'prefill s':>10}{'ms a token':>12}{'GB a token':>12}{'GB/s':>8}{'of limit':>10}"
        f"{'to plain':>10}{'to float32':>12}",
    ]
    plain, plain32 = (figures["ways"][name]["seconds"] for name in (PLAIN, PLAIN_FLOAT32))
    for name, way in figures["ways"].items():
        prefill = f"{way['prefill']:.1f}" if "prefill" in way else ""
        line = f"{name:32}{prefill:>10}{way['seconds'] * 1e3:12.1f}"
        if "bytes" in way:
            rate = way["bytes"] / way["seconds"]
            line += f"{way['bytes'] / 1e9:12.2f}{rate / 1e9:8.1f}{rate / limit:10.0%}"
        else:
            line += f"{'':30}"
        lines.append(f"{line}{plain / way['seconds']:10.2f}{plain32 / way['seconds']:12.2f}")
    for name, way in figures["ways"].items():
        if "parts" in way:
            lines += ["", f"{name}, {way['parts'][STEP] * 1e3:.1f} ms a token:", *_parts(way["parts"])]
    lines += ["", f"{'guided logits, from float32':32}{'typical':>10}{'largest':>10}{'same maximum':>14}"]
    for name, d in figures["deviations"].items():
        lines.append(f"{name:32}{d['typical']:10.2%}{d['largest']:10.2%}{d['same_maximum']:14.0%}")
    lines += ["", *_growth(figures["growth"], reading)]
    for row in figures["whole_images"]:
        rate = row["width"] / row["seconds"]
        lines.append(
            f"{row['width']:.0f} at a time: {row['seconds']:.2f} s, {rate:.2f} images/s, "
            f"compiled in {row['warm_up']:.0f} s"
        )
    return "\n".join(lines)


def _parts(parts: dict[str, float]) -> list[str]:
    step = parts[STEP]
    named = {name: value for name, value in parts.items() if name != STEP}
    named["rest (norms, rotations, sums)"] = step - sum(named.values())
    return [f"  {name:30}{value * 1e3:8.1f}{value / step:8.0%}" for name, value in named.items()]


def _growth(cells: list[dict[str, Any]], reading: float) -> list[str]:
    lines = [
        f"{'pixels':>6}{'images':>8}{'ms a step':>12}{'predicted':>11}{'s an image':>12}{'predicted':>11}"
        f"{'peak GB':>10}{'predicted':>11}"
    ]
    for c in cells:
        predicted = c["token_bytes"] / reading
        per_image = c["tokens"] / c["width"]
        peak = "" if c["peak"] is None else f"{(c['weights'] + c['peak']) / 1e9:.2f}"
        lines.append(
            f"{c['pixels']:6.0f}{c['width']:8.0f}{c['seconds'] * 1e3:12.1f}{predicted * 1e3:11.1f}"
            f"{c['seconds'] * per_image:12.1f}{predicted * per_image:11.1f}"
            f"{peak:>10}{(c['weights'] + c['cache']) / 1e9:11.2f}"
        )
    return [
        *lines,
        "(predicted: the time to read a step's bytes; the weights and the whole cache. "
        "Peak: the weights, and what decoding took besides, the prefill included)",
    ]
