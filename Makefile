# trampfd. Each verb installs what it needs first (scripts/setup.sh): as root, or through sudo.
#
#   make demo               the main job, here and in a booted stock kernel
#   make test               all tests; the last line is `N passed, N failed`
#   make check              formatting, lints, documentation, kernel style
#   make module             the kernel module, for each kernel of vm-tests/kernels.toml
#   make vm [KERNEL=name]   the tests that run in stock kernels
#   make bench              figures beside their targets, and target/bench/report.json
#   make mutants            takes each protection out and sees its test fail
#   make libs               the libraries for C programs, libffi.so.8 among them, in target/lib
#   make install            the module, for the running kernel, and the header
#   make install-libs       the libraries, below PREFIX; uninstall-libs takes them away
#   make clean

SHELL := /bin/bash
PATH := $(PATH):$(HOME)/.cargo/bin
export PATH

# Namespaces, device nodes and compiler roots need root.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E env "PATH=$(PATH)")
CARGO := cargo
TRIPLE := $(shell uname -m)-unknown-linux-gnu
STATIC := RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build -q --release \
	--target $(TRIPLE) --target-dir target/static
STATIC_OUT := target/static/$(TRIPLE)/release
RUNNER := $(AS_ROOT) target/debug/vm-runner
# The kernel that the demo boots.
DEMO_KERNEL ?= 6.12

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
MANDIR ?= $(PREFIX)/share/man
DESTDIR ?=
KVER ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KVER)/build

.PHONY: demo test check module vm bench mutants libs install install-libs uninstall-libs clean \
	setup runner

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

setup:
	@scripts/setup.sh

runner: setup
	@$(CARGO) build -q -p vm-runner

demo: runner
	@$(STATIC) -p trampfd --example demo
	@$(STATIC_OUT)/examples/demo
	@rm -rf target/demo/guest && mkdir -p target/demo/guest
	@cp $(STATIC_OUT)/examples/demo target/demo/guest/demo
	@echo
	@echo "The same program in a booted stock kernel:"
	@$(RUNNER) module $(DEMO_KERNEL)
	@$(RUNNER) run $(DEMO_KERNEL) --tree target/demo/guest \
		--exec '/demo --backend kernel --many 10000 /sys' >target/demo/vm.log || \
		{ cat target/demo/vm.log; exit 1; }
	@sed '/^ok /,$$d' target/demo/vm.log
	@tail -n 1 target/demo/vm.log

test: runner
	@$(AS_ROOT) scripts/test

check: setup
	@scripts/check

module: runner
	@$(RUNNER) module $(KERNEL)

vm: module
	@$(AS_ROOT) scripts/test --root
	@$(RUNNER) run $(KERNEL)

bench: runner
	@scripts/bench

mutants: runner
	@$(AS_ROOT) scripts/mutants

# The library is a crate: programs name it in their Cargo.toml. What is installed is the header
# for programs that call the kernel service themselves, and the module.
install: setup
	install -Dm644 kernel-module/include/uapi/linux/trampfd.h \
		$(DESTDIR)$(PREFIX)/include/linux/trampfd.h
	@if [ -d "$(KDIR)" ]; then \
		$(MAKE) -C kernel-module KVER=$(KVER) KDIR=$(KDIR) install; \
	else \
		echo "The module is not installed: no headers of the running kernel in $(KDIR)"; \
	fi

libs: setup
	@PREFIX=$(PREFIX) LIBDIR=$(LIBDIR) scripts/libs

# The drop-in has a folder of its own: nothing finds it there that was not told to.
CAPI := userspace/trampfd-capi
PAGES := $(wildcard $(CAPI)/man/*.3)
install-libs: libs
	install -Dm755 target/lib/ffi/libffi.so.8 $(DESTDIR)$(LIBDIR)/trampfd/libffi.so.8
	install -Dm755 -t $(DESTDIR)$(LIBDIR) target/lib/libtrampfd-ffi-preload.so \
		target/lib/libtrampfd.so.0
	ln -sfn libtrampfd.so.0 $(DESTDIR)$(LIBDIR)/libtrampfd.so
	install -Dm644 -t $(DESTDIR)$(LIBDIR) target/lib/libtrampfd.a target/lib/libtrampfd-nested.a
	install -Dm644 -t $(DESTDIR)$(LIBDIR)/pkgconfig target/lib/pkgconfig/trampfd.pc
	install -Dm644 -t $(DESTDIR)$(PREFIX)/include $(CAPI)/include/trampfd.h
	$(if $(PAGES),install -Dm644 -t $(DESTDIR)$(MANDIR)/man3 $(PAGES))

uninstall-libs:
	rm -f $(DESTDIR)$(LIBDIR)/trampfd/libffi.so.8 \
		$(addprefix $(DESTDIR)$(LIBDIR)/,libtrampfd-ffi-preload.so libtrampfd.so.0 \
		libtrampfd.so libtrampfd.a libtrampfd-nested.a pkgconfig/trampfd.pc) \
		$(DESTDIR)$(PREFIX)/include/trampfd.h \
		$(addprefix $(DESTDIR)$(MANDIR)/man3/,$(notdir $(PAGES)))
	-rmdir $(DESTDIR)$(LIBDIR)/trampfd

clean:
	rm -rf target
	@$(MAKE) -s -C tests/c clean
