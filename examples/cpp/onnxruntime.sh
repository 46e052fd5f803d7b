#!/usr/bin/env bash
# Collects onnxruntime for C++ on Debian: the library of the Python package, the headers of libonnxruntime-dev.
#
#   onnxruntime.sh FOLDER [PYTHON]      then: cmake -DONNXRUNTIME_ROOT=FOLDER ...
#
# Debian 12 has no libonnxruntime-dev; the headers of Debian 13's are then taken, from the mirror that apt uses already
# (nothing is installed, apt's own lists stay as they are). The library may be newer than the headers, not older.
set -euo pipefail
[[ $# -ge 1 ]] || { echo "usage: onnxruntime.sh FOLDER [PYTHON]" >&2; exit 2; }
folder=$(mkdir -p "$1" && cd "$1" && pwd)
python=${2:-python3}
package=libonnxruntime-dev

library=$("$python" - <<'PYTHON'
import importlib.util, pathlib
found = importlib.util.find_spec("onnxruntime")
files = sorted(pathlib.Path(found.origin).parent.glob("capi/libonnxruntime.so.*")) if found else []
print(files[0] if files else "")
PYTHON
)
[[ -n $library ]] || { echo "error: $python has no onnxruntime with libonnxruntime.so: pip install onnxruntime" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if ! apt-get download -qq "$package" 2>/dev/null; then
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' | grep -v security | head -n 1)
  [[ -n $mirror ]] || { echo "error: apt knows no Debian mirror: install $package or unpack a release of onnxruntime" >&2; exit 1; }
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p lists/partial cache/archives/partial
  echo "deb [signed-by=$keys] $mirror trixie main" > sources.list
  options=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
           -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)")
  apt-get "${options[@]}" update
  apt-get "${options[@]}" download "$package"
fi
dpkg-deb -x "$package"_*.deb unpacked
rm -rf "$folder/include" "$folder/lib"
mkdir -p "$folder/include" "$folder/lib"
cp unpacked/usr/include/onnxruntime/*.h "$folder/include/"
ln -s "$library" "$folder/lib/libonnxruntime.so.1"
ln -s libonnxruntime.so.1 "$folder/lib/libonnxruntime.so"
echo "$folder: headers of $(dpkg-deb -f "$package"_*.deb Version), library $(basename "$library")"
