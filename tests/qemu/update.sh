#!/bin/sh
# update NAME NUMBER: makes a revision that nobody has seen before (a fresh object, a fresh command), collects, installs and runs it.
set -e
folder=/tmp/update
rm -rf $folder
mkdir -p $folder/objects
head -c 300000 /dev/urandom >$folder/blob
read -r sum _ <<TXT
$(sha256sum $folder/blob)
TXT
mv $folder/blob "$folder/objects/$sum"
sed "s/@NUMBER@/$2/; s/@BLOB@/$sum/" /revisions/loop/manifest.json >$folder/manifest.json
cp /revisions/loop/objects/* $folder/objects/
coxctl gc
coxctl install $folder --name "$1" --run --wait --timeout 60
