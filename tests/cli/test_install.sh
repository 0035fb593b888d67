#!/bin/sh
# test_install.sh - `make install` puts a program that works alone below PREFIX, and `make uninstall` takes all of it away.
. tests/cli/lib.sh
root="$work/root"
b=${ICEBENCH_BIN%/icebench}
install_to() { make --no-print-directory "$1" B="${b#"$PWD"/}" DESTDIR="$root" PREFIX=/opt/ice >"$work/log" 2>&1; }

install_to install && why="" || why="$(tail -n 5 "$work/log")"
program="$root/opt/ice/bin/icebench"
for file in share/man/man1/icebench.1 share/man/man1/icebench-run.1 share/bash-completion/completions/icebench share/icebench/configs/quickstart.yaml \
  share/icebench/kernels/attn.h share/icebench/docs/plugin.c; do
  [ -s "$root/opt/ice/$file" ] || why="$why no $file"
done
cd "$work"
"$program" check "$root/opt/ice/share/icebench/configs/quickstart.yaml" -q >"$work/out" 2>&1 || why="$why check: $(cat "$work/out")"
[ -n "$("$program" list configs)" ] && [ -n "$("$program" list models)" ] || why="$why it does not find its folder"
"$program" list models | grep -q "$OLDPWD" && why="$why it looks into the source tree"
cd "$OLDPWD"
find "$root" -type f -perm /022 | grep . && why="$why files that others may write"
verdict install__below_a_prefix__works_alone "$why"

install_to uninstall && why="" || why="$(tail -n 5 "$work/log")"
[ -z "$(find "$root" -type f)" ] || why="$why left: $(find "$root" -type f | head -3)"
verdict uninstall__after_install__leaves_no_file "$why"

name=deb__unpacked__works_and_lintian_is_content
if command -v dpkg-deb >/dev/null && command -v dpkg-shlibdeps >/dev/null && ! ldd "$ICEBENCH_BIN" | grep -q 'lib[at]san'; then
  ICEBENCH_DEB_LEVEL=0 make --no-print-directory deb B="${b#"$PWD"/}" >"$work/log" 2>&1 && why="" || why="$(tail -n 5 "$work/log")"
  deb=$(ls "$b"/deb/*.deb)
  dpkg-deb -x "$deb" "$work/deb" && [ "$("$work/deb/usr/bin/icebench" --version)" = "$("$ICEBENCH_BIN" --version)" ] || why="$why it does not run"
  [ -s "$work/deb/usr/share/man/man1/icebench-merge.1.gz" ] || why="$why no manual pages"
  dpkg-deb -f "$deb" Depends | grep -q 'libopenblas0.*libsqlite3-0' || why="$why Depends: $(dpkg-deb -f "$deb" Depends)"
  (cd "$work/deb" && dpkg-deb -I "$deb" md5sums | md5sum -c --quiet) >"$work/out" 2>&1 || why="$why $(cat "$work/out")"
  command -v lintian >/dev/null || echo "SKIP lintian is not installed, the package is not looked at"
  verdict $name "$why"
else
  skipped $name "dpkg-dev is not installed, or this is a sanitizer build"
fi

exit $failed
