#!/bin/sh
# test_faiss.sh - the optional plug-ins of plugins/faiss.cpp: built, timed beside ours, right when they search widely.
. tests/cli/lib.sh
both="--plugin build/plugins/faiss_ivf.so --plugin build/plugins/faiss_hnsw.so"

run env MAKEFLAGS= make --no-print-directory plugins FAISS=
[ "$code" -eq 0 ] && [ "$(wc -l <"$work/out")" -eq 1 ] && grep -q 'apt-get install libfaiss-dev' "$work/out" && why="" || why="exit code $code: $(cat "$work/out" "$work/err")"
verdict plugins__without_faiss__says_what_to_install "$why"

if ! command -v g++ >/dev/null || { [ ! -e /usr/include/faiss/Index.h ] && [ ! -e /usr/local/include/faiss/Index.h ]; }; then
  skipped faiss__wide_search__finds_the_best_keys "no faiss/Index.h or no g++ (Debian: libfaiss-dev, g++)"
  exit $failed
fi
run env MAKEFLAGS= make --no-print-directory plugins
[ "$code" -eq 0 ] && why="" || why="exit code $code: $(cat "$work/err")"
verdict plugins__with_faiss__are_built "$why"

# Grouped heads and fewer queries than keys; the values of a sweep share their index.
run "$ICEBENCH_BIN" attn --synth clustered:h=2,hkv=1,n=100,nk=1000,d=16,seed=1 --rounds 1 --threads 2 --format json --out "$work/o" $both \
  --methods dense,faiss_ivf,faiss_hnsw --set 'faiss_ivf.k=10,faiss_ivf.nprobe=1|1000,faiss_hnsw.k=10,faiss_hnsw.ef=10|500'
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
is "$(field "$work/out" 3 recall) > 0.999 && $(field "$work/out" 5 recall) > 0.99" || why="$why wide: recall $(field "$work/out" 3 recall), $(field "$work/out" 5 recall)"
is "$(field "$work/out" 2 recall) < $(field "$work/out" 3 recall)" || why="$why one list: recall $(field "$work/out" 2 recall)"
is "$(field "$work/out" 3 pairs) == 2 * 100 * (1000 + 126)" || why="$why pairs: $(field "$work/out" 3 pairs)" # all keys, all of 4 sqrt(1000) centroids
is "$(field "$work/out" 4 pairs) > 0 && 2 * $(field "$work/out" 4 pairs) < $(field "$work/out" 5 pairs)" || why="$why a wider search looks at no more: $(field "$work/out" 4 pairs), $(field "$work/out" 5 pairs)"
for f in faiss_ivf@nprobe=1 faiss_ivf@nprobe=1000 faiss_hnsw@ef=10 faiss_hnsw@ef=500; do
  [ -s "$work/o/$f.o.npy" ] && [ "$(wc -c <"$work/o/$f.idx.npy")" -eq $((128 + 2 * 100 * 10 * 4)) ] || why="$why $f: $(ls -l "$work/o")"
done
verdict faiss__wide_search__finds_the_best_keys "$why"

# All keys: nothing but softmax attention. More lists and keys asked for than there are.
run "$ICEBENCH_BIN" attn --synth clustered:h=2,n=40,d=8,seed=2 --rounds 1 --threads 1 --format json $both --methods dense,faiss_ivf,faiss_hnsw \
  --set faiss_ivf.k=1000,faiss_ivf.nlist=5000,faiss_ivf.nprobe=5000,faiss_hnsw.k=40,faiss_hnsw.ef=1000
why=""
[ "$code" -eq 0 ] || why="exit code $code: $(cat "$work/err")"
for i in 2 3; do is "$(field "$work/out" $i rel_l2_error) < 1e-5 && $(field "$work/out" $i mass) > 0.99999" || why="$why row $i: $(field "$work/out" $i rel_l2_error), $(field "$work/out" $i mass)"; done
verdict faiss__all_keys__is_exact "$why"
exit $failed
