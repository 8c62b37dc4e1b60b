#!/usr/bin/env bash
# Install the test dependencies (once) and run the tests on the CPU.
#   bash launch/test.sh                     everything but what takes minutes
#   bash launch/test.sh -m slow             that: runs that are killed and go on, meshes, several processes
#   bash launch/test.sh tests/camera -k tum  arguments go to pytest
# Tests against PyTorch oracles run where torch and diffusers are installed (pip install 'camctrl_jax[torch]'), and are
# skipped with a reason elsewhere; so are tests on real inputs where CAMCTRL_TEST_DATA does not name their folder.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh "quickstart,eval,data,explore,test"
export JAX_PLATFORMS=cpu
[ $# -gt 0 ] || set -- -m "not slow"
# One thread a worker: the workers, not the threads, share the cores.
exec python -m pytest --numprocesses "${CAMCTRL_TEST_WORKERS:-2}" --dist worksteal "$@"
