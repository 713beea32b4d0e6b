# pgsluice as a container: docker build -t pgsluice .
#
# The image holds Debian's slim base, OpenSSL, zlib, zstd, CA certificates and one program. It runs as user
# 65532 and needs no writable file system and no capability:
# docker run --read-only --cap-drop ALL pgsluice
#
# PROFILE=dev builds faster, for trying out a change. Deploy only images built with PROFILE=release.

FROM docker.io/library/rust:1.95-bookworm AS build
ARG PROFILE=release
RUN apt-get update \
    && apt-get install -y --no-install-recommends libssl-dev zlib1g-dev libzstd-dev pkg-config g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Build the dependencies first, in a layer that changes only with Cargo.lock or Cargo.toml:
# librdkafka takes most of the build time.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src bench \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && echo 'fn main() {}' >bench/throughput.rs \
    && cargo build --locked --profile "$PROFILE" --bin pgsluice \
    && rm -rf src bench
COPY bench/throughput.rs bench/throughput.rs
COPY config config
COPY migrations migrations
COPY src src
# Cargo compares modification times, and the copied files may be older than what was built above.
RUN touch src/lib.rs src/main.rs \
    && cargo build --locked --profile "$PROFILE" --bin pgsluice \
    && mkdir -p /out \
    && case "$PROFILE" in dev) built=debug ;; *) built=$PROFILE ;; esac \
    && cp "target/$built/pgsluice" /out/pgsluice

FROM docker.io/library/debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libssl3 zlib1g libzstd1 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 pgsluice \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin pgsluice
COPY --from=build /out/pgsluice /usr/local/bin/pgsluice
# By number, so that Kubernetes can verify that it is not root.
USER 65532:65532
# The loopback address cannot be reached from outside the container.
ENV PGSLUICE__ADMIN__LISTEN=0.0.0.0:9187
EXPOSE 9187
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/pgsluice", "health"]
ENTRYPOINT ["/usr/local/bin/pgsluice"]
CMD ["run"]
