"""FID between sets of true images."""

import pytest
import torch

from benchmarks.miniature.evaluate.fid_noise import Arguments, distances, main


def test_pairs_are_disjoint_and_of_the_size_that_was_asked_for() -> None:
    """In one dimension the distance is |m1 - m2|^2 + (s1 - s2)^2."""
    values = torch.randn(47, generator=torch.Generator().manual_seed(0))
    sets = values[:40].double().reshape(2, 2, 10)
    means, deviations = sets.mean(2), sets.std(2)
    expected = (means[:, 0] - means[:, 1]) ** 2 + (deviations[:, 0] - deviations[:, 1]) ** 2
    assert distances(values[:, None], 10) == pytest.approx(expected.tolist(), rel=1e-5)
    assert (
        distances(values[:, None], 15) == distances(values[:30, None], 15) and len(distances(values[:, None], 15)) == 1
    )


def test_the_command_prints_a_line_for_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    main(Arguments(sizes=(2, 4), scenes=10))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[2:]] == [["2", "2"], ["4", "1"]]
    assert all(0 < float(low) <= float(mean) <= float(high) for *_, low, mean, high in rows[2:])


@pytest.mark.parametrize("wrong", [{"sizes": (1,)}, {"sizes": (6,), "scenes": 11}, {"sizes": ()}])
def test_what_makes_no_pair_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="--sizes is"):
        Arguments(**wrong)
