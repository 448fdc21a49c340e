#!/bin/sh
# Makes .venv with PipeLLM (editable, native core compiled) and one of its extras (pyproject.toml).
# Usage: scripts/setup.sh EXTRA, from the repository root; when all stands, .venv/.installed-EXTRA is
# touched.
#
# Packages are installed by uv, which pip brings into .venv: seconds where pip takes minutes. Cheap when
# little changed: what is there is left alone, and CMake compiles what is new.
set -eu
extra=$1
compiler=${CXX:-g++}

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 2
}
have() { command -v "$1" >/dev/null 2>&1; }
has_header() { echo "#include <$1>" | "$compiler" -E -x c++ - >/dev/null 2>&1; }

# The first interpreter that is new enough. PYTHON, if set, is the only one asked.
find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}
has_python_headers() {
    "$python" - <<'PYTHON' 2>/dev/null
import pathlib, sysconfig
pathlib.Path(sysconfig.get_path("include"), "Python.h").stat()
PYTHON
}

# Debian's names of the packages that are missing.
missing_needed() {
    have "$compiler" || echo g++
    has_header openssl/evp.h || echo libssl-dev
    has_header xxhash.h || echo libxxhash-dev
    if [ -z "$python" ]; then
        echo python3
    else
        "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
        has_python_headers || echo python3-dev
    fi
}
# Without these it works too: pip has CMake and Ninja, and OpenSSL can seal, if more slowly.
missing_optional() {
    have cmake || echo cmake
    have ninja || echo ninja-build
    has_header intel-ipsec-mb.h || echo libipsec-mb-dev
    if [ "$extra" = dev ]; then
        have openssl || echo openssl   # the provider's tests talk TLS with it
        have chromium || echo chromium # the report's test looks at it in a browser
    fi
}

system_packages() {
    python=$(find_python)
    needed=$(missing_needed | xargs)
    optional=$(missing_optional | xargs)
    [ -n "$needed$optional" ] || return 0
    if [ "$(id -u)" -eq 0 ] && have apt-get; then
        say installing $needed $optional
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq || say "apt-get update failed; going on with the lists that are there"
        # One by one: a package that this system does not have must not keep the others away.
        for package in $needed $optional; do
            apt-get install -y -qq --no-install-recommends "$package" >/dev/null || true
        done
        python=$(find_python)
        needed=$(missing_needed | xargs)
        optional=$(missing_optional | xargs)
    fi
    [ -z "$needed" ] || fail "install these and try again (Debian's names): $needed (Python >= 3.11)"
    [ -z "$optional" ] || say "goes without these, slower or less tested (Debian's names): $optional"
}

virtual_environment() {
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    fi
    .venv/bin/python -m uv --version >/dev/null 2>&1 || .venv/bin/python -m pip install -q uv
    certificates=$(.venv/bin/python scripts/pip_settings.py cert)
    [ -z "$certificates" ] || export SSL_CERT_FILE="$certificates"
    sources=$(.venv/bin/python scripts/pip_settings.py)
}

uv_install() {
    # Where packages come from is one word each, without spaces.
    .venv/bin/python -m uv pip install -q --python .venv/bin/python $sources "$@"
}

# What pyproject.toml asks for to build, installed beside the rest: without an isolated build, CMake's
# cache stays valid and a change to the native core compiles in seconds.
build_requirements() {
    .venv/bin/python - <<'PYTHON'
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
PYTHON
    have cmake || echo cmake
    have ninja || echo ninja
}

# The requirement by which pyproject.toml pins a package.
pinned() { sed -n "s/^ *\"\($1==[^\"]*\)\",/\1/p" pyproject.toml | head -n 1; }

# vLLM asks for them, and no build of theirs goes with a CPU-only torch 2.13.
not_wanted() {
    for package in torchvision torchaudio torchcodec; do
        echo "$package; sys_platform == 'never'"
    done
}

python_packages() {
    say "installing Python packages for '$extra' (the first time, PyTorch takes a while)"
    mkdir -p build
    build_requirements >build/build-requirements.txt
    not_wanted >build/not-wanted.txt
    uv_install -r build/build-requirements.txt
    case $extra in
    peft | systems | dev)
        # A source distribution that imports torch to build, and with setuptools 80: the one that vLLM
        # pins is too old for it, newer ones are too new for vLLM.
        .venv/bin/python -m uv pip show -q deepspeed --python .venv/bin/python 2>/dev/null || {
            uv_install 'setuptools>=80,<81' wheel "$(pinned torch)"
            uv_install --no-build-isolation "$(pinned deepspeed)"
        }
        ;;
    esac
    uv_install --no-build-isolation --overrides build/not-wanted.txt --reinstall-package pipellm \
        -e ".[$extra]"
    # Met here, it costs a line; met by the demo, it costs the demo.
    .venv/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' ||
        fail "a CUDA build of torch was installed; the emulated device needs the CPU-only build:" \
            "let PIP_EXTRA_INDEX_URL name PyTorch's index of CPU wheels, then: make clean setup"
}

system_packages
virtual_environment
python_packages
touch ".venv/.installed-$extra"
say "done"
