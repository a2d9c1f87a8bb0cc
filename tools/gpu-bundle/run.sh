#!/bin/sh
# Tests and measures the CUDA backend of flash-moe on this machine, which needs an NVIDIA driver and nothing else.
usage() {
  cat <<'TEXT'
./run.sh [options] [stage ...]

Stages, in this order if none is named, what matters most first; each goes on when another fails:
  info           which backends there are, the driver, the clocks
  conformance    the conformance suite on the GPU
  tune           benchmarks/cuda-tune.mjs: every way of every op, beside what the model of costs expects and chooses
  cuda           benchmarks/cuda.mjs: upstream's sizes and the paper's, by the device's clock
  goldens        layers that PyTorch made, on the GPU; unseen ones are made first where PyTorch is
  repeatability  the same bits on every run, in one process and in another
  training       the first 20 losses of a model, beside the reference
  wgmma          the conformance cases of matrix products by Hopper's own instruction, on a Hopper
  peers          benchmarks/cuda_peers.py: PyTorch and upstream's Triton kernels, on the same tensors
  bench          flash-moe bench, at upstream's sizes, decoding and prefilling
  sanitizer      a part of the suite under compute-sanitizer, where that is
  webgpu         the conformance suite and a benchmark by WebGPU on this GPU, where Vulkan is
  cpu            the goldens on the CPU backend, which needs no GPU

Options:
  --out DIR          results: a JSON file and a log for each stage, summary.json (default: ./results)
  --pack FILE        after each stage, packs the results, without tensors, into this .tar.gz
  --limit SECONDS    for each stage (default: 540; bench has three of them)
  --budget SECONDS   for all of them together: each gets no more than its share, and what is left no time for is skipped
                     (default: none)
  --seconds S        for each measurement (default: 1)
  --only TEXT        only benchmark cases whose name has this in it
  --flash-moe DIR    a clone of upstream's flash-moe, for peers
  --omni-moe DIR     a clone of upstream's omni-moe, for peers
  --python COMMAND   for peers and unseen goldens (default: python3)
  --goldens DIR      more goldens, in the format of app/goldens/README.md
  --require-gpu      a machine without a GPU is a failure

The exit code is 0 if nothing failed; 1 if something did. What could not run is told in the summary.
TEXT
}

here=$(cd "$(dirname "$0")" && pwd) || exit 1
out=$PWD/results pack= limit=540 budget= seconds=1 only= flash= omni= python=python3 more= require= stages=
while [ $# -gt 0 ]; do
  case $1 in
    --require-gpu | -h | --help) ;;
    --*) [ $# -gt 1 ] || { echo "run.sh: $1 needs a value" >&2; exit 2; } ;;
  esac
  case $1 in
    --out) out=$2; shift ;;
    --pack) pack=$2; shift ;;
    --limit) limit=$2; shift ;;
    --budget) budget=$2; shift ;;
    --seconds) seconds=$2; shift ;;
    --only) only=$2; shift ;;
    --flash-moe) flash=$2; shift ;;
    --omni-moe) omni=$2; shift ;;
    --python) python=$2; shift ;;
    --goldens) more=$2; shift ;;
    --require-gpu) require=1 ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "run.sh: there is no option $1" >&2; usage >&2; exit 2 ;;
    *) stages="$stages $1" ;;
  esac
  shift
done
for number in "$limit" "${budget:-1}"; do
  case $number in
    '' | 0 | *[!0-9]*) echo "run.sh: --limit and --budget take whole seconds" >&2; exit 2 ;;
  esac
done
all="info conformance tune cuda goldens repeatability training wgmma peers bench sanitizer webgpu cpu"
for stage in $stages; do
  case " $all " in *" $stage "*) ;; *) echo "run.sh: there is no stage $stage" >&2; exit 2 ;; esac
done
stages=${stages:-$all}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)

# Unpacks FILE.gz beside itself, or where that is read-only, in the results.
place=$here
if ! (: >"$here/.writable") 2>/dev/null; then
  place=$out/bundle
  [ -d "$place" ] || cp -R "$here" "$place" || exit 1
fi
rm -f "$here/.writable"
find "$place" -name '*.gz' | while read -r packed; do
  target=${packed%.gz}
  [ -f "$target" ] || { gzip -dc "$packed" >"$target.part" && mv "$target.part" "$target"; } || exit 1
done || { echo "run.sh: the bundle cannot be unpacked" >&2; exit 1; }
if [ -f "$place/node.xz" ] && [ ! -f "$place/node" ]; then
  unpack="import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)"
  if command -v xz >/dev/null 2>&1; then xz -dc "$place/node.xz"; else "$python" -c "$unpack" "$place/node.xz"; fi \
    >"$place/node.part" && mv "$place/node.part" "$place/node" ||
    { echo "run.sh: unpacking Node needs xz or Python" >&2; exit 1; }
fi
chmod +x "$place/node"
node=$place/node
app=$place/app
if ! "$node" --version >/dev/null 2>&1; then
  # An old C++ library: the one that this Node was built with is in the bundle.
  LD_LIBRARY_PATH=$place/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
fi
if ! "$node" --version >"$out/node.log" 2>&1; then
  echo "run.sh: the Node of the bundle does not start here:" >&2
  cat "$out/node.log" >&2
  exit 1
fi
flash_moe=$app/node_modules/flash-moe/bin/flash-moe.js
# A bundle of the shim, to test the bundle itself.
binary=
[ -f "$place/flash_moe_cuda.node" ] && binary=$place/flash_moe_cuda.node
export FLASH_MOE_BUNDLE_BINARY="$binary"

# A driver that is not where the linker looks, as in some containers.
for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/wsl/lib; do
  [ ! -e "$folder/libcuda.so.1" ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
done
command -v nvidia-smi >/dev/null 2>&1 || PATH=$PATH:/usr/local/nvidia/bin

started=$(date +%s)
# Seconds that a stage may take now: of a budget no more than its share, so that one that hangs leaves the others theirs;
# none, or nearly none, where the budget is spent.
allowed() { # stage
  [ -n "$budget" ] || { echo "$limit"; return; }
  case $1 in
    info) share=40 ;;
    conformance | cuda-run) share=200 ;;
    tune-run | sanitizer) share=150 ;;
    peers-run) share=400 ;;
    bench-*) share=40 ;;
    *) share=90 ;;
  esac
  rest=$((budget - $(date +%s) + started))
  for other in "$limit" "$rest"; do [ "$share" -le "$other" ] || share=$other; done
  echo "$share"
}
limited() { # seconds command...
  most=$1
  shift
  if command -v timeout >/dev/null 2>&1; then timeout -k 10 "$most" "$@"; else "$@"; fi
}

# Runs a stage's command with its standard output in STAGE.json; the rest goes to STAGE.log.
status_file=$out/stages.txt
: >"$status_file"
note() { # stage status seconds reason
  reason=$(printf '%s' "$4" | tr '\t\n' '  ')
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$reason" >>"$status_file"
  echo "$1: $2${reason:+ ($reason)}, $3 s"
  # After each: a run that is cut short leaves what it has.
  summary >/dev/null 2>&1
  [ -z "$pack" ] || {
    tar -czf "$pack.part" -C "$out" --exclude=./tensors --exclude=./bundle --exclude=./unseen . &&
      mv "$pack.part" "$pack"
  }
}
summary() {
  "$node" "$app/summary.mjs" "$out" "$place/origin.json" "$gpu" ${require:+--require-gpu}
}
stage() { # name command...
  stage=$1
  shift
  seconds_left=$(allowed "$stage")
  if [ "$seconds_left" -lt 5 ]; then
    note "$stage" skipped 0 "no time is left of the $budget s of --budget"
    return
  fi
  began=$(date +%s)
  limited "$seconds_left" "$@" >"$out/$stage.json" 2>"$out/$stage.log"
  code=$?
  took=$(($(date +%s) - began))
  case $code in
    0) note "$stage" passed "$took" "" ;;
    3) note "$stage" skipped "$took" "$(tail -n 1 "$out/$stage.log")" ;;
    124 | 137) note "$stage" failed "$took" "it ran past its limit of $seconds_left s" ;;
    *) note "$stage" failed "$took" "exit code $code; $(tail -n 1 "$out/$stage.log" | cut -c1-200)" ;;
  esac
}

gpu=$(limited 60 "$node" "$app/device.mjs" 2>"$out/device.log")
[ -n "$gpu" ] || [ -s "$out/device.log" ] || echo "the driver does not answer" >"$out/device.log"
[ -n "$gpu" ] && echo "GPU: $gpu" || echo "no GPU: $(cat "$out/device.log")"

needs_gpu() {
  [ -n "$gpu" ] && return 0
  note "$1" skipped 0 "no GPU: $(cat "$out/device.log")"
  return 1
}

has_torch() { "$python" -c 'import torch, sys; sys.exit(0 if torch.cuda.is_available() or len(sys.argv) > 1 else 1)' "$@" >/dev/null 2>&1; }

for name in $stages; do
  case $name in
    info)
      stage info "$node" "$app/machine.mjs" "$place/origin.json"
      ;;
    cpu)
      stage cpu "$node" "$app/goldens.mjs" --backend wasm --folder "$app/goldens/data"
      ;;
    conformance)
      needs_gpu conformance && stage conformance "$node" "$app/conformance.mjs"
      ;;
    repeatability)
      needs_gpu repeatability && stage repeatability "$node" "$app/repeatability.mjs"
      ;;
    goldens)
      if needs_gpu goldens; then
        unseen=
        if [ -z "$more" ] && has_torch any; then
          unseen=$out/unseen
          limited "$(allowed goldens)" "$python" "$app/unseen.py" "$app/goldens" "$unseen" >"$out/unseen.log" 2>&1 || unseen=
        fi
        stage goldens "$node" "$app/goldens.mjs" --backend cuda --folder "$app/goldens/data" \
          ${unseen:+--folder "$unseen"} ${more:+--folder "$more"}
      fi
      ;;
    tune)
      if needs_gpu tune; then
        stage tune-run "$node" "$app/benchmarks/cuda-tune.mjs" --out "$out" ${only:+--only "$only"} \
          ${binary:+--binary "$binary" --sizes tiny --samples 1}
        [ ! -f "$out/tune.txt" ] || cat "$out/tune.txt"
      fi
      ;;
    wgmma)
      needs_gpu wgmma &&
        stage wgmma env FLASH_MOE_WGMMA=1 "$node" "$app/conformance-part.mjs" '(linear|mlp|experts)'
      ;;
    training)
      needs_gpu training && stage training "$node" "$app/training.mjs"
      ;;
    sanitizer)
      if needs_gpu sanitizer; then
        tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
        if [ -z "$tool" ]; then
          note sanitizer skipped 0 "there is no compute-sanitizer"
        else
          stage sanitizer "$node" "$app/sanitizer.mjs" "$tool" "$(allowed sanitizer)"
        fi
      fi
      ;;
    bench)
      if needs_gpu bench; then
        for preset in decode upstream prefill; do
          stage "bench-$preset" "$node" "$app/bench.mjs" "$flash_moe" cuda "$seconds" "$preset"
        done
      fi
      ;;
    cuda)
      needs_gpu cuda && stage cuda-run "$node" "$app/benchmarks/cuda.mjs" --out "$out" --seconds "$seconds" \
        ${only:+--only "$only"} ${binary:+--binary "$binary" --sizes tiny}
      ;;
    peers)
      if needs_gpu peers; then
        if [ ! -f "$out/cuda.json" ]; then
          note peers skipped 0 "the stage cuda has left no tensors"
        elif ! has_torch; then
          note peers skipped 0 "$python has no PyTorch that sees a GPU"
        else
          stage peers-run "$python" "$app/benchmarks/cuda_peers.py" --out "$out" --seconds "$seconds" \
            ${only:+--only "$only"} ${flash:+--flash-moe "$flash"} ${omni:+--omni-moe "$omni"}
        fi
      fi
      ;;
    webgpu)
      stage webgpu "$node" "$app/webgpu.mjs" "$flash_moe" "$seconds"
      ;;
  esac
done

"$node" "$app/table.mjs" "$out"
summary
