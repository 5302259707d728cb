#!/bin/sh
# On a machine with a GPU, in one go: calibrate runs there, how fast it is, and the largest reference ladder that
# fits the time.
#
#   sh benchmarks/accelerator.sh RESULTS [MINUTES]
#
# MINUTES (default 25) is for this call; each command in it takes 10 minutes at most. The same call continues:
# what is done is not done again, and the ladder goes on from its checkpoints. RESULTS gets machine.txt, steps.txt
# (every command with its seconds and exit code), proof/ and measurements/ (tables), speed_*.json, and the
# ladder's calibration.yaml.
#
# Needs torch, transformers, numpy, pydantic, typer, rich, pyyaml; accelerate for the plain Trainer's side.
# DEVICE=cpu tries the script without a GPU, on small rungs and few steps.
set -eu
results=${1:?usage: accelerator.sh RESULTS [MINUTES]}
minutes=${2:-25}
device=${DEVICE:-cuda}
python=${PYTHON:-python}
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$results/work"
results=$(cd "$results" && pwd)
work=$results/work
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
ends=$(($(date +%s) + minutes * 60))

left() { echo $((ends - $(date +%s))); }

# step NAME OUTPUT COMMAND...: once, into OUTPUT (written whole or not at all), within 10 minutes and the time left.
step() {
    name=$1 output=$2
    shift 2
    [ -e "$output" ] && return 0
    limit=$(left)
    [ "$limit" -gt 600 ] && limit=600
    if [ "$limit" -lt 20 ]; then
        echo "no time left for $name; call again to go on" >&2
        return 1
    fi
    started=$(date +%s)
    code=0
    timeout -k 30 "$limit" "$@" > "$output.part" || code=$?
    echo "$name: $(($(date +%s) - started)) s, exit code $code: $*" >> "$results/steps.txt"
    if [ "$code" -ne 0 ]; then
        echo "$name ended with exit code $code (124: out of time); see above" >&2
        return 1
    fi
    mv "$output.part" "$output"
}

# calibrate NAME FILE RUNS TABLES: train and collect; collects what there is when the time is over.
calibrate() {
    step "$1" "$results/$1.txt" "$python" -m mixplan calibrate "$2" -o "$3" || true
    [ -d "$3" ] || return 0
    rm -rf "$4"
    "$python" -m mixplan collect "$3" -o "$4" || echo "nothing to collect from $3 yet" >&2
}

{
    date -u
    "$python" -c "import platform, torch, transformers
print(platform.platform(), 'Python', platform.python_version())
print('torch', torch.__version__, 'transformers', transformers.__version__)
print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')"
    git -C "$here" log -1 --format='commit %H' 2> /dev/null || true
    command -v nvidia-smi > /dev/null && nvidia-smi || true
} >> "$results/machine.txt"

[ -d "$work/raw" ] || "$python" -c "
import sys
sys.path.insert(0, '$here/examples/quickstart')
from pathlib import Path
from sources import collect
print(collect(Path('$work/raw')))"

# adapt FILE: a calibration as it is for a GPU, or made small for a trial on a CPU.
adapt() {
    if [ "$device" = cuda ]; then
        cat "$1"
    else
        sed -e 's/cuda/cpu/; s/bf16/fp32/; s/compile: true/compile: false/; s/, olmo2.*\]/]/; s/slots: 4/slots: 1/' \
            -e 's/8388608, 16777216, 33554432/524288, 1048576/; s/batch_sequences: 64/batch_sequences: 8/' \
            -e 's/\[0, 1, 2\]/[0]/' "$1"
    fi
}
adapt "$here/benchmarks/reference/proof.yaml" > "$work/proof.yaml"
adapt "$here/benchmarks/reference/calibration.yaml" > "$work/reference.yaml"
small=$("$python" -c "import sys, yaml; print(*yaml.safe_load(sys.stdin)['ladder'])" < "$work/reference.yaml")
if [ "$device" = cuda ]; then
    speed="--device cuda --precision bf16 --compile --blocks 5"
    large="datadecide_4M datadecide_20M datadecide_60M olmo2_60M olmo2_190M paper_300M"
    shared="--side-by-side 2 4"
else
    speed="--device cpu --block 2 --blocks 2"
    large=
    shared="--side-by-side 2"
fi

calibrate proof "$work/proof.yaml" "$work/proof" "$results/proof"

# The rungs of the reference ladder as it trains them, several at once on the device as well; then larger ones on
# 1,024 tokens of a tokenizer's vocabulary.
for rung in $small; do
    # shellcheck disable=SC2086
    step "speed_$rung" "$results/speed_$rung.json" "$python" "$here/benchmarks/training_speed.py" \
        --rungs "$rung" --sequence 512 --batch 64 $speed $shared || true
done
for rung in $large; do
    # shellcheck disable=SC2086
    step "speed_large_$rung" "$results/speed_large_$rung.json" "$python" "$here/benchmarks/training_speed.py" \
        --rungs "$rung" --sequence 1024 --batch 32 --vocabulary 50304 $speed || true
done

if [ ! -e "$work/calibration.yaml" ]; then
    measured=
    for rung in $small; do
        [ -e "$results/speed_$rung.json" ] && measured="$measured $results/speed_$rung.json"
    done
    # shellcheck disable=SC2086
    "$python" "$here/benchmarks/reference/choose.py" "$work/reference.yaml" "$(left)" $measured \
        > "$work/chosen.yaml"
    mv "$work/chosen.yaml" "$work/calibration.yaml"
fi
cp "$work/calibration.yaml" "$results/"
calibrate ladder "$work/calibration.yaml" "$work/runs" "$results/measurements"
"$python" -m mixplan status "$work/runs"
