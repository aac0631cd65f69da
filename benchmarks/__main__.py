"""`python -m benchmarks`: what can be done here, with an example of each."""

import sys

OVERVIEW = """\
EditAR Bench. Add --help to any of these commands for its flags.

Benchmarks
  score your own folder of edits        python -m benchmarks.piebench --images my_edits --label my-method
  edit PIE-Bench and score the edits    python -m benchmarks.piebench --methods editar masactrl
  generate from condition maps          python -m benchmarks.translation --task canny
  sweep guidance, ablate distillation   python -m benchmarks.ablations --axis guidance
  see what rows need, without running   python -m benchmarks.piebench --suite paper --methods all --dry-run

Results
  look at all images                    python -m benchmarks.gallery runs/miniature --out gallery
  draw chosen samples as a figure       python -m benchmarks.figure runs/miniature/piebench --ids 600000000001
  compare two runs                      python -m benchmarks.compare RUN_A RUN_B
  render tables of any runs             python -m reports --runs runs/miniature --out tables
  check the committed tables            python -m reports.drift

The harness
  measure speed                         python -m benchmarks.speed metrics
  check and measure a GPU               python -m benchmarks.gpu_check
  compare a few records with the repo   python -m benchmarks.small_run
  rehearse the paper suite              python -m benchmarks.random_weights random
  train the miniature again             python -m benchmarks.miniature.build --threads 2
  train its diffusion models again      python -m benchmarks.miniature.build_diffusion --threads 2
  measure the miniature                 python -m benchmarks.miniature.evaluate

The model itself: python -m editar. Documentation: docs/quickstart.md."""


def main(arguments: list[str]) -> int:
    """Prints the overview; 2 for words that it does not take."""
    if arguments and arguments not in (["-h"], ["--help"]):
        print(f"error: {arguments[0]!r} is not taken here; start one of these commands\n\n{OVERVIEW}", file=sys.stderr)
        return 2
    print(OVERVIEW)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
