#!/usr/bin/env bash
# Compiles every CUDA C++ source for every architecture that it is written for; needs no GPU, and no CUDA: the compiler
# comes from the package index, as wheels. Nothing is skipped: what can't be compiled fails.
set -euo pipefail
cd "$(dirname "$0")/.."
sources=src/execute/cuda/raw

lab=$(mktemp -d)
trap 'rm -rf "$lab"' EXIT
python3 -m venv "$lab/venv"
"$lab/venv/bin/pip" install --quiet --disable-pip-version-check \
  'nvidia-cuda-nvcc>=13,<14' 'nvidia-cuda-runtime>=13,<14' 'nvidia-cuda-crt>=13,<14' 'nvidia-nvvm>=13,<14' 'nvidia-cuda-cccl>=13,<14'
nvcc=$(find "$lab/venv" -path '*/bin/nvcc' | head -1)
test -x "$nvcc" || { echo "the wheels hold no nvcc"; exit 1; }

# A source, its macros; bfloat16 is compiled from sm_80 on.
jobs=()
for architecture in 75 80 89 90a; do
  for brain in 0 1; do
    [[ $architecture == 75 && $brain == 1 ]] && continue
    for macros in "delta TOKENS=1" "delta TOKENS=1 READS=1" "delta TOKENS=1 READS=2" "delta TOKENS=2" "delta TOKENS=4" \
      "octets OCTETS=11 CHUNKS=4 TILES=1 GRAIN=1" "octets OCTETS=4 CHUNKS=2 TILES=2 GRAIN=2" \
      "decode FUNCTION=4 STEPS=1 GROUP=16 ATTEND_WARPS=16" "decode FUNCTION=1 STEPS=4 GROUP=32 ATTEND_WARPS=8" \
      "likely WIDE_NUMBERS=0" "likely WIDE_NUMBERS=1" \
      "dense CHUNKS=2 ROWS=8 WARPS=8 READS=1" "dense CHUNKS=6 ROWS=2 WARPS=8 READS=2" "dense CHUNKS=8 ROWS=1 WARPS=16 READS=1" \
      "dense CHUNKS=2 ROWS=8 WARPS=8" "dense CHUNKS=6 ROWS=2 WARPS=8" "dense CHUNKS=8 ROWS=1 WARPS=16"; do
      jobs+=("$architecture $brain $macros")
    done
    [[ $architecture == 75 ]] && continue
    for macros in "DIM=128" "DIM=80 CAPPED=1" "DIM=256 BIASED=1"; do
      jobs+=("$architecture $brain flash $macros")
    done
    for macros in "TILES=1 DEEP=1 DOWN=1 STAGES=4" "TILES=4 DEEP=2 DOWN=1 STAGES=3" "TILES=8 DEEP=4 DOWN=2 STAGES=3"; do
      jobs+=("$architecture $brain nm $macros")
    done
    [[ $architecture == 90a ]] || continue
    for macros in "TOKENS=64 GROUPS=4 STAGES=8 GRAIN=1" "TOKENS=256 GROUPS=2 STAGES=4 GRAIN=2"; do
      jobs+=("$architecture $brain panels $macros")
    done
  done
done

compile() {
  read -r architecture brain source macros <<<"$1"
  # What spills registers is slow, not wrong: it is told.
  "$nvcc" -std=c++17 -Werror all-warnings -gencode "arch=compute_$architecture,code=sm_$architecture" -cubin \
    -include "$sources/common.cuh" -include "$sources/elements.cuh" "-DBRAIN_NUMBERS=$brain" $(for macro in $macros; do echo "-D$macro"; done) \
    -o "$lab/$(echo "$1" | tr ' =' '__').cubin" "$sources/$source.cu" || { echo "failed: $1"; return 1; }
}
export -f compile
export nvcc sources lab
printf '%s\n' "${jobs[@]}" | xargs -P "$(nproc)" -I{} bash -c 'compile "{}"'

# Users' kernels: what stands in front of them is as in src/execute/cuda/raw/own.rs.
for number in float __half __nv_bfloat16; do
  for file in experiments/arena/*.cu; do
    printf '#include <cuda_fp16.h>\n#include <cuda_bf16.h>\ntypedef %s number;\n#include "%s"\n' "$number" "$PWD/$file" >"$lab/own.cu"
    "$nvcc" -std=c++17 -gencode arch=compute_80,code=sm_80 -cubin -o "$lab/own.cubin" "$lab/own.cu" || { echo "failed: $file"; exit 1; }
  done
done

# Every source is among them.
for file in "$sources"/*.cu; do
  name=$(basename "$file" .cu)
  ls "$lab"/*_"$name"[_.]*cubin >/dev/null 2>&1 || { echo "$file is compiled by no line of $0"; exit 1; }
done
echo "${#jobs[@]} compiled"
