# The package with everything pinned, on CPUs. The first command builds the image; the
# second one runs the demo and leaves its results in work_dirs/.
#
#   docker build --tag mmslak .
#   docker run --rm --volume "$PWD/work_dirs:/mmslak/work_dirs" mmslak

FROM python:3.11-slim

# The operators of MMCV and the CPU kernels are compiled.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /mmslak
COPY . .
RUN make install

CMD ["make", "demo"]
