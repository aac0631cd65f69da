"""--dry-run: what a run would load, what of it is here, what would be fetched, and what a row takes.

Nothing is loaded or fetched. Sizes and licences are what is on record of the published files. How often networks run
follows from the settings. Seconds and memory are those of finished runs of the same name under --out, on the device
that those had; without one, what arithmetic says that they cannot be below.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from baselines.method import MethodContext, Requirements
from benchmarks.runs.arguments import BenchmarkArguments
from benchmarks.runs.generate import ChosenMethod, requirements_of
from benchmarks.runs.schema import RunError, read_manifest
from editar.io.assets import AssetFile

STATES = {"fetched": "to fetch", "made": "to make", "given": "MISSING"}
GB, MB, KB = 10**9, 10**6, 10**3
# Stable Diffusion 1.x' UNet: floating-point operations of a pass, 512 x 512 pixels and 77 tokens, as torch counts them
# (with the gradient for what goes in twice as many), and parameters. SDXL's, which SEED-X-Edit runs, has more of both.
UNET_FLOPS, UNET_PARAMETERS = 803e9, 859_520_964
PASS_FLOPS = {"UNet": UNET_FLOPS, "UNet with gradient": 2 * UNET_FLOPS}
HOUR, MINUTE = 3600, 60


def show_plan(
    args: BenchmarkArguments,
    methods: Sequence[ChosenMethod],
    context: MethodContext,
    shared: Sequence[AssetFile],
    suite: str,
    benchmark: str,
    records: int | None,
    images_per_record: int = 1,
) -> None:
    """Prints the plan. shared: files of data set and scoring networks. records: of the suite's data set."""
    images = None if records is None else min(records, args.limit or records) * images_per_record
    print(f"Dry run of {benchmark}, suite {suite}: nothing is loaded or fetched.")
    seen: dict[str, str] = {}
    files = list(shared)
    device = context.device
    speed = _matrix_product_speed(device) if suite == "paper" else None
    _show_group("data and scoring networks", shared, seen)
    table = [("method", "weights", "passes of one image", "seconds an image", f"all {images or '?'} images", "memory")]
    for method in methods:
        reason = method.lacks(context)
        try:
            requirements = requirements_of(method.build(context))
        except ValueError as error:  # it has no networks for the suite
            print(f"\n{method.name}: {'an error' if method.by_name else 'left out'}, {error}")
            continue
        _show_group(method.name, requirements.files, seen, requirements.note)
        if requirements.phases:
            phases = (f"{phase} {size_text(size)}" for phase, size in requirements.phases.items())
            print(f"  weights in memory, by phase: {', '.join(phases)}")
        if reason:
            print(f"  {'an error' if method.by_name else 'left out'}: {reason}")
        files += requirements.files
        passes = ", ".join(f"{name} {count}" for name, count in requirements.passes.items()) or "-"
        measured = _measured(args.out / suite / benchmark / method.name, images)
        cost = measured or _bounds(requirements, speed, device, images)
        table.append((method.name, _total(requirements.files), passes, *cost))
    print()
    _show_table(table)
    if args.images is not None:
        print(f"{args.label}: finished images of {args.images}, no network")
    _show_totals(files)
    if speed is not None:
        product = f"a {_dtype(device)} matrix product reaches {speed / 1e12:.3g} TFLOP/s on {device} now"
        print(
            f">=: not measured, but the UNet alone takes that: {UNET_FLOPS / 1e12:.2f} TFLOP a pass, twice that with a "
            f"gradient, and {product}; memory: its parameters, or those of the largest phase"
        )


def _show_group(title: str, files: Sequence[AssetFile], seen: dict[str, str], note: str = "") -> None:
    """A line for each file; of those that stand under another title already, how many. seen: that title, by file."""
    print(f"\n{title}" + (f": {note}" if note else ""))
    known: dict[str, list[AssetFile]] = {}
    lines = []
    for file in files:
        key = f"{file.name} {file.source}"
        if key in seen:
            known.setdefault(seen[key], []).append(file)
        else:
            seen[key] = title
            facts = (file.licence or "licence unknown", file.source) if file.source else ()
            lines.append((f"  {_state(file)}", file.name, size_text(_size(file)), ", ".join(facts)))
    for other, again in known.items():
        print(f"  {_count(again)} as under {other}, {_total(again)}")
    _show_table(lines)


def _state(file: AssetFile) -> str:
    return "here" if file.path else STATES[file.comes]


def _size(file: AssetFile) -> int | None:
    """Of the copy that is here, else as published."""
    return file.path.stat().st_size if file.path is not None and file.path.is_file() else file.size


def size_text(size: int | None) -> str:
    if size is None:
        return "size unknown"
    unit, name = next(((unit, name) for unit, name in ((GB, "GB"), (MB, "MB"), (KB, "kB")) if size >= unit), (1, "B"))
    return f"{size / unit:.3g} {name}"


def _count(files: Sequence[AssetFile]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files)} files"


def _total(files: Iterable[AssetFile]) -> str:
    sizes = [_size(file) for file in files]
    if not sizes:
        return "none"
    unknown = sum(size is None for size in sizes)
    known = size_text(sum(size for size in sizes if size is not None))
    if unknown == len(sizes):
        return "size unknown"
    return known + (f" and {unknown} of unknown size" if unknown else "")


def _measured(folder: Path, images: int | None) -> tuple[str, str, str] | None:
    """Seconds an image, those of all images, and peak memory, of the run in `folder`; None without one."""
    try:
        manifest = read_manifest(folder)
    except RunError:
        return None
    if manifest is None or (cost := manifest.cost) is None:
        return None
    each, device = cost.seconds_per_sample, manifest.device.type
    whole = "?" if images is None else duration(cost.load_seconds + each * images)
    return f"{each:.3g} ({device})", whole, f"{size_text(cost.peak_memory_bytes)} ({cost.memory})"


def _bounds(requirements: Requirements, speed: float | None, device: str, images: int | None) -> tuple[str, str, str]:
    """What seconds and memory cannot be below, where a UNet is run."""
    flops = sum(PASS_FLOPS.get(name, 0.0) * count for name, count in requirements.passes.items())
    if not flops or speed is None:
        return ("not measured",) * 3
    each = flops / speed
    whole = "?" if images is None else f">= {duration(each * images)}"
    unet = UNET_PARAMETERS * (4 if device == "cpu" else 2)
    return f">= {duration(each)}", whole, f">= {size_text(max(unet, *requirements.phases.values(), 0))}"


def _dtype(device: str) -> str:
    """The lowest precision that a row takes by itself: a bound has to hold for all."""
    return "float32" if device == "cpu" else "float16"


def _matrix_product_speed(device: str) -> float:
    """Floating-point operations a second of a matrix product on the device, at its best of a few."""
    import torch

    side, best = 2048, float("inf")
    matrix = torch.ones(side, side, device=device, dtype=getattr(torch, _dtype(device)))
    for _ in range(4):
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def duration(seconds: float) -> str:
    if seconds >= HOUR:
        return f"{seconds / HOUR:.1f} h"
    return f"{seconds / MINUTE:.1f} min" if seconds >= MINUTE else f"{seconds:.1f} s"


def _show_table(lines: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _show_totals(files: Sequence[AssetFile]) -> None:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    once = list({f"{file.name} {file.source}": file for file in files}.values())
    print(f"\nin all, each file once: {_count(once)}, {_total(once)}")
    for state in ("here", *STATES.values()):
        some = [file for file in once if _state(file) == state]
        if some:
            print(f"  {state}: {_count(some)}, {_total(some)}")
    if HF_HUB_OFFLINE:
        print("HF_HUB_OFFLINE is set: a run would fetch nothing from the hub")
    print("weights: bytes on disk; a checkpoint may hold more than is loaded (moving averages, an optimizer's state)")
