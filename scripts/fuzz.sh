#!/usr/bin/env bash
# Fuzzes the parsers of everything that a user gives, guided by coverage: scripts/fuzz.sh [SECONDS] [TARGET...]
#
# Builds the targets of tests/fuzz with the address sanitizer, runs each for SECONDS (60; 0: builds and checks what the corpora hold), and
# prints what came of it; the exit status is 1 if there is a finding. Needs Rust, stable, and a C++ compiler (libFuzzer is C++). With a
# nightly Rust and cargo-fuzz, `cargo fuzz run --fuzz-dir tests/fuzz TARGET` runs the same targets.
#
# What is kept: target/fuzz/corpus/TARGET (grows from run to run) and target/fuzz/findings/TARGET-*. A finding again:
#   target/fuzz/x86_64-unknown-linux-gnu/release/TARGET FINDING
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=60
if [[ ${1:-} =~ ^[0-9]+$ ]]; then seconds=$1; shift; fi
all=(hdf5 npy npz table mtx png tiff intervals import dataset config model checkpoint sets words)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
  [[ " ${all[*]} " == *" $target "* ]] || { echo "there is no target $target; there are: ${all[*]}" >&2; exit 2; }
done

# The sanitizers' flags are unstable; RUSTC_BOOTSTRAP lets the stable compiler take them. `--cfg fuzzing` is what cargo-fuzz gives: the crates
# that read PNG and deflate then leave their checksums out, which no mutation would get past.
flags=(-Cpasses=sancov-module --cfg fuzzing -Zsanitizer=address -Ccodegen-units=1)
for part in level=4 inline-8bit-counters pc-table trace-compares; do flags+=("-Cllvm-args=-sanitizer-coverage-$part"); done
host=$(rustc -vV | sed -n 's/^host: //p')
work=$PWD/target/fuzz
RUSTC_BOOTSTRAP=1 RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$work \
  cargo build --quiet --locked --release --target "$host" --manifest-path tests/fuzz/Cargo.toml --bins

# Inputs become files, in memory where there is room for that. No file of an output may be larger than this, in KiB: one that is fails as a
# write to a full disk does, which no input may cause.
COUPLET_FUZZ_DIR=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" couplet-fuzz.XXXXXX)
trap 'rm -rf "$COUPLET_FUZZ_DIR"' EXIT
trap '' XFSZ
ulimit -f $((256 << 10))
export COUPLET_FUZZ_DIR RAYON_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0
programs=$work/$host/release
mkdir -p "$work/corpus" "$work/findings"
"$programs/seeds" "$work/corpus" tests/golden

status=0
printf '%-12s %10s %8s %7s %9s  %s\n' target runs seconds inputs coverage findings
for target in "${targets[@]}"; do
  log=$work/$target.log dictionary=tests/fuzz/dictionaries/$target.dict found=0 begun=$(date +%s)
  given=(-max_total_time="$seconds" -timeout=30 -rss_limit_mb=2048 -malloc_limit_mb=300 -handle_xfsz=0 -print_final_stats=1)
  given+=(-artifact_prefix="$work/findings/$target-")
  [ "$seconds" -gt 0 ] || given+=(-runs=0)
  [ ! -e "$dictionary" ] || given+=(-dict="$dictionary")
  "$programs/$target" "${given[@]}" "$work/corpus/$target" >"$log" 2>&1 || found=1
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(grep -o ' cov: [0-9]*' "$log" | tail -n 1 | tr -dc 0-9 || true)
  printf '%-12s %10s %8s %7s %9s  %s\n' "$target" "${runs:--}" $(($(date +%s) - begun)) "$(find "$work/corpus/$target" -type f | wc -l)" "${coverage:--}" $found
  if [ $found -ne 0 ]; then
    status=1
    grep -E 'panicked|^ *(assertion|left:|right:)|ERROR|SUMMARY|Test unit written' -A 1 "$log" | head -n 12 || true
  fi
done
exit $status
