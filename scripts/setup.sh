# shellcheck shell=bash
# Sourced by ./dev: finds what a command needs and installs what is missing.
# Everything is looked for by the file or command itself, so it costs milliseconds when nothing is
# missing and accepts tools that did not come from a package.

RUST_MIN=1.95      # the workspace's rust-version
BPF_RUST_MIN=1.96  # the first Debian compiler whose standard library includes the BPF target
BPF_LINKER=0.13.0
CARGO_DEB=3.8.0
LLVM=/usr/lib/llvm-22
# Where tools/vm looks too.
VM_QEMU=${XDG_CACHE_HOME:-$HOME/.cache}/sluice-vm/qemu

say() { printf '%s\n' "$*" >&2; }
die() { say "dev: $*"; exit 1; }

# Administrators' tools may be missing from a plain user's PATH, and so may cargo's.
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

have() { command -v -- "$1" >/dev/null 2>&1; }

# at_least VERSION MINIMUM - compares major.minor
at_least() {
    local IFS=. v m
    read -r -a v <<<"$1"
    read -r -a m <<<"$2"
    [[ ${v[0]} =~ ^[0-9]+$ && ${v[1]:-} =~ ^[0-9]+$ ]] || return 1
    ((v[0] > m[0] || (v[0] == m[0] && v[1] >= m[1])))
}

# rust_version RUSTC - "1.96.0", or nothing
rust_version() { "$1" --version 2>/dev/null | cut -d' ' -f2; }

# Use the Rust on PATH when it is new enough, else Debian's; fail when there is none.
choose_rust() {
    [[ -z ${RUST_CHOSEN:-} ]] || return 0
    if have cargo && have rustc && at_least "$(rust_version rustc)" "$RUST_MIN"; then
        RUST_CHOSEN=path
    elif [[ -x /usr/bin/cargo && -x /usr/bin/rustc ]] && at_least "$(rust_version /usr/bin/rustc)" "$RUST_MIN"; then
        PATH=/usr/bin:$PATH
        RUST_CHOSEN=debian
    else
        return 1
    fi
    hash -r
}

MISSING=()
want() { MISSING+=("$@"); }

need_rust() {
    choose_rust || want rustc-web cargo-web
    have cc || want gcc libc6-dev
    [[ -s /etc/ssl/certs/ca-certificates.crt ]] || want ca-certificates
}

# A rustup nightly with the standard library's source can build core for BPF itself.
nightly_with_source() {
    local dir
    for dir in "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/nightly-*/lib/rustlib/src/rust/library/core; do
        [[ -d $dir ]] && return 0
    done
    return 1
}

debian_bpf_rust() {
    local lib=/usr/lib/rustlib/bpfel-unknown-none/lib
    [[ -x /usr/bin/cargo && -x /usr/bin/rustc && -d $lib ]] &&
        at_least "$(rust_version /usr/bin/rustc)" "$BPF_RUST_MIN"
}

# Also false when the linker is there but its LLVM library is not.
bpf_linker_works() {
    local version
    version=$(bpf-linker --version 2>/dev/null | cut -d' ' -f2) && at_least "${version:-0}" "$BPF_LINKER"
}

need_bpf() {
    debian_bpf_rust || nightly_with_source || want rustc-web cargo-web libstd-rust-web-dev-bpf
    bpf_linker_works && return
    INSTALL_LINKER=1
    [[ -x $LLVM/bin/llvm-config ]] || want llvm-22-dev
    have c++ || want g++
    [[ -e /usr/include/zlib.h ]] || want zlib1g-dev
    [[ -e /usr/include/zstd.h ]] || want libzstd-dev
}

need_run() {
    have nginx || want nginx-light
    have ip || want iproute2
    have strace || want strace
    have ethtool || want ethtool
    have vsftpd || want vsftpd
    have curl || want curl
    have tcpdump || want tcpdump
}

need_lint() {
    have shellcheck || want shellcheck
    # The eBPF programs need the clippy of their own compiler.
    if ! debian_bpf_rust && nightly_with_source; then
        :
    elif [[ ! -x /usr/bin/cargo-clippy ]]; then
        want rust-web-clippy
    fi
    { cargo clippy --version && cargo fmt --version; } >/dev/null 2>&1 && return
    if have rustup && [[ $(type -P cargo) != /usr/bin/cargo ]]; then
        RUSTUP_COMPONENTS=1
    else
        want rust-web-clippy rustfmt-web
    fi
}

# What makes the Debian package, and what its test looks at it with.
need_package() {
    have dpkg-shlibdeps || want dpkg-dev
    have strip || want binutils
    have lintian || want lintian
    have man || want man-db
    [[ -x /lib/systemd/systemd ]] || want systemd
    [[ $(cargo-deb --version 2>/dev/null) == *"$CARGO_DEB" ]] || INSTALL_DEB=1
}

# Parts of another release's QEMU would have to go for this release's: then it gets a folder of its own.
want_qemu() {
    if have apt-get && ! apt-cache show qemu-system-x86 >/dev/null 2>&1; then
        say "Refreshing the package lists"
        "$ROOT/scripts/as-root" apt-get update -qq >/dev/null 2>&1 </dev/null || true
    fi
    if apt-get install --simulate --no-install-recommends qemu-system-x86 2>/dev/null | grep -q '^Remv'; then
        INSTALL_QEMU=1
    else
        want qemu-system-x86
    fi
}

need_vm() {
    have qemu-system-x86_64 || [[ -x $VM_QEMU/bin/qemu-system-x86_64 ]] || want_qemu
    [[ -e /usr/share/doc/busybox-static ]] || want busybox-static
    have cpio || want cpio
    have zstd || want zstd
    have xz || want xz-utils
    have modprobe || want kmod
}

need_compare() {
    have ipvsadm || want ipvsadm
    have nft || want nftables
}

need_fuzz() {
    have c++ || want g++
    have cargo-fuzz || INSTALL_FUZZ=1
}

no_toolchain() {
    say ""
    cat -- "$ROOT/scripts/ebpf-toolchain.txt" >&2
    exit 1
}

install_packages() {
    local list
    [[ ${#MISSING[@]} -gt 0 ]] || return 0
    list=$(printf '%s\n' "${MISSING[@]}" | LC_ALL=C sort -u | tr '\n' ' ')
    list=${list% }
    say "Installing Debian packages: $list"
    # shellcheck disable=SC2086  # one word a package
    set -- $list
    if ! have apt-get; then
        say "dev: there is no apt-get here; install what these Debian packages hold, then run this again."
    elif "$ROOT/scripts/as-root" "$ROOT/scripts/apt-install" "$@"; then
        MISSING=()
        hash -r
        return 0
    fi
    [[ " $list " != *" libstd-rust-web-dev-bpf "* && " $list " != *" llvm-22-dev "* ]] || no_toolchain
    die "not installed: $list"
}

install_linker() {
    [[ ${INSTALL_LINKER:-0} -eq 1 ]] || return 0
    say "Installing bpf-linker $BPF_LINKER with cargo (about a minute, into ${CARGO_HOME:-$HOME/.cargo}/bin)"
    LLVM_PREFIX=$LLVM LLVM_SYS_221_PREFIX=$LLVM CARGO_TARGET_DIR=$ROOT/target/bpf-linker \
        cargo install --quiet bpf-linker --version "$BPF_LINKER" --locked --force \
        --no-default-features --features llvm-22 >&2 || no_toolchain
    rm -rf -- "$ROOT/target/bpf-linker"
    hash -r
    bpf_linker_works || no_toolchain
}

install_qemu() {
    [[ ${INSTALL_QEMU:-0} -eq 1 ]] || return 0
    say "Unpacking QEMU into $VM_QEMU: beside this machine's qemu packages apt cannot install it"
    "$ROOT/tools/qemu-private" "$VM_QEMU" || die "no QEMU; remove the qemu packages of another release, then run this again"
}

# setup GROUP... - rust, bpf, run, lint, package, vm, compare, fuzz
setup() {
    local group
    for group in "$@"; do "need_$group"; done
    install_packages
    choose_rust || die "no Rust $RUST_MIN or newer was found or installed. Debian 12 has it in its security archive \
(packages rustc-web cargo-web); rustup has it everywhere."
    install_linker
    install_qemu
    if [[ ${RUSTUP_COMPONENTS:-0} -eq 1 ]]; then
        say "Installing the rustup components clippy and rustfmt"
        rustup --quiet component add clippy rustfmt >&2 || die "rustup could not add clippy and rustfmt"
    fi
    if [[ ${INSTALL_DEB:-0} -eq 1 ]]; then
        say "Installing cargo-deb $CARGO_DEB with cargo (a minute or more, into ${CARGO_HOME:-$HOME/.cargo}/bin)"
        CARGO_TARGET_DIR=$ROOT/target/cargo-deb cargo install --quiet cargo-deb --version "$CARGO_DEB" --locked --force >&2 ||
            die "cargo-deb could not be installed; try: cargo install cargo-deb --version $CARGO_DEB --locked"
        rm -rf -- "$ROOT/target/cargo-deb"
        hash -r
    fi
    if [[ ${INSTALL_FUZZ:-0} -eq 1 ]]; then
        say "Installing cargo-fuzz with cargo (a minute or more, into ${CARGO_HOME:-$HOME/.cargo}/bin)"
        CARGO_TARGET_DIR=$ROOT/target/cargo-fuzz cargo install --quiet cargo-fuzz --locked >&2 ||
            die "cargo-fuzz could not be installed; try: cargo install cargo-fuzz --locked"
        rm -rf -- "$ROOT/target/cargo-fuzz"
    fi
}
