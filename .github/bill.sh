#!/bin/sh
# What a wheel installs, alone and with each of its extras but dev and docs: an SBOM (CycloneDX) and the licences, as two
# files each.
#
#   .github/bill.sh dist/mlpx-0.1.0-py3-none-any.whl bill
#
# Needs cyclonedx-py and pip-licenses on the PATH, and python of the version to look at. pip's options are taken from its
# environment variables, such as PIP_CONSTRAINT and PIP_EXTRA_INDEX_URL. An extra that is tested in an environment of its
# own (MLflow, which needs another pyarrow) has the constraints of that one.
set -eu
wheel=$1 folder=$2
mkdir -p "$folder"
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
extras=$(unzip -p "$wheel" '*.dist-info/METADATA' | sed -n 's/^Provides-Extra: //p' | grep -vxE 'dev|docs')
for extra in '' $extras; do
  name=mlpx${extra:+-$extra}
  rm -rf "$environment"
  python -m venv --without-pip "$environment" # so that pip is not in the bill
  own=$(dirname "$0")/../tests/support/servers/$extra.constraints.txt
  PIP_CONSTRAINT=$([ -f "$own" ] && echo "$own" || echo "${PIP_CONSTRAINT-}") \
    python -m pip --python "$environment/bin/python" install --quiet "$wheel${extra:+[$extra]}"
  cyclonedx-py environment --validate --output-reproducible --output-file "$folder/$name.cdx.json" "$environment"
  pip-licenses --python "$environment/bin/python" --format markdown --with-urls --output-file "$folder/$name.licences.md"
done
