#!/usr/bin/env bash
# Sourced by the other scripts: puts a Python >= 3.11 with camctrl_jax and the named extras on the PATH.
#   source launch/environment.sh "quickstart,test"
# An active virtual environment is used as it is; otherwise .venv is made beside this repository.
# PYTHON names the interpreter to make it with (default: the first of python3.12, python3.11, python3 that runs and fits).

camctrl_environment() {
    local extras="$1" root python="" candidate version
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        if [ ! -x "$root/.venv/bin/python" ]; then
            for candidate in ${PYTHON:-python3.12 python3.11 python3 python3.13}; do
                if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
                    python="$candidate"
                    break
                fi
            done
            if [ -z "$python" ]; then
                echo "camctrl_jax needs Python 3.11 or newer with venv; set PYTHON=/path/to/python3.11 and run again." >&2
                return 1
            fi
            echo "Making a virtual environment in $root/.venv with $("$python" --version)"
            "$python" -m venv "$root/.venv" || return 1
        fi
        # shellcheck disable=SC1091
        source "$root/.venv/bin/activate"
    fi
    version="$(cd "$root" && git rev-parse HEAD 2>/dev/null)$extras$(cat "$root/setup.cfg" | cksum)"
    if [ "$(cat "$VIRTUAL_ENV/.camctrl_jax_installed" 2>/dev/null)" != "$version" ]; then
        echo "Installing camctrl_jax[$extras] into $VIRTUAL_ENV (once)"
        python -m pip install --quiet --disable-pip-version-check --editable "$root[$extras]" || return 1
        echo "$version" > "$VIRTUAL_ENV/.camctrl_jax_installed"
    fi
}

camctrl_environment "$1"
