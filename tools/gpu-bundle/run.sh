#!/bin/sh
# Tests and measures the CUDA backend of flash-moe on this machine, which needs an NVIDIA driver and nothing else.
usage() {
  cat <<'TEXT'
./run.sh [options] [stage ...]

Stages, in this order if none is named, what matters most first; each goes on when another fails:
  info           which backends there are, the driver, the clocks
  conformance    the conformance suite on the GPU
  cuda           benchmarks/cuda.mjs: upstream's sizes and the paper's, by the device's clock
  peers          benchmarks/cuda-peers.mjs: PyTorch and upstream's Triton kernels, on the same tensors; where the stage cuda
                 has left none, what matters most is measured again in DIR/with-peers, beside the others
  wgmma          the conformance cases of matrix products by Hopper's own instruction, on a Hopper, in each of its tiles,
                 and if they pass what it makes of the times
  tune           benchmarks/cuda-tune.mjs: every way of every op, beside what the model of costs expects and chooses
  goldens        layers that PyTorch made, on the GPU; unseen ones are made first where PyTorch is
  training       the first 20 losses of a model, beside the reference
  repeatability  the same bits on every run, in one process and in another
  sanitizer      a part of the suite under compute-sanitizer, where that is
  webgpu         the conformance suite and a benchmark by WebGPU on this GPU, where Vulkan is
  bench          flash-moe bench, at upstream's sizes, decoding and prefilling
  cpu            the goldens on the CPU backend, which needs no GPU

Options:
  --out DIR          results: a JSON file and a log for each stage, summary.json (default: ./results)
  --pack FILE        every 20 seconds and after each stage, packs the results, without tensors, into this .tar.gz
  --limit SECONDS    for each stage (default: 540)
  --budget SECONDS   for all of them together, from the start on: each gets its share of what is left, and more where those
                     before it left more; what is left no time for is skipped (default: none)
  --seconds S        for each measurement (default: 1)
  --only TEXT        only benchmark cases whose name has this in it
  --flash-moe DIR    a clone of upstream's flash-moe, for peers
  --omni-moe DIR     a clone of upstream's omni-moe, for peers
  --python COMMAND   for peers and unseen goldens (default: python3)
  --goldens DIR      more goldens, in the format of app/tools/goldens/README.md
  --require-gpu      a machine without a GPU is a failure

The exit code is 0 if nothing failed; 1 if something did. What could not run is told in the summary.
TEXT
}

started=$(date +%s)
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
all="info conformance cuda peers wgmma tune goldens training repeatability sanitizer webgpu bench cpu"
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
bundle=$app/tools/gpu-bundle
goldens=$app/tools/goldens/data
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

# What it takes of the whole, in seconds that it may be worth.
weight() { # stage
  case $1 in
    info) echo 20 ;;
    conformance | cuda) echo 120 ;;
    peers) echo 300 ;;
    wgmma | tune | sanitizer) echo 60 ;;
    training | bench | cpu) echo 30 ;;
    *) echo 40 ;;
  esac
}
# Seconds that a stage may take now: of a budget its share of what is left, so that one that hangs leaves the others
# theirs; none, or nearly none, where the budget is spent.
allowed() { # stage
  [ -n "$budget" ] || { echo "$limit"; return; }
  sum=0
  for other in $remaining; do sum=$((sum + $(weight "$other"))); done
  rest=$((budget - $(date +%s) + started))
  share=$((rest * $(weight "$1") / sum))
  [ "$share" -ge 5 ] || share=5
  for most in "$limit" "$rest"; do [ "$share" -le "$most" ] || share=$most; done
  [ "$share" -ge 5 ] || share=0
  echo "$share"
}
limited() { # seconds command...
  most=$1
  shift
  if [ -n "$budget" ]; then
    rest=$((budget - $(date +%s) + started))
    [ "$most" -le "$rest" ] || most=$rest
  fi
  # Of `timeout`, 0 would be no limit.
  [ "$most" -gt 0 ] || return 124
  # A shell that waits for what is in the background is not deaf to signals meanwhile.
  if command -v timeout >/dev/null 2>&1; then timeout -k 10 "$most" "$@" & else "$@" & fi
  job=$!
  wait "$job"
}

# Packs the results, whole or not at all.
pack_results() { # suffix
  [ -n "$pack" ] || return 0
  tar -czf "$pack.$1" -C "$out" --exclude=tensors --exclude=./bundle --exclude=./unseen --exclude='*.part' . 2>/dev/null
  # 1: a file changed meanwhile.
  [ $? -le 1 ] && mv "$pack.$1" "$pack"
}
# What the GPU does meanwhile, and what there is by now: a run that is cut short leaves what it has.
nvidia-smi --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used --format=csv -l 1 \
  >"$out/clocks.csv" 2>/dev/null &
watchers=$!
if [ -n "$pack" ]; then
  (while sleep 20; do pack_results later; done) >/dev/null 2>&1 &
  watchers="$watchers $!"
fi
trap 'kill $watchers 2>/dev/null' EXIT
# What runs now tells what it has.
trap 'trap "" TERM INT HUP; kill "$job" && wait "$job"; pack_results now; exit 143' TERM INT HUP

# Runs a stage's command. What it prints on its standard output is STAGE.json; the rest goes to STAGE.log.
status_file=$out/stages.txt
: >"$status_file"
note() { # stage status seconds reason
  reason=$(printf '%s' "$4" | tr '\t\n' '  ')
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$reason" >>"$status_file"
  echo "$1: $2${reason:+ ($reason)}, $3 s"
  summary >"$out/summary.txt" 2>&1
  pack_results now
}
summary() {
  "$node" "$bundle/summary.mjs" "$out" "$place/origin.json" "$gpu" ${require:+--require-gpu}
}
stage() { # name share-of command...
  stage=$1
  seconds_left=$(allowed "$2")
  shift 2
  if [ "$seconds_left" -eq 0 ]; then
    note "$stage" skipped 0 "no time is left of the $budget s of --budget"
    return 1
  fi
  began=$(date +%s)
  limited "$seconds_left" "$@" >"$out/$stage.part" 2>"$out/$stage.log"
  code=$?
  took=$(($(date +%s) - began))
  if [ -s "$out/$stage.part" ]; then mv "$out/$stage.part" "$out/$stage.json"; else rm -f "$out/$stage.part"; fi
  case $code in
    0) note "$stage" passed "$took" "" ;;
    124 | 137) note "$stage" failed "$took" "it ran past its limit of $seconds_left s" ;;
    *)
      [ "$took" -lt "$seconds_left" ] && why="exit code $code" || why="it ran past its limit of $seconds_left s"
      note "$stage" failed "$took" "$why; $(tail -n 1 "$out/$stage.log" | cut -c1-200)"
      ;;
  esac
  return $code
}

gpu=$(limited 60 "$node" "$bundle/device.mjs" cuda 2>"$out/device.log")
[ -n "$gpu" ] || [ -s "$out/device.log" ] || echo "the driver does not answer" >"$out/device.log"
[ -n "$gpu" ] && echo "GPU: $gpu" || echo "no GPU: $(cat "$out/device.log")"

needs_gpu() {
  [ -n "$gpu" ] && return 0
  note "$1" skipped 0 "no GPU: $(cat "$out/device.log")"
  return 1
}

has_torch() { # any: also one that sees no GPU
  limited 60 "$python" -c 'import torch, sys; sys.exit(0 if torch.cuda.is_available() or len(sys.argv) > 1 else 1)' "$@" \
    >/dev/null 2>&1
}

measure() { # stage share-of sizes folder environment...
  named=$1 part=$2 sizes=$3 folder=$4
  shift 4
  [ -z "$binary" ] || sizes=tiny
  mkdir -p "$folder"
  stage "$named" "$part" env "$@" "$node" "$app/benchmarks/cuda.mjs" --out "$folder" --sizes "$sizes" --seconds "$seconds" \
    --origin "$place/origin.json" ${only:+--only "$only"} ${binary:+--binary "$binary"}
}

# The sizes of the suite are too small for large tiles to be chosen.
tiles_pass() { # size
  stage "wgmma-$1" wgmma "$node" "$bundle/conformance.mjs" --out "$out/wgmma-$1.json" --tune "tiles=wgmma_$1" \
    --pattern '(linear|mlp).*f16'
}

# shellcheck disable=SC2086
set -- $stages
while [ $# -gt 0 ]; do
  name=$1 remaining=$*
  shift
  case $name in
    info)
      stage info info "$node" "$bundle/machine.mjs" "$place/origin.json"
      ;;
    cpu)
      stage cpu cpu "$node" "$bundle/goldens.mjs" --out "$out/cpu.json" --backend wasm --folder "$goldens"
      ;;
    conformance)
      needs_gpu conformance && stage conformance conformance "$node" "$bundle/conformance.mjs" --out "$out/conformance.json"
      ;;
    repeatability)
      needs_gpu repeatability &&
        stage repeatability repeatability "$node" "$bundle/repeatability.mjs" --out "$out/repeatability.json"
      ;;
    goldens)
      if needs_gpu goldens; then
        unseen=
        if [ -z "$more" ] && has_torch any; then
          unseen=$out/unseen
          limited "$(($(allowed goldens) / 2))" "$python" "$bundle/unseen.py" "$app/tools/goldens" "$unseen" \
            >"$out/unseen.log" 2>&1 || unseen=
        fi
        stage goldens goldens "$node" "$bundle/goldens.mjs" --out "$out/goldens.json" --backend cuda --folder "$goldens" \
          ${unseen:+--folder "$unseen"} ${more:+--folder "$more"}
      fi
      ;;
    tune)
      if needs_gpu tune; then
        stage tune-run tune "$node" "$app/benchmarks/cuda-tune.mjs" --out "$out" --origin "$place/origin.json" \
          ${only:+--only "$only"} ${binary:+--binary "$binary" --sizes tiny --samples 1}
        [ ! -f "$out/tune.txt" ] || cat "$out/tune.txt"
      fi
      ;;
    wgmma)
      needs_gpu wgmma &&
        stage wgmma wgmma env FLASH_MOE_WGMMA=1 "$node" "$bundle/conformance.mjs" --out "$out/wgmma.json" \
          --pattern '(linear|mlp|experts)' &&
        tiles_pass 128_by_128 && tiles_pass 128_by_256 &&
        measure wgmma-times wgmma first "$out/wgmma" FLASH_MOE_WGMMA=1
      ;;
    training)
      needs_gpu training && stage training training "$node" "$bundle/training.mjs"
      ;;
    sanitizer)
      if needs_gpu sanitizer; then
        tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
        if [ -z "$tool" ]; then
          note sanitizer skipped 0 "there is no compute-sanitizer"
        else
          stage sanitizer sanitizer "$node" "$bundle/sanitizer.mjs" "$tool" "$(allowed sanitizer)" "$out/sanitizer.json"
        fi
      fi
      ;;
    bench)
      needs_gpu bench &&
        stage bench bench "$node" "$bundle/bench.mjs" --out "$out/bench.json" --command "$flash_moe" \
          --seconds "$seconds" --preset decode --preset upstream --preset prefill
      ;;
    cuda)
      needs_gpu cuda && measure cuda-run cuda all "$out"
      ;;
    peers)
      if needs_gpu peers; then
        if ! has_torch; then
          note peers skipped 0 "$python has no PyTorch that sees a GPU"
        else
          folder=$out
          if [ -z "$(ls "$out/tensors" 2>/dev/null)" ]; then
            folder=$out/with-peers
            measure with-peers cuda peers "$folder"
          fi
          stage peers-run peers "$node" "$app/benchmarks/cuda-peers.mjs" --out "$folder" --python "$python" \
            --seconds "$seconds" --origin "$place/origin.json" ${only:+--only "$only"} \
            ${flash:+--flash-moe "$flash"} ${omni:+--omni-moe "$omni"}
        fi
      fi
      ;;
    webgpu)
      adapter=$(limited 60 "$node" "$bundle/device.mjs" webgpu 2>"$out/webgpu-device.log")
      if [ -z "$adapter" ]; then
        note webgpu skipped 0 "$(tail -n 1 "$out/webgpu-device.log")"
      else
        stage webgpu webgpu "$node" "$bundle/conformance.mjs" --backend webgpu --out "$out/webgpu.json"
        stage bench-webgpu webgpu "$node" "$bundle/bench.mjs" --out "$out/bench-webgpu.json" --command "$flash_moe" \
          --backend webgpu --seconds "$seconds" --preset small
      fi
      ;;
  esac
done

"$node" "$bundle/table.mjs" "$out" >"$out/table.txt" 2>&1
cat "$out/table.txt"
summary >"$out/summary.txt" 2>&1
code=$?
cat "$out/summary.txt"
pack_results now
exit $code
