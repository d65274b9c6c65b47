#!/usr/bin/env bash
# Packs what a machine with a GPU and without Rust needs to test and measure this tree: the program, the test and the benchmark
# executables, the tests' data and a script that runs them all.
#
#   scripts/pack-gpu.sh [FOLDER]         default: target/gpu
#   then, on the other machine           bash FOLDER/run-on-gpu.sh [RESULTS]
#
# The kernels are compiled ahead (scripts/nvcc.sh), so nothing is compiled there.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-target/gpu}
most_bytes=$((64 << 20))
if [ -e "$folder" ] && [ ! -e "$folder/run-on-gpu.sh" ]; then
  echo "$folder is there and is not a pack of this script: name another folder" >&2
  exit 1
fi
rm -rf "$folder"
mkdir -p "$folder/tests" "$folder/benches"

NVCC=$(scripts/nvcc.sh)
export NVCC
unset COUPLET_NO_NVCC COUPLET_ASAN

# The executables that cargo names for these targets: kind, name, path.
executables() { # cargo arguments
  cargo "$@" --message-format json-render-diagnostics | python3 -c 'import json, sys
for line in sys.stdin:
    built = json.loads(line) if line.startswith("{") else {}
    if built.get("executable"):
        print(built["target"]["kind"][0], built["target"]["name"], built["executable"])'
}

executables build --release --bin couplet >"$folder/built"
executables test --no-run --features emulated >>"$folder/built"
executables bench --no-run >>"$folder/built"
tests=0
while read -r kind name path; do
  case "$kind-$path" in
    bin-*/release/couplet) to=couplet ;;
    bench-*) to=benches/$name ;;
    # Unit tests of the library, and the files of tests/.
    lib-*/debug/* | test-*) to=tests/$name; tests=$((tests + 1)) ;;
    *) continue ;;
  esac
  cp "$path" "$folder/$to"
  strip "$folder/$to"
done <"$folder/built"
rm "$folder/built"
[ -e "$folder/couplet" ] && [ $tests -gt 0 ] || { echo "cargo named no program or no tests" >&2; exit 1; }

# Tests find their data by these paths, as they do where cargo runs them.
cp -r tests/golden "$folder/tests/golden"
{ git rev-parse HEAD && git status --short; } >"$folder/revision" 2>/dev/null || true

cat >"$folder/run-on-gpu.sh" <<'END'
#!/usr/bin/env bash
# Tests and measures what lies beside this file on the GPU of this machine: bash run-on-gpu.sh [RESULTS]
# RESULTS (default: results) gets devices.txt, tests.log, sanitizer.log, kernels.json, step.json and summary.txt.
set -uo pipefail
results=$(mkdir -p "${1:-results}" && cd "${1:-results}" && pwd) || exit 1
cd "$(dirname "$0")" || exit 1
summary=$results/summary.txt
: >"$summary"
failed=0
# A test that needs a GPU fails here instead of skipping. Tests that run the program find it by this name.
export COUPLET_REQUIRE_GPU=1 CARGO_MANIFEST_DIR=$PWD CARGO_BIN_EXE_couplet=$PWD/couplet
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$results/cache}

note() { echo "$*" | tee -a "$summary"; }
run() { # name log command...
  local name=$1 log=$results/$2 begun status
  shift 2
  begun=$(date +%s)
  "$@" >>"$log" 2>&1
  status=$?
  if [ $status -eq 0 ]; then note "ok      $name, $(($(date +%s) - begun)) s"; else note "FAILED  $name, status $status"; tail -n 40 "$log"; failed=$((failed + 1)); fi
}
# Standard output is the data, one JSON object a line; standard error goes to the screen.
measure() { # file command...
  local file=$results/$1
  shift
  if "$@" >>"$file"; then note "ok      $*"; else note "FAILED  $*"; failed=$((failed + 1)); fi
}

head -n 1 revision 2>/dev/null | tee -a "$summary"
rm -f "$results"/{devices.txt,tests.log,sanitizer.log,kernels.json,step.json}
run devices devices.txt ./couplet devices
cat "$results/devices.txt"
grep -q '^cuda:0 *yes' "$results/devices.txt" || { note "FAILED  no GPU answers"; exit 1; }
for test in tests/*; do
  [ -f "$test" ] && [ -x "$test" ] && run "$test" tests.log "$test" --show-output
done
grep '^test result' "$results/tests.log" | tee -a "$summary"
sanitizer=$(command -v compute-sanitizer || ls -d /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
if [ -n "$sanitizer" ]; then
  run "compute-sanitizer, memory" sanitizer.log "$sanitizer" --tool memcheck --error-exitcode 9 tests/couplet --test-threads 1 kernels_agree on_the_gpu
else
  note "skipped compute-sanitizer: it is not in PATH nor in /usr/local/cuda*/bin"
fi
measure kernels.json ./couplet bench kernels --device cuda --json
for precision in f32 tf32 bf16; do
  measure step.json ./couplet bench step --model coupled --shape patchseq --device cuda --precision "$precision" --json
done
note "$failed failed"
[ $failed -eq 0 ]
END
chmod +x "$folder/run-on-gpu.sh"

bytes=$(du -sb "$folder" | cut -f1)
(cd "$folder" && find . -type f -size +100k -printf '%10s  %P\n' | sort -k2)
echo "$folder: $((bytes >> 20)) MiB, $tests test executables"
if [ "$bytes" -ge $most_bytes ]; then
  echo "$folder is larger than $((most_bytes >> 20)) MiB" >&2
  exit 1
fi
