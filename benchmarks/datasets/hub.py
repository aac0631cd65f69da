"""The three validation sets of the translation benchmarks on the Hugging Face hub, and where their shards are found.

Licences are the publishers'. Nothing is fetched unless the user gave no folder.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.datasets.faults import DatasetError, Fault
from editar.io.assets import Asset, AssetFile, NotFetched

SPLIT = "validation"
LAYOUTS = ("", "data")  # where under the given folder the shards may lie; the hub has them in data/
_SHARD = re.compile(rf"{SPLIT}-(\d{{5}})-of-(\d{{5}})(-[0-9a-f]+)?\.parquet")


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """One data set: where it is published, and what its columns are called.

    revision: the commit that the column names were taken from; abbreviated where no full one is on record.
    condition: the column with the condition map, None where it is made from the image. label: the column with the
    train ids, None where there are none.
    """

    name: str
    repository: str
    revision: str
    caption: str
    image: str = "image"
    condition: str | None = None
    label: str | None = None

    @property
    def asset(self) -> Asset:
        return Asset(
            name=self.name,
            repository=self.repository,
            revision=self.revision,
            dataset=True,
            files=(f"data/{SPLIT}-*.parquet",),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.image, self.condition, self.label, self.caption)))


_TABLES = tomllib.loads(Path(__file__).with_name("hub.toml").read_text())
MULTIGEN_DEPTH = HubDataset(**_TABLES["multigen-depth"])
MULTIGEN_CANNY = HubDataset(**_TABLES["multigen-canny"])
COCO_STUFF = HubDataset(**_TABLES["coco-stuff"])


def find_shards(dataset: HubDataset, root: Path | None) -> list[Path]:
    """The validation shards of `dataset` in their order: under the folder `root`, or from the hub where that is None.

    Raises DatasetError when there are none, when one of n is missing, or when one is there twice: rows are counted
    through all shards, so that ids would shift or repeat.
    """
    folder = fetch(dataset) if root is None else root
    for layout in LAYOUTS:
        if shards := sorted(path for path in (folder / layout).glob("*.parquet") if _SHARD.fullmatch(path.name)):
            _check_complete(folder / layout, shards)
            return shards
    problem = f"there is no {SPLIT}-*-of-*.parquet in it or in its data/" if folder.is_dir() else "no such folder"
    remedy = f"give a copy of the hub's {dataset.repository} (flag --data), or no folder, to fetch it"
    raise DatasetError([Fault(file=folder, problem=problem, remedy=remedy)])


def fetch(dataset: HubDataset, *, cache: Path | None = None, endpoint: str | None = None) -> Path:
    """The folder of `dataset` in the hub's cache, at its pinned revision; what is not there yet is downloaded.

    cache, endpoint: instead of the hub's own. Raises FileNotFoundError that says what to put where.
    """
    try:
        return dataset.asset.fetch(cache=cache, endpoint=endpoint, check=lambda folder: find_shards(dataset, folder))
    except NotFetched as error:
        raise FileNotFoundError(
            f"{dataset.name} could not be fetched: {error}. Fetch data/{SPLIT}-*.parquet of the hub's data set "
            f"{dataset.repository} (revision {dataset.revision}) where there is a network, and pass the folder as "
            "--data DIR."
        ) from error


def locate_hub_dataset(dataset: HubDataset, root: Path | None) -> AssetFile:
    """Where shards of `dataset` lie, under the folder `root` or else in the hub's cache; whether they are all there is
    not looked at."""
    asset = dataset.asset
    folders = [folder / layout for folder in (asset.snapshots() if root is None else [root]) for layout in LAYOUTS]
    return AssetFile(
        name=f"{dataset.name}/",
        source=asset.origin,
        path=next((each for each in folders if any(_SHARD.fullmatch(path.name) for path in each.glob("*"))), None),
        comes="fetched" if root is None else "given",
    )


def _check_complete(folder: Path, shards: Sequence[Path]) -> None:
    faults = []
    seen: dict[int, Path] = {}
    totals = set()
    for path in shards:
        match = _SHARD.fullmatch(path.name)
        assert match is not None
        number, total = int(match[1]), int(match[2])
        totals.add(total)
        if number in seen:
            problem = f"it holds the same rows as {seen[number].name}: the ids of its records would occur twice"
            faults.append(Fault(file=path, problem=problem, remedy="remove one of the two"))
        seen[number] = path
    if len(totals) > 1 or max(seen) >= max(totals):
        problem = f"its shards are not numbered as one set: {', '.join(path.name for path in shards)}"
        faults.append(Fault(file=folder, problem=problem, remedy="keep the shards of one set"))
    elif missing := sorted(set(range(max(totals))) - set(seen)):
        names = ", ".join(f"{SPLIT}-{number:05d}-of-{max(totals):05d}.parquet" for number in missing)
        faults.append(Fault(file=folder, problem=f"{names} missing", remedy="fetch the missing files"))
    if faults:
        raise DatasetError(faults)
