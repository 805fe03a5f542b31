#!/usr/bin/env bash
# Retrains on the log of today from the published run, and publishes the model unless it is worse.
#
#   examples/nightly.sh LOG RUNS MODELS [--flag=value …]   flags go to trainers.main; they stay the same every night
#   examples/nightly.sh --rollback RUNS MODELS             takes the newest version back
#
# Exit status: 0 published, or nothing to do; 3 held back; 2 a mistake, one line on stderr; 130 interrupted. A night that
# was killed goes on when the same command is given again on the same day. RUNS/published names the published runs, the
# newest last: the next night starts from it.
set -euo pipefail
keep=${KEEP_VERSIONS:-7}
fail() { echo "Error: $1" >&2; exit 2; }
[ $# -ge 3 ] || fail "usage: $0 LOG RUNS MODELS [--flag=value …], or $0 --rollback RUNS MODELS"
published() { [ ! -s "$1/published" ] || tail -n 1 "$1/published"; }

if [ "$1" = --rollback ]; then
  runs=$2 models=$3
  newest=$(ls "$models" | grep -E '^[0-9]+$' | sort -n | tail -n 1) || fail "$models has no version."
  mv "$models/$newest" "$models/.rolled-back-$newest"  # a server sees it go at once, and loads the one before
  rm -r "$models/.rolled-back-$newest"
  sed -i '$ d' "$runs/published"
  echo "Took back $models/$newest. The next night starts from: $(published "$runs")"
  exit
fi

log=$1 runs=$2 models=$3
shift 3
mkdir -p "$runs"
run=$runs/${NIGHT:-$(date +%F)}
before=$(published "$runs")
[ "$before" != "$run" ] || { echo "$run is published already."; exit 0; }
python -m trainers.main --data="$log" --workdir="$run" --user_draws=hashed ${before:+--warm_start="$before"} "$@"
python -m export.main --workdir="$run" --export_dir="$models" --if_better --keep_versions="$keep"
echo "$run" >> "$runs/published"
