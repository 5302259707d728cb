#!/bin/sh
# On a machine with a GPU, in one go: calibrate runs there, how fast it is, and the reference ladder's tables.
#
#   sh benchmarks/accelerator.sh RESULTS [PEAK_FLOPS]
#
# Needs torch, transformers, numpy, pydantic, typer, rich, pyyaml; accelerate for the plain Trainer's side.
# DEVICE=cpu LADDER=examples/quickstart/calibration.yaml RUNGS="cpu_8k" tries the script without a GPU.
set -eu
results=${1:?usage: accelerator.sh RESULTS [PEAK_FLOPS]}
peak=${2:-7.9e14}
device=${DEVICE:-cuda}
python=${PYTHON:-python}
here=$(cd "$(dirname "$0")/.." && pwd)
ladder=${LADDER:-$here/benchmarks/reference/calibration.yaml}
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$results/work"

"$python" - "$results/work/raw" <<PY
import sys
sys.path.insert(0, "$here/examples/quickstart")
from pathlib import Path
from sources import collect
print(collect(Path(sys.argv[1])))
PY

if [ "$device" = cuda ]; then
    options="--device cuda --precision bf16 --compile --sequence 512 --batch 64"
    rungs=${RUNGS:-cpu_132k olmo2_14M olmo2_30M olmo2_60M olmo2_190M}
else
    options="--device cpu --block 5 --blocks 2"
    rungs=${RUNGS:-cpu_8k cpu_132k}
fi
# shellcheck disable=SC2086
"$python" "$here/benchmarks/training_speed.py" --rungs $rungs $options --peak-flops "$peak" \
    > "$results/training_speed.json" || echo "speed could not be measured; see above" >&2

cp "$ladder" "$results/work/calibration.yaml"
(cd "$results/work" && "$python" -m mixplan calibrate calibration.yaml -o runs && "$python" -m mixplan status runs)
"$python" -m mixplan collect "$results/work/runs" -o "$results/measurements"
