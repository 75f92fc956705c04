# The serving image, without the trainer.
#
#   docker build --target serve -t reg4rec .              CPU
#   docker build --target serve-cuda -t reg4rec:cuda .    NVIDIA GPU (run it with `--gpus all`)

FROM rust:1.92-slim-bookworm AS source
WORKDIR /build
COPY . .

FROM source AS build
RUN cargo build --release --locked --no-default-features --features object-store --bin reg4rec-server --bin reg4rec

FROM source AS build-cuda
# The driver interface to bind to; the same as the toolkit of `serve-cuda`. No CUDA toolkit is needed to build.
ENV CUDARC_CUDA_VERSION=12080
RUN cargo build --release --locked --no-default-features --features cuda,object-store --bin reg4rec-server --bin reg4rec

# Kernels are compiled at run time, with NVRTC and the CUDA headers: the toolkit's `devel` image is the one with both.
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS serve-cuda
RUN useradd --system --uid 65532 --no-create-home reg4rec
COPY --from=build-cuda /build/target/release/reg4rec-server /build/target/release/reg4rec /usr/local/bin/
COPY model-artifacts /srv/reg4rec/model-artifacts
WORKDIR /srv/reg4rec
USER 65532
EXPOSE 50051 9100
ENTRYPOINT ["reg4rec-server", "--listen", "0.0.0.0:50051", "--admin", "0.0.0.0:9100"]
CMD ["--device", "cuda"]

# Last, so that a plain `docker build .` makes it.
FROM debian:bookworm-slim AS serve
RUN useradd --system --uid 65532 --no-create-home reg4rec
COPY --from=build /build/target/release/reg4rec-server /build/target/release/reg4rec /usr/local/bin/
COPY model-artifacts /srv/reg4rec/model-artifacts
WORKDIR /srv/reg4rec
USER 65532
EXPOSE 50051 9100
ENTRYPOINT ["reg4rec-server", "--listen", "0.0.0.0:50051", "--admin", "0.0.0.0:9100"]
