#!/usr/bin/env bash
# Validates every kernel of the CUDA floor on this machine's GPU and measures it, in under 8 minutes.
#
#   benchmarks/gpu.sh [FOLDER]
#
# FOLDER, by default benchmarks/results/cuda-NAME of the GPU, is left with
#   info.txt                 what the installation found
#   validation-float32.txt   every op against the float64 reference (and -float64.txt)
#   README.md, results.json  `fastcnn bench --backend cuda --quick`, and its plots
#   sanitizer.txt            compute-sanitizer on some ops, where it is installed
# PYTHON names the interpreter (default: python3). Needs the extras cuda13 or cuda12, and bench.
# Status: 0 all is well, or there is no GPU; 1 something failed or took too long.
set -euo pipefail

VALIDATION=200 MEASURING=190 SANITIZING=50 # seconds
MINUTES=2.5                                # after which no case begins
SANITIZED=(relu_forward batchnorm_forward max_pool_forward softmax_loss conv_forward)

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
failed=0

# Runs a command for at most so many seconds; what it says goes to a file.
limited() {
    local seconds=$1 file=$2 status=0
    shift 2
    timeout "$seconds" "$@" >"$file" 2>&1 || status=$?
    if ((status == 124)); then
        echo "not done in $seconds s" >>"$file"
    fi
    return "$status"
}

# Says how a step ended, with the last line of its file.
report() {
    local what=$1 file=$2 status=$3
    printf '%-22s %s: %s\n' "$what" "$( ((status)) && echo FAILED || echo ok)" "$(tail -n 1 "$file")"
    if ((status)); then failed=1; fi
}

lacking=$("$python" -c 'from fastcnn.layers import device; print(device.unavailable() or "")')
if [[ -n $lacking ]]; then
    echo "nothing to do: $lacking"
    exit 0
fi
folder=${1:-$("$python" -c 'from fastcnn.bench.command import folder, machine; print(folder(machine("cuda")))')}
mkdir -p "$folder"
"$python" -m fastcnn info | tee "$folder/info.txt"
echo "results in $folder"

echo "validating every op, both dtypes at once, at most $VALIDATION s ..."
declare -A running
for dtype in float32 float64; do
    limited "$VALIDATION" "$folder/validation-$dtype.txt" \
        "$python" -m fastcnn validate --backend cuda --quick --dtype "$dtype" &
    running[$dtype]=$!
done
for dtype in float32 float64; do
    status=0
    wait "${running[$dtype]}" || status=$?
    report "validation, $dtype" "$folder/validation-$dtype.txt" "$status"
done

echo "measuring, at most $MEASURING s ..."
status=0
limited "$MEASURING" "$folder/bench.txt" \
    "$python" -m fastcnn bench --backend cuda --quick --minutes "$MINUTES" --no-progress --output "$folder" || status=$?
cat "$folder/bench.txt"
report measuring "$folder/bench.txt" "$status"

if command -v compute-sanitizer >/dev/null; then
    echo "looking for accesses outside of arrays, at most $SANITIZING s ..."
    status=0
    limited "$SANITIZING" "$folder/sanitizer.txt" compute-sanitizer --error-exitcode 1 \
        "$python" -m fastcnn validate --backend cuda --quick --dtype float32 "${SANITIZED[@]/#/--op=}" || status=$?
    report compute-sanitizer "$folder/sanitizer.txt" "$status"
fi
exit "$failed"
