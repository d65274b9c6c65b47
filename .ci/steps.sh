# Sourced by .ci/run: runs its steps one by one, times them, counts, and says what came of it.

passed=0 failed=0 skipped=0
lines=()

# step NAME TITLE one|tests [the names asked for on the command line]
# Runs the function NAME in a shell of its own that stops at the first error, its output in $logs/NAME.log.
step() {
  local name=$1 title=$2 counts=$3 log="$logs/$1.log" status=0 begun seconds
  shift 3
  if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then return 0; fi
  asked=$((${asked:-0} + 1))
  echo
  echo "=== $name: $title"
  begun=$(date +%s)
  # Neither `if` nor `||` around it: in those, the shell does not stop at an error.
  set +e
  (set -euo pipefail; "$name") >"$log" 2>&1 </dev/null
  status=$?
  set -e
  seconds=$(($(date +%s) - begun))

  local p=0 f=0 s=0 r
  if [ "$counts" = tests ]; then
    r=$(awk '/^test result: / { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") p += $i; if ($(i + 1) == "failed;") f += $i; if ($(i + 1) == "ignored;") s += $i } }
             END { print p + 0, f + 0, s + 0 }' "$log")
    read -r p f s <<<"$r"
    # A test that skipped itself is passed for the test program. Each test prints its reason once.
    r=$(grep -c '^skipped: ' "$log" || true)
    p=$((p - r)) s=$((s + r))
    if [ $status -eq 0 ] && [ $p -le 0 ]; then
      echo "no test ran" >>"$log"
      status=1
    fi
  fi
  if [ $status -ne 0 ] && [ $f -eq 0 ]; then
    f=1
  elif [ "$counts" = one ]; then
    p=1
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))

  if [ $status -eq 0 ]; then
    tail -n 3 "$log"
  else
    tail -n 200 "$log"
  fi
  if [ $s -gt 0 ]; then
    echo "skipped here:"
    { grep '^skipped: ' "$log" || true; } | sort | uniq -c
    grep -E '^test .* \.\.\. ignored' "$log" || true
  fi
  local word=ok
  [ $status -eq 0 ] || word=FAILED
  lines+=("$(printf '%-6s %5d s  %-16s %d passed, %d failed, %d skipped' $word $seconds "$name" $p $f $s)")
  echo "--- $word after $seconds s"
}

# summary [the names asked for]
summary() {
  if [ $# -gt 0 ] && [ "${asked:-0}" -ne $# ]; then
    echo "not every one of these is a step: $*"
    failed=$((failed + 1))
  fi
  printf '\n=== summary\n'
  [ ${#lines[@]} -eq 0 ] || printf '%s\n' "${lines[@]}"
  echo "$passed passed, $failed failed, $skipped skipped"
  [ $failed -eq 0 ] || exit 1
}
