"""The files that a suite needs besides its methods': data sets and the networks that score. Nothing is read of them."""

from collections.abc import Sequence
from pathlib import Path

from baselines.needs import NeededFile
from benchmarks.datasets.hub import HubDataset, present
from benchmarks.datasets.piebench import IMAGES, LAYOUTS, MAPPING
from metrics.networks.weights import PIE_BENCH, TRANSLATION, HubFolder, WeightFile, locate


def official_piebench(data: Path | None, weights: Path | None) -> list[NeededFile]:
    """PIE-Bench as its authors give it out, and the networks of its published evaluator."""
    folders = [] if data is None else [data / layout for layout in LAYOUTS]
    folder = next((each for each in folders if (each / MAPPING).is_file()), None)
    dataset = [
        NeededFile(
            name=f"PIE-Bench_v1/{name}",
            source="its authors, on request (github.com/cure-lab/PnPInversion): --data",
            path=folder / name if folder is not None and (folder / name).exists() else None,
        )
        for name in (MAPPING, f"{IMAGES}/")
    ]
    return dataset + official_networks(PIE_BENCH, weights)


def official_translation(task: str, source: HubDataset, data: Path | None, weights: Path | None) -> list[NeededFile]:
    """A validation set of the hub's, and the networks that score its task."""
    dataset = NeededFile(
        name=f"{source.name}/",
        source=f"hub: datasets/{source.repository} @ {source.revision[:7]}",
        path=present(source, data),
        comes="fetched" if data is None else "given",
    )
    return [dataset, *official_networks(TRANSLATION[task], weights)]


def official_networks(items: Sequence[WeightFile | HubFolder], weights: Path | None) -> list[NeededFile]:
    files = []
    for item in items:
        if isinstance(item, HubFolder):
            source = f"hub: {item.repository} @ {item.revision[:7]}"
            mine = weights is not None and (weights / item.name).exists()
        else:
            source, mine = item.url, False
        for name, path in locate(item, weights).items():
            whole = isinstance(item, WeightFile) or name == f"{item.name}/{item.weights}"
            files.append(
                NeededFile(
                    name=name, source=source, size=item.size if whole else None, licence=item.licence, path=path,
                    comes="given" if mine else "fetched",
                )
            )  # fmt: skip
    return files


def embedded(drawn: Path, data: Path | None, own_weights: Path, weights: Path | None) -> list[NeededFile]:
    """The miniature's: a data set that is drawn at `drawn` unless the user has one, and the network that scores."""
    folder, network = data or drawn, (weights or own_weights) / "perception.safetensors"
    return [
        NeededFile(
            name=f"{folder.name}/", source="benchmarks.miniature", path=folder if folder.is_dir() else None,
            comes="made" if data is None else "given",
        ),
        NeededFile(
            name=network.name, source="benchmarks.miniature.build", path=network if network.is_file() else None
        ),
    ]  # fmt: skip
