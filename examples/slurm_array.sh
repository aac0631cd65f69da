#!/bin/bash
# A benchmark as a Slurm array; docs/operations.md explains it.
#
#   array=$(sbatch --parsable examples/slurm_array.sh piebench --suite paper --data PIE-Bench_v1 --methods all)
#   sbatch --array=0 --dependency="afterany:$array" --export=ALL,SHARDS=1 examples/slurm_array.sh piebench ...
#
# The second job, with the same flags, finishes what dead tasks left and renders the table.
#SBATCH --array=0-7
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%A_%a.log
set -euo pipefail

# The number of all tasks. Slurm's own count is that of a submission, which may be a few tasks that are to run again.
SHARDS=${SHARDS:-8}
benchmark=$1
shift

# One process for each of the node's GPUs; they share the task's shard among them.
exec torchrun --standalone --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    -m "benchmarks.$benchmark" "$@" --shard "$SLURM_ARRAY_TASK_ID/$SHARDS"
