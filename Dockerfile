# syntax=docker/dockerfile:1
# docker build --target cpu -t latentd:cpu .      the default: computes on the CPU
# docker build --target cuda -t latentd:cuda .    computes on NVIDIA's GPUs; see docs/gpu.md

# The digests are those of Docker Hub in August 2026; docker buildx imagetools inspect NAME:TAG prints the current ones.
FROM rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS chef
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /src

# The list of dependencies without the code, so that the layer that compiles them is reused until Cargo.lock changes.
FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS builder-cpu
COPY --from=planner /src/recipe.json recipe.json
RUN cargo chef cook --release --locked --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --bin latentd

# The toolkit is installed before the code is copied, so that its layer and that of the compiled kernels are reused.
FROM chef AS builder-cuda
# Debian removes old versions of packages, so a build with fixed versions would fail after the next update.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-venv && rm -rf /var/lib/apt/lists/*
# The least compute capability that the image serves; newer GPUs compile the kernels of 80 at the first start. With 90,
# the kernels run on H100 and H200 only.
ARG CUDA_COMPUTE_CAP=80
ENV CUDA_COMPUTE_CAP=$CUDA_COMPUTE_CAP CUDARC_CUDA_VERSION=13000 CUDA_HOME=/opt/cuda/cuda NVCC=/opt/cuda/cuda/bin/nvcc
COPY .ci/cuda-toolkit .ci/cuda.txt .ci/
RUN .ci/cuda-toolkit install /opt/cuda
COPY --from=planner /src/recipe.json recipe.json
RUN cargo chef cook --release --locked --features cuda --recipe-path recipe.json
COPY . .
RUN .ci/cuda-toolkit driver /opt/cuda && cargo build --release --locked --features cuda --bin latentd
# The libraries that the binary names, and the one that NVRTC loads. The driver's library comes from the host.
RUN install -d /libraries \
    && cp /opt/cuda/cuda/lib/libcublas.so.13 /opt/cuda/cuda/lib/libcublasLt.so.13 /opt/cuda/cuda/lib/libcudart.so.13 \
        /opt/cuda/cuda/lib/libcurand.so.10 /opt/cuda/cuda/lib/libnvrtc.so.13 /opt/cuda/cuda/lib/libnvrtc-builtins.so.13.0 \
        /libraries/

# What both images have.
FROM debian:bookworm-slim@sha256:abd67ffcfa541b485a3dff59865ab629aa048a6c613e639d36e7456b0b229241 AS base
LABEL org.opencontainers.image.title="latentd" \
      org.opencontainers.image.description="An HTTP inference server for latent diffusion" \
      org.opencontainers.image.licenses="Apache-2.0"
# Certificates to verify TLS connections to object stores and webhook receivers.
COPY --link --from=planner /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --link --from=planner /src/LICENSE /src/models/*/LICENSE-*.txt /usr/share/doc/latentd/
# The folder of the volume, with the user of the running process as its owner.
RUN install -d -o 65532 -g 65532 /data

# Inside a container the listeners must accept all connections; the host decides which ports it publishes. The server
# cannot know the names under which the host publishes them: list them in LATENTD_HTTP__ALLOWED_HOSTS.
ENV LATENTD_DATA_DIR=/data \
    LATENTD_HTTP__BIND=0.0.0.0:8080 \
    LATENTD_OPERATOR__BIND=0.0.0.0:9090
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["latentd", "healthcheck"]
ENTRYPOINT ["latentd"]
CMD ["serve"]

FROM base AS cuda
COPY --link --from=builder-cuda /libraries/ /usr/local/lib/latentd/
COPY --link --from=builder-cuda /src/target/release/latentd /usr/local/bin/latentd
COPY --link deploy/cuda-entrypoint /usr/local/bin/cuda-entrypoint
# The NVIDIA Container Toolkit reads the NVIDIA variables, and adds the driver's library to the container.
ENV LD_LIBRARY_PATH=/usr/local/lib/latentd \
    LATENTD_ENGINE__DEVICES=auto \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["cuda-entrypoint"]
CMD ["serve"]

# The last stage is the default.
FROM base AS cpu
COPY --link --from=builder-cpu /src/target/release/latentd /usr/local/bin/latentd
