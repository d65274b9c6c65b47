#!/usr/bin/env bash
# Compiles every kernels/*.cu with a real nvcc for the architectures below, warnings as errors, and reports what each kernel
# takes: registers, stack and spilled bytes. Fails if a file does not compile, if a kernel spills, or if the kernels are not
# those of kernels/registers.txt; differences in registers are printed.
#
#   scripts/check-kernels.sh             compare with kernels/registers.txt
#   scripts/check-kernels.sh --update    write kernels/registers.txt
#
# nvcc is the one of scripts/nvcc.sh.
# The options are those of every other compiler of the kernels: OPTIONS in src/device/sources.rs.
set -euo pipefail
cd "$(dirname "$0")/.."

archs=(sm_80 sm_90a sm_100)
table=kernels/registers.txt

case "${1:-}" in
  "" | --update) mode=${1:-compare} ;;
  *) echo "usage: scripts/check-kernels.sh [--update]" >&2; exit 2 ;;
esac

nvcc=$(scripts/nvcc.sh)
include=()
# The wheels' nvcc does not look into the folder beside its own.
beside=$(dirname "$(dirname "$nvcc")")/include
[ -d "$beside" ] && include=(-I "$beside")

# pub const OPTIONS: &[&str] = &["-std=c++17", "--fmad=false"];
mapfile -t options < <(sed -n 's/^pub const OPTIONS: .* = &\[\(.*\)\];$/\1/p' src/device/sources.rs | tr ',' '\n' | sed 's/^ *"//; s/" *$//')
if [ ${#options[@]} -eq 0 ]; then
  echo "src/device/sources.rs: no one-line OPTIONS found; this script reads the compiler's options from there" >&2
  exit 1
fi

out=target/check-kernels
rm -rf "$out"
mkdir -p "$out"
sources=(kernels/*.cu)
[ -e "${sources[0]}" ] || { echo "kernels/ has no .cu file" >&2; exit 1; }
"$nvcc" --version | tail -n 2 | head -n 1

compile() { # source arch
  local log="$out/$(basename "$1" .cu).$2.log"
  if "$nvcc" -cubin "-arch=$2" "${options[@]}" -O3 -lineinfo "${include[@]}" -Werror all-warnings -Xptxas -v \
      -o "${log%.log}.cubin" "$1" >"$log" 2>&1; then
    return 0
  fi
  touch "$log.failed"
}
running=0
for source in "${sources[@]}"; do
  for arch in "${archs[@]}"; do
    compile "$source" "$arch" &
    running=$((running + 1))
    if [ $running -ge "$(nproc)" ]; then
      wait -n
      running=$((running - 1))
    fi
  done
done
wait

status=0
for failed in "$out"/*.failed; do
  [ -e "$failed" ] || continue
  status=1
  log=${failed%.failed}
  echo "== $(basename "$log" .log) does not compile:" >&2
  head -n 30 "$log" >&2
done
[ $status -eq 0 ] || exit $status

# One line a kernel and architecture.
report() {
  cat "$out"/*.log | awk '
    /Compiling entry function/ { split($0, q, "\x27"); kernel = q[2]; arch = q[4] }
    /bytes stack frame/ { stack = $1; spill = $5 + $9 }
    /Used [0-9]+ registers/ && kernel != "" {
      for (i = 1; i < NF; i++) if ($i == "Used") registers = $(i + 1)
      printf "%-36s %-8s %9d %9d %9d\n", kernel, arch, registers, stack, spill
      kernel = ""
    }' | LC_ALL=C sort -k1,1 -k2,2V
}
report >"$out/report"
{
  printf '%-36s %-8s %9s %9s %9s\n' '# kernel' arch registers stack spill
  cat "$out/report"
} | tee "$out/table"

# Every kernel of every file is in the report, once an architecture.
declared=$(cat "${sources[@]}" | grep -cE '^[^/]*extern "C" __global__' || true)
reported=$(wc -l <"$out/report")
if [ "$reported" -ne $((declared * ${#archs[@]})) ] || [ "$reported" -eq 0 ]; then
  echo "$declared kernels are declared and ${#archs[@]} architectures compiled, but $reported lines reported" >&2
  exit 1
fi

spilled=$(awk '$5 > 0 { printf "  %s for %s: %d bytes\n", $1, $2, $5 }' "$out/report")
# A device function that is not inlined has its own line in the log and none in the report.
grep -hE '[1-9][0-9]* bytes spill' "$out"/*.log >/dev/null && spilled=${spilled:-  a device function: see $out/*.log}
if [ -n "$spilled" ]; then
  printf 'these kernels spill registers to memory:\n%s\n' "$spilled" >&2
  exit 1
fi

if [ "$mode" = --update ]; then
  cp "$out/table" "$table"
  echo "wrote $table"
  exit 0
fi
if [ ! -e "$table" ]; then
  echo "there is no $table: run scripts/check-kernels.sh --update and commit it" >&2
  exit 1
fi
names() { awk '!/^#/ { print $1, $2 }' "$1"; }
if ! difference=$(diff <(names "$table") <(names "$out/report")); then
  printf '%s is not of these kernels (< the table, > the sources): run scripts/check-kernels.sh --update and commit it\n%s\n' "$table" "$difference" >&2
  exit 1
fi
if ! difference=$(diff <(grep -v '^#' "$table") "$out/report"); then
  printf 'note: registers or stack differ from %s (< then, > now):\n%s\n' "$table" "$difference"
fi
echo "$declared kernels, no spills"
