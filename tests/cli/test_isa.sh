#!/bin/sh
# test_isa.sh - the tests of models and attention once more under every instruction set but the best, which the others use.
. tests/cli/lib.sh
tests=${ICEBENCH_BIN%/icebench}/tests
for isa in scalar avx2; do
  for test in unit/test_dense_train unit/test_encoder unit/test_gradients property/test_attn property/test_limits property/test_dci; do
    name=${test##*/test_}
    if ! ATTN_ISA=$isa "$ICEBENCH_BIN" list methods >/dev/null 2>"$work/err"; then
      skipped "isa__${name}__$isa" "$(cat "$work/err")"
      continue
    fi
    run env ATTN_ISA=$isa "$tests/$test"
    why=""
    [ "$code" -eq 0 ] || why=$(grep -e ERROR -e FAILED "$work/out" "$work/err")
    verdict "isa__${name}__$isa" "$why"
  done
done
exit $failed
