#!/usr/bin/env bash
# One training step, couplet against another program that prints the same JSON, in turn so that a machine's moods meet both alike.
#
#   scripts/compare-step.sh "PROGRAM [ARGUMENTS]" [-- OPTIONS FOR BOTH]
#   scripts/compare-step.sh "env/bin/python step_torch.py" -- --threads 1
#
# Environment: SHAPE (patchseq), MODEL (coupled), ROUNDS (5), STEPS (300), COUPLET (target/release/couplet),
# COUPLET_OPTIONS and PEER_OPTIONS (options for one of the two only, for example each one's best number of threads).
# Prints every round, the medians of the rounds' medians, and peer / couplet: how many times faster couplet is. Exit status 2 if either fails.
set -euo pipefail

if [[ $# -lt 1 || $1 == -h || $1 == --help ]]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 2
fi
read -ra peer <<<"$1"
shift
[[ ${1:-} == -- ]] && shift
couplet=${COUPLET:-target/release/couplet}
[[ -x $couplet ]] || { echo "$0: $couplet is not there: run cargo build --release, or say COUPLET=PATH" >&2; exit 2; }
read -ra couplet_options <<<"${COUPLET_OPTIONS:-}"
read -ra peer_options <<<"${PEER_OPTIONS:-}"
shape=${SHAPE:-patchseq} steps=${STEPS:-300} rounds=${ROUNDS:-5}

ours=() theirs=()
median_of_step() { # the last line of what a program printed is its JSON
    python3 -c 'import json, sys
try:
    print(json.loads(sys.stdin.read().strip().splitlines()[-1])["ms_median"])
except (IndexError, ValueError, KeyError):
    sys.exit("'"$1"' printed no JSON object with ms_median as its last line")'
}
for ((round = 1; round <= rounds; round++)); do
    a=$("$couplet" bench step --model "${MODEL:-coupled}" --shape "$shape" --steps "$steps" --json "$@" "${couplet_options[@]}" | median_of_step couplet) || exit 2
    b=$("${peer[@]}" --shape "$shape" --steps "$steps" "$@" "${peer_options[@]}" | median_of_step "the peer") || exit 2
    ours+=("$a") theirs+=("$b")
    printf 'round %d   couplet %9.4f ms   peer %9.4f ms   load %s\n' "$round" "$a" "$b" "$(cut -d' ' -f1 /proc/loadavg)"
done
python3 - "${ours[@]}" "${theirs[@]}" <<'END'
import statistics, sys
times = list(map(float, sys.argv[1:]))
ours, theirs = times[: len(times) // 2], times[len(times) // 2 :]
a, b = statistics.median(ours), statistics.median(theirs)
print(f"median    couplet {a:9.4f} ms   peer {b:9.4f} ms   peer / couplet {b / a:.2f}")
END
