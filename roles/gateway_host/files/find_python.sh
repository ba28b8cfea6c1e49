#!/bin/sh
# Prints the first of the Pythons named that is 3.9 to 3.14 and can make virtual environments, as a line of JSON.
# Its exit status is 1 when there is none; then stderr says what was found.
PATH=/usr/bin:/usr/local/bin:/bin
export PATH
for python in "$@"; do
    if ! command -v "$python" > /dev/null; then continue; fi
    if "$python" -I - "$python" << 'PYTHON'; then exit 0; fi
import json
import os
import sys

name = "%s (%d.%d)" % (sys.argv[1], sys.version_info[0], sys.version_info[1])
if not (3, 9) <= sys.version_info[:2] <= (3, 14):
    sys.exit(name + " is not supported")
try:
    import ensurepip
    import venv
except ImportError as error:
    sys.exit("%s cannot make virtual environments: %s" % (name, error))
print(json.dumps({"path": os.path.realpath(sys.executable), "version": "%d.%d" % sys.version_info[:2]}))
PYTHON
done
exit 1
