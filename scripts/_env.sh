# Sourced by the scripts beside it: finds a Python, makes virtual environments. Only bash, Python and pip are needed.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
unset PYTHONHOME PYTHONPATH

# Prints the Python to use: $PYTHON where it is set, else the first on PATH that is new enough.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "boltax needs Python 3.11 or newer; found none (looked for: ${PYTHON:-python3, python3.13, python3.12," \
        "python3.11, python}). Install one, or name it: PYTHON=/path/to/python $0" >&2
    return 1
}

# make_env FOLDER EXTRAS [REQUIREMENT...]: an environment with boltax, editable, and its extras. The requirements are
# installed before all others, so that they decide the version. Does nothing where all that is installed.
make_env() {
    local folder=$1 extras=$2 python
    shift 2
    local wanted="${extras//,/ } $*"
    if _is_installed "$folder" "$wanted"; then
        return
    fi
    python=$(find_python) || return 1
    echo "Installing boltax[$extras] with $("$python" -V) into $folder (the first time takes minutes) ..."
    if ! { _new_env "$python" "$folder" && _install "$folder" "$extras" "$@"; } >"$folder.log" 2>&1; then
        tail -n 40 "$folder.log"
        echo "Installing failed; the above is the end of $folder.log. To start anew, remove $folder." >&2
        return 1
    fi
    rm -f "$folder.log"
    echo "$(cksum <pyproject.toml): $wanted" >>"$folder/installed"
}

# Whether one installation with the present pyproject.toml brought everything that is wanted.
_is_installed() {
    local folder=$1 wanted=$2 line have word missing
    [ -x "$folder/bin/python" ] && [ -f "$folder/installed" ] || return 1
    while read -r line; do
        have=${line#"$(cksum <pyproject.toml): "}
        [ "$have" != "$line" ] || continue
        missing=""
        for word in $wanted; do
            [[ " $have " == *" $word "* ]] || missing=$word
        done
        [ -n "$missing" ] || return 0
    done <"$folder/installed"
    return 1
}

_new_env() {
    local python=$1 folder=$2
    if [ -x "$folder/bin/python" ] && "$folder/bin/python" -m pip --version; then
        return
    fi
    rm -rf "$folder"
    # Some systems ship Python without ensurepip: then the pip that is there installs one into the environment.
    "$python" -m venv "$folder" || {
        "$python" -m venv --clear --without-pip "$folder" &&
            "$python" -m pip --python "$folder/bin/python" install pip
    }
}

_install() {
    local folder=$1 extras=$2 requirement
    shift 2
    for requirement in "$@"; do
        "$folder/bin/python" -m pip install --progress-bar off "$requirement" || return 1
    done
    "$folder/bin/python" -m pip install --progress-bar off --editable ".[$extras]"
}
