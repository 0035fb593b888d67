# icebench - build, test, run. `make help` lists the targets; VARIANT=release|debug|asan|tsan picks the build
# folder, V=1 shows commands. Sources are found by wildcard: a new file needs no line here.

VARIANT ?= release
B       ?= build/$(VARIANT)
PREFIX  ?= /usr/local
CC      ?= gcc
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)

WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion -Wvla -Wundef
CPPFLAGS := -I. -I$(B)/gen -D_GNU_SOURCE $(shell pkg-config --cflags openblas sqlite3 yaml-0.1 jansson libarchive libcurl libmd libpng cmocka 2>/dev/null)
CFLAGS_release := -O3 -g -DNDEBUG
CFLAGS_debug   := -O1 -g3
CFLAGS_asan    := -O1 -g3 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DICE_SANITIZED
CFLAGS_tsan    := -O1 -g3 -fsanitize=thread -DICE_SANITIZED
CFLAGS_fuzz    := -O1 -g3 -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -DICE_SANITIZED
CFLAGS   := -std=c17 $(WARN) -ffp-contract=off -fopenmp $(CFLAGS_$(VARIANT)) $(EXTRA_CFLAGS)
LDLIBS   := $(shell pkg-config --libs openblas sqlite3 yaml-0.1 jansson libarchive libcurl libmd libpng 2>/dev/null) -lz -lm
CMOCKA   := -lcmocka

LIBSRC  := $(filter-out harness/main.c,$(wildcard kernels/*.c kernels/*/*.c baselines/*.c models/*.c datasets/*.c harness/*.c harness/*/*.c))
LIBOBJ  := $(LIBSRC:%.c=$(B)/%.o) $(B)/gen/sql.o $(B)/gen/assets.o
TESTSRC := $(wildcard tests/unit/test_*.c tests/property/test_*.c tests/regression/test_*.c)
TESTBIN := $(TESTSRC:%.c=$(B)/%)
TESTLIB := $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))
FUZZSRC := $(wildcard tests/fuzz/fuzz_*.c)
REPLAY  := $(FUZZSRC:%.c=$(B)/%.replay)
VERSION := $(shell cat VERSION 2>/dev/null || echo 0)

.PHONY: all deps test check-tests golden quickstart bench bench-gate bench-noise plugins man install uninstall asan tsan fuzz fault deb format clean help FORCE
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

all: $(B)/icebench ## build the program (build/release/icebench)

# One flag set per instruction set: only these files may contain such instructions.
$(B)/kernels/micro/isa_avx2.o:   ISA := -mavx2 -mfma
$(B)/kernels/micro/isa_avx512.o: ISA := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512
$(B)/kernels/micro/isa_avx512vnni.o: ISA := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx512vnni -mfma -mprefer-vector-width=512

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -MMD -MP $(CFLAGS) $(ISA) -c -o $@ $<

# Rebuild when compiler or flags change; version.h changes only when its content does.
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CPPFLAGS) $(CFLAGS)' | cmp -s - $@ || echo '$(CC) $(CPPFLAGS) $(CFLAGS)' > $@

$(B)/gen/version.h: FORCE
	@mkdir -p $(@D)
	@{ echo '#define ICE_VERSION "$(VERSION)"'; \
	   echo "#define ICE_GIT_COMMIT \"$$(git rev-parse HEAD 2>/dev/null || echo unknown)\""; \
	   echo "#define ICE_GIT_DIRTY $$(git diff --quiet HEAD 2>/dev/null && echo 0 || echo 1)"; \
	   echo "#define ICE_GIT_DIFF \"$$(git diff --quiet HEAD 2>/dev/null || git diff HEAD 2>/dev/null | sha256sum | cut -c 1-64)\""; \
	   echo '#define ICE_VARIANT "$(VARIANT)"'; \
	   echo "#define ICE_COMPILER \"$$($(CC) --version | head -n 1 | tr -d '\"\\\\')\""; \
	   echo '#define ICE_CFLAGS "$(subst ",,$(CFLAGS))"'; } > $@.new; \
	 if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
$(LIBOBJ) $(B)/harness/main.o: | $(B)/gen/version.h

# Text files become C strings. \? keeps trigraphs out.
AS_STRING := sed 's/\\/\\\\/g; s/"/\\"/g; s/?/\\?/g; s/.*/"&\\n"/'

# Schema migrations become one C table, in order of their numbers.
$(B)/gen/sql.c: $(wildcard harness/sql/*.sql) Makefile
	@mkdir -p $(@D)
	@{ echo '#include "harness/sql.h"'; echo 'const char *const store_migrations[] = {'; \
	   for f in $(sort $(filter %.sql,$^)); do $(AS_STRING) $$f; echo ','; done; \
	   echo '0};'; } > $@
# Style and scripts of the HTML report: one string each, named after its file (report.css is asset_report_css).
$(B)/gen/assets.c: $(wildcard harness/html/*) Makefile
	@mkdir -p $(@D)
	@{ echo '#include "harness/assets.h"'; \
	   for f in $(sort $(filter harness/html/%,$^)); do echo "const char asset_$$(basename $$f | tr . _)[] ="; $(AS_STRING) $$f; echo ';'; done; } > $@
$(B)/gen/%.o: $(B)/gen/%.c
	$(Q)$(CC) $(CPPFLAGS) -MMD -MP $(CFLAGS) -c -o $@ $<

$(B)/libicebench.a: $(LIBOBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(B)/icebench: $(B)/harness/main.o $(B)/libicebench.a
	$(Q)$(CC) $(CFLAGS) -rdynamic -o $@ $< -Wl,--whole-archive $(B)/libicebench.a -Wl,--no-whole-archive $(LDLIBS) -ldl
$(B)/tests/%: $(B)/tests/%.o $(TESTLIB) $(B)/libicebench.a
	$(Q)$(CC) $(CFLAGS) -o $@ $< $(TESTLIB) $(B)/libicebench.a $(LDLIBS) $(CMOCKA)
$(B)/tests/fuzz/%.replay: $(B)/tests/fuzz/%.o $(B)/tests/fuzz/replay.o $(TESTLIB) $(B)/libicebench.a
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS) $(CMOCKA)
$(B)/tests/fuzz/%.fuzzer: $(B)/tests/fuzz/%.o $(TESTLIB) $(B)/libicebench.a
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS) $(CMOCKA)

deps: ## install what is missing from packages.txt (Debian; root or sudo)
	@tests/deps.sh packages.txt

test: deps ## install what is missing, build, run every test
	@$(MAKE) --no-print-directory check-tests

check-tests: $(B)/icebench $(TESTBIN) $(REPLAY) ## run the tests without looking for packages (TEST=name filters)
	@B=$(B) tests/run.sh $(TEST)

QUICK_DATA := datasets/data/lra/listops-1000
QUICK_DB   := results/quickstart.db
# Its own cases, whatever data there are. They take no time to make.
QUICK_LINES := build/data
quickstart: deps ## install what is missing, build, run ListOps and LongEval lines; tables and charts
	@$(MAKE) --no-print-directory all
	@# Made when absent or half made. Files without a generated.json are official ones, which stay.
	@if test -e $(QUICK_DATA)/generated.json; then grep -q '"complete": true' $(QUICK_DATA)/generated.json; \
	  else test -e $(QUICK_DATA)/basic_test.tsv; fi || $(B)/icebench data make lra/listops --seed 7 --examples 2000 --out datasets/data
	@$(B)/icebench run configs/quickstart.yaml --db $(QUICK_DB)
	@$(B)/icebench report --experiment quickstart --allow-mixed --db $(QUICK_DB)
	@$(B)/icebench plot --experiment quickstart --db $(QUICK_DB) --out plots/out
	@if [ -d models/checkpoints/icelm ]; then \
	  $(B)/icebench data make longeval/lines --seed 7 --lengths 200 --examples 6 --out $(QUICK_LINES) -q && \
	  ICEBENCH_DATA_DIR=$(QUICK_LINES) $(B)/icebench run configs/quickstart-lines.yaml --db $(QUICK_DB) && \
	  $(B)/icebench report --experiment quickstart-lines --allow-mixed --db $(QUICK_DB); \
	else echo "LongEval lines: left out, models/checkpoints/icelm is not there yet"; fi
	@echo "rows: $(QUICK_DB), view results; charts: plots/out/; again, or with other settings: icebench run --help"

# OpenBLAS picks its kernels itself here: what somebody exported for a comparison must not decide a benchmark.
BENCH_DB := results/bench.db
BENCH    := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(B)/icebench
# Cells beyond their time or memory are rows of the grid (exit code 3), not a reason to stop.
bench: all ## time every attention over n = 1k..256k and draw it (about an hour; goes on where it stopped; BENCH_ARGS: options of run)
	@for f in grid frontier; do $(BENCH) run configs/bench/$$f.yaml --db $(BENCH_DB) $(BENCH_ARGS) || test $$? -eq 3 || exit 1; done
	@$(BENCH) report --allow-mixed --db $(BENCH_DB)
	@$(BENCH) plot --db $(BENCH_DB) --out plots/out

bench-gate: all ## measure what the kernels are meant to reach (configs/bench/aims.yaml): a benchmark, not a test
	@$(BENCH) gate configs/bench/aims.yaml --db $(BENCH_DB)

bench-noise: all ## try the instrument: calibrate, 50 comparisons of equal runs, 20 with an injected slowdown of 5 % (minutes; a quiet machine)
	@ICEBENCH_BIN=$(B)/icebench tests/bench/noise.sh all

# Optional, never part of the program: other people's searches as plug-ins of `attn`.
FAISS := $(if $(shell command -v $(CXX)),$(wildcard /usr/include/faiss/Index.h /usr/local/include/faiss/Index.h))
plugins: $(if $(FAISS),build/plugins/faiss_ivf.so build/plugins/faiss_hnsw.so) ## build faiss as plug-ins of attn, where libfaiss-dev is installed (build/plugins)
	@$(if $(FAISS),ls $^,echo "plugins: faiss/Index.h or $(CXX) is missing: apt-get install libfaiss-dev g++")
build/plugins/faiss_hnsw.so: FAISS_KIND := -DFAISS_HNSW
build/plugins/faiss_%.so: plugins/faiss.cpp kernels/attn.h kernels/core/status.h
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 -O3 -g -Wall -Wextra -I. $(FAISS_KIND) -fopenmp -fPIC -shared -o $@ $< -lfaiss $(shell pkg-config --libs openblas)

SHARE := $(DESTDIR)$(PREFIX)/share/icebench
man: $(B)/man/icebench.1 ## manual pages and completion of bash, from the texts of --help (build/release/man)
$(B)/man/icebench.1: $(B)/icebench harness/icebench.1 $(wildcard packaging/*.awk) packaging/pages.sh
	@packaging/pages.sh $(B)/icebench $(B)/man "$(VERSION)"

install: all man ## install program, manual pages, completion, experiments, checkpoints and tapes (PREFIX=/usr/local, DESTDIR=)
	install -D -m 755 $(B)/icebench $(DESTDIR)$(PREFIX)/bin/icebench
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(B)/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -D -m 644 $(B)/man/icebench.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/icebench
	@for f in docs/plugin.c kernels/attn.h $$(find configs plots models/checkpoints models/tapes results/paper -type f -not -path 'plots/out/*' -not -name '*.state'); do \
	  install -D -m $$(test -x $$f && echo 755 || echo 644) $$f $(SHARE)/$$f || exit 1; done

uninstall: ## remove what install put there
	rm -rf $(DESTDIR)$(PREFIX)/bin/icebench $(DESTDIR)$(PREFIX)/share/man/man1/icebench.1 $(DESTDIR)$(PREFIX)/share/man/man1/icebench-*.1 \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions/icebench $(SHARE)

deb: all man ## a Debian package (build/release/deb/icebench_VERSION_ARCH.deb); lintian looks at it where it is installed
	@deb=$$(packaging/deb.sh $(B) $(VERSION)) && echo $$deb && if command -v lintian >/dev/null; then lintian --fail-on error,warning $$deb; fi

asan: ## tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory VARIANT=asan check-tests

tsan: ## tests under ThreadSanitizer (clang-14 with its OpenMP library and tool: clang-14, libomp-14-dev)
	@OMP_TOOL_LIBRARIES=$(wildcard /usr/lib/llvm-14/lib/libarcher.so) TSAN_OPTIONS=ignore_noninstrumented_modules=1 \
	  $(MAKE) --no-print-directory VARIANT=tsan CC=clang-14 check-tests

FUZZ_SECONDS ?= 60
fuzz: ## every fuzz target for FUZZ_SECONDS (clang-14); new inputs go to build/fuzz/found
	@$(MAKE) --no-print-directory VARIANT=fuzz CC=clang-14 $(FUZZSRC:%.c=build/fuzz/%.fuzzer)
	@for f in $(basename $(notdir $(FUZZSRC))); do mkdir -p build/fuzz/found/$$f; \
	  build/fuzz/tests/fuzz/$$f.fuzzer -max_total_time=$(FUZZ_SECONDS) -print_final_stats=0 build/fuzz/found/$$f tests/fuzz/corpus/$$f || exit 1; done

FAULTS ?= 200
fault: $(B)/icebench ## kill run, merge and migration FAULTS times each (200), fill the disk, move the clock
	@FAULTS=$(FAULTS) B=$(B) tests/run.sh cli/test_fault

format: ## lay out the sources with clang-format
	clang-format -i $$(git ls-files '*.c' '*.h')

golden: $(B)/tests/regression/test_golden $(B)/tests/regression/test_report_golden ## write the golden files of tests/regression anew; review the difference
	@$< --write tests/regression/golden.csv
	@$(B)/tests/regression/test_report_golden --write tests/regression

help: ## this list
	@awk -F':.*## ' '/^[a-z_.-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

clean: ## remove everything built
	rm -rf build

-include $(LIBOBJ:.o=.d) $(TESTBIN:=.d) $(TESTLIB:.o=.d) $(FUZZSRC:%.c=$(B)/%.d) $(B)/harness/main.d
