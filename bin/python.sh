# Sets `python` to a Python that groundlink runs on. Read by the other scripts of this folder.
python=
for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "groundlink: error: Python 3.10 to 3.14 is needed and was not found; install one, such as: sudo apt install python3 python3-venv" >&2
    exit 1
fi
