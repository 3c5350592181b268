#!/bin/sh
# Builds into target/lib what C programs link with:
#
#   libtrampfd.so.0, libtrampfd.so   the library, and the name that -ltrampfd looks for
#   libtrampfd.a                     the same for static programs
#   libtrampfd-nested.a              the runtime of nested functions alone, without Rust's library
#   pkgconfig/trampfd.pc             for PREFIX (/usr/local) and LIBDIR (PREFIX/lib)
#
# The archives are one object each, whose only global names are those of libtrampfd.map: so they
# meet no other Rust library in a program. What is there already is replaced in one step, and only
# where it differs.
set -eu
cd "$(dirname "$0")/../.."

cargo=${CARGO:-cargo}
cc=${CC:-cc}
profile=shared
prefix=${PREFIX:-/usr/local}
libdir=${LIBDIR:-$prefix/lib}
here=userspace/trampfd-capi
map=$here/libtrampfd.map
out=target/lib
mkdir -p $out/pkgconfig
work=$(mktemp -d $out/work.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# What cargo says of the static library of a package.
made() {
	sed -n "s/.*\"reason\":\"compiler-artifact\".*\"\([^\"]*\/$1\)\".*/\1/p" "$work/messages" |
		tail -n 1
}

# The names of the library, or of the nested functions alone.
names() {
	sed -n 's/^	\([a-zA-Z_][a-zA-Z0-9_]*\);/\1/p' $map
}
nested() {
	names | grep -v '^trampfd'
}

# replace FILE PLACE
replace() {
	cmp -s "$1" "$2" || mv -f "$1" "$2"
}

# archive NAME FROM: the names on standard input, with what they need.
archive() {
	cat >"$work/names"
	# shellcheck disable=SC2046 # words are meant
	ld -r --gc-sections --strip-debug -o "$work/one.o" $(sed 's/^/-u /' "$work/names") "$2"
	# The bitcode in Rust's own objects would be taken for the whole by ar's plugins.
	objcopy --keep-global-symbols="$work/names" --remove-section=.comment \
		--remove-section=.llvmbc --remove-section=.llvmcmd "$work/one.o"
	rm -f "$work/$1"
	(cd "$work" && ar rcsD "$1" one.o)
	replace "$work/$1" "$out/$1"
}

$cargo build -q --profile $profile -p trampfd-capi --message-format=json >"$work/messages"
library=$(made libtrampfd_capi.a)
# A folder of its own: features and panics differ from the workspace's.
$cargo rustc -q --profile $profile -p trampfd-nested --lib --crate-type staticlib \
	--target-dir target/nested --message-format=json \
	-- --cfg trampfd_object -C panic=abort >"$work/messages"
object=$(made libtrampfd_nested.a)
[ -f "$library" ] && [ -f "$object" ] || {
	echo "link.sh: cargo did not say where libtrampfd_capi.a and libtrampfd_nested.a are" >&2
	exit 1
}

names | archive libtrampfd.a "$library"
nested | archive libtrampfd-nested.a "$object"

# shellcheck disable=SC2046 # words are meant
$cc -shared -o "$work/libtrampfd.so.0" -Wl,-soname,libtrampfd.so.0 \
	-Wl,--version-script=$map $(names | sed 's/^/-Wl,-u,/') \
	-Wl,--gc-sections,--strip-debug,--as-needed,-O1,--hash-style=gnu,--build-id \
	-Wl,-z,now,-z,relro,-z,noexecstack,-z,nodelete,-z,defs,-z,text,--fatal-warnings \
	"$library" -Wl,--as-needed -lgcc_s -lc
replace "$work/libtrampfd.so.0" $out/libtrampfd.so.0
ln -s libtrampfd.so.0 "$work/libtrampfd.so"
mv -f "$work/libtrampfd.so" $out/libtrampfd.so

version=$($cargo pkgid -p trampfd-capi | sed 's/.*[#@]//')
sed "s|@PREFIX@|$prefix|; s|@LIBDIR@|$libdir|; s|@VERSION@|$version|" $here/trampfd.pc.in \
	>"$work/trampfd.pc"
replace "$work/trampfd.pc" $out/pkgconfig/trampfd.pc
