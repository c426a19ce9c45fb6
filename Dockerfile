# syntax=docker/dockerfile:1
# docker build --target cpu -t latentd:cpu .

FROM rust:1.95-bookworm AS chef
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
# The folder of the volume, with the user of the running process as its owner.
RUN install -d -o 65532 -g 65532 /data

FROM debian:bookworm-slim AS cpu
LABEL org.opencontainers.image.title="latentd" \
      org.opencontainers.image.description="An HTTP inference server for latent diffusion" \
      org.opencontainers.image.licenses="Apache-2.0"
# Certificates to verify TLS connections to webhook receivers.
COPY --link --from=builder-cpu /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --link --from=builder-cpu /src/target/release/latentd /usr/local/bin/latentd
# Certificates to verify TLS connections to object stores and webhook receivers.
COPY --link --from=builder-cpu /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --link --from=builder-cpu /src/LICENSE /src/models/*/LICENSE-*.txt /usr/share/doc/latentd/
COPY --from=builder-cpu --chown=65532:65532 /data /data

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
