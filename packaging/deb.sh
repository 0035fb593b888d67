#!/bin/sh
# A Debian package from an installed tree. Usage: deb.sh BUILD-DIR VERSION; prints the path of the package.
# ICEBENCH_DEB_LEVEL (6): how hard it is compressed, 0..9.
# Plain dpkg-deb: there is one binary and no service, so debhelper would have nothing to help with.
set -eu
b=$1 version=$2
root=$b/deb/root doc=$b/deb/root/usr/share/doc/icebench
arch=$(dpkg --print-architecture)
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
# Who made the package, as Debian's tools are told.
maintainer="${DEBFULLNAME:-icebench authors} <${DEBEMAIL:-icebench@users.noreply.github.com}>"
umask 022
rm -rf "$b/deb"
mkdir -p "$b/deb/debian"
make --no-print-directory install DESTDIR="$root" PREFIX=/usr B="$b" >"$b/deb/log"

strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/icebench"
find "$root/usr/share/man" -name '*.1' -exec gzip -9n {} +
mkdir -p "$doc" "$root/usr/share/lintian/overrides" "$root/DEBIAN"
{
  cat packaging/copyright
  printf '\nFiles: datasets/translit.def\nCopyright: 1991-2022 Unicode, Inc.\nLicense: Unicode\n'
  sed '1,/^COPYRIGHT AND/d; s/^$/./; s/^/ /' datasets/translit.license | sed 1d
} >"$doc/copyright"
{
  echo "icebench ($version) stable; urgency=medium"
  echo
  echo "  * See CHANGELOG.md of the sources."
  echo
  echo " -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$doc/changelog.gz"
# Beside the files that they explain, and one of them marks the folder (cli_share_dir).
echo 'icebench: package-contains-documentation-outside-usr-share-doc [usr/share/icebench/*]' >"$root/usr/share/lintian/overrides/icebench"

# dpkg-shlibdeps wants to see a source package.
printf 'Source: icebench\n\nPackage: icebench\nArchitecture: any\nDescription: x\n' >"$b/deb/debian/control"
depends=$(cd "$b/deb" && dpkg-shlibdeps -O "root/usr/bin/icebench" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
[ -n "$depends" ] || { echo "deb: dpkg-shlibdeps finds no libraries (apt-get install dpkg-dev)" >&2; exit 1; }
cat >"$root/DEBIAN/control" <<C
Package: icebench
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -k -s --apparent-size "$root/usr" | cut -f 1)
Depends: $depends
Recommends: gnuplot-nox
Section: science
Priority: optional
Description: evaluate attention methods on CPUs
 Runs dense attention, IceFormer (k-nearest-neighbour attention,
 arXiv 2405.02842) and competing attentions inside trained models and on
 tensors alone. Accuracy, time, speed-up against two baselines and error are
 stored in SQLite; tables, charts and verdicts are made from there.
C
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
chmod -R u+w,go-w "$root"
dpkg-deb --root-owner-group -Zxz -z"${ICEBENCH_DEB_LEVEL:-6}" --build "$root" "$b/deb/icebench_${version}_$arch.deb" >>"$b/deb/log"
echo "$b/deb/icebench_${version}_$arch.deb"
