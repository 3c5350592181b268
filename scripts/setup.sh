#!/bin/sh
# Installs what the Makefile's verbs need and is not there; says nothing where all is there.
# Debian packages are installed as root or through sudo. Rust is looked for, not installed.
set -eu

# What the tree is built and tested with. The kernels for `make vm` are not here: vm-runner
# fetches them into target/vm without installing anything.
packages="
	ca-certificates
	gcc
	g++
	gdb
	gfortran
	git
	libc6-dev
	libffi-dev
	libasmjit-dev
	lld
	llvm-14-dev
	make
	mandoc
	pahole
	patch
	python3
	python3-pip
	qemu-system-x86
	strace
	util-linux
	xz-utils
	zstd
"

oldest=1.88 # rust-version in Cargo.toml

missing=
for package in $packages; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
	as_root=
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || {
			echo "setup: neither root nor sudo; please install:$missing" >&2
			exit 1
		}
		as_root=sudo
	fi
	echo "setup: installing$missing"
	export DEBIAN_FRONTEND=noninteractive
	log=$(mktemp)
	for step in "update" "install -y --no-install-recommends $missing"; do
		# shellcheck disable=SC2086 # words are meant
		$as_root apt-get -q $step >"$log" 2>&1 || {
			cat "$log" >&2
			echo "setup: apt-get $step failed" >&2
			exit 1
		}
	done
	rm -f "$log"
fi

how="setup: cargo $oldest or newer is needed, with rustfmt and clippy; Debian 12's own is older. \
Install it with rustup."
command -v cargo >/dev/null || {
	echo "$how (There is no cargo in PATH.)" >&2
	exit 1
}
version=$(cargo --version | cut -d ' ' -f 2)
lowest=$(printf '%s\n%s\n' "$oldest" "$version" | sort -V | head -n 1)
[ "$lowest" = "$oldest" ] || {
	echo "$how (This is cargo $version.)" >&2
	exit 1
}
