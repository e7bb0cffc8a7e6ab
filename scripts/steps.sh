# shellcheck shell=bash
# What the scripts here share: messages, numbered steps with their times, the table at the end. Sourced, never run.

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    BOLD=$'\e[1m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
    BOLD='' RED='' PLAIN=''
fi

say() { printf '%s\n' "$*"; }
warn() { printf '%swarning:%s %s\n' "$BOLD" "$PLAIN" "$*" >&2; }

# die MESSAGE [NEXT STEP]
die() {
    printf '%serror:%s %s\n' "$RED" "$PLAIN" "$1" >&2
    [[ $# -lt 2 ]] || printf '  next: %s\n' "$2" >&2
    exit 1
}

# The comment block at the head of the calling script is its --help.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

now_ms() { date +%s%3N; }
seconds() { printf '%d.%d' "$(($1 / 1000))" "$(($1 % 1000 / 100))"; }

STEP_NAMES=() STEP_STATES=() STEP_TIMES=()

# step NAME COMMAND...: runs it in a subshell that ends at its first error, notes time and outcome, and goes on
# (steps_report says at the end what failed).
step() {
    local name=$1 start status=0
    shift
    printf '\n%s==> %s%s\n' "$BOLD" "$name" "$PLAIN"
    start=$(now_ms)
    # Not `"$@" || status=$?`: there the shell would not stop at errors inside a function.
    set +e
    (
        set -e
        "$@"
    )
    status=$?
    set -e
    note_step "$name" "$status" "$(($(now_ms) - start))"
    [[ $status -eq 0 ]] || printf '%serror:%s %s: exit %d\n' "$RED" "$PLAIN" "$name" "$status" >&2
    return 0
}

# must_step NAME COMMAND...: a step without which the later ones make no sense.
must_step() {
    step "$@"
    [[ ${STEP_STATES[-1]} == ok ]] || {
        steps_report
        exit 1
    }
}

note_step() {
    STEP_NAMES+=("$1")
    STEP_TIMES+=("$3")
    if [[ $2 -eq 0 ]]; then STEP_STATES+=(ok); else STEP_STATES+=(FAILED); fi
}

# Prints the table; its status is whether every step passed.
steps_report() {
    local i total=0 failed=0
    printf '\n%s%-44s %8s  %s%s\n' "$BOLD" step seconds result "$PLAIN"
    for i in "${!STEP_NAMES[@]}"; do
        printf '%-44s %8s  %s\n' "${STEP_NAMES[i]}" "$(seconds "${STEP_TIMES[i]}")" "${STEP_STATES[i]}"
        total=$((total + STEP_TIMES[i]))
        [[ ${STEP_STATES[i]} == ok ]] || failed=$((failed + 1))
    done
    printf '%-44s %8s\n' total "$(seconds "$total")"
    [[ $failed -eq 0 ]]
}
