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
# Build the dependencies first, in a layer that changes only with Cargo.lock or a Cargo.toml:
# librdkafka takes most of the build time.
COPY Cargo.toml Cargo.lock ./
COPY crates/core/Cargo.toml crates/core/
COPY crates/testkit/Cargo.toml crates/testkit/
COPY examples/demo/Cargo.toml examples/demo/
RUN mkdir -p src bench crates/core/src crates/testkit/src examples/demo/src \
    && touch src/lib.rs crates/core/src/lib.rs crates/testkit/src/lib.rs \
    && for main in src/main.rs bench/throughput.rs examples/demo/src/main.rs; do \
        echo 'fn main() {}' >"$main"; \
    done \
    && cargo build --locked --profile "$PROFILE" -p pgsluice -p pgsluice-demo --bins \
    && rm -rf src bench crates examples
COPY bench/throughput.rs bench/throughput.rs
COPY config config
COPY migrations migrations
COPY crates crates
COPY examples/demo examples/demo
COPY src src
# Cargo compares modification times, and the copied files may be older than what was built above.
RUN find src crates examples -name '*.rs' -exec touch {} + \
    && cargo build --locked --profile "$PROFILE" -p pgsluice -p pgsluice-demo --bins \
    && mkdir -p /out \
    && case "$PROFILE" in dev) built=debug ;; *) built=$PROFILE ;; esac \
    && cp "target/$built/pgsluice" "target/$built/pgsluice-demo" /out/

FROM docker.io/library/debian:bookworm-slim AS runtime
RUN apt-get update \
    && apt-get install -y --no-install-recommends libssl3 zlib1g libzstd1 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 pgsluice \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin pgsluice
# By number, so that Kubernetes can verify that it is not root.
USER 65532:65532

# docker build --target demo: the producer of the demo's story, for deploy/compose.yaml.
FROM runtime AS demo
COPY --from=build /out/pgsluice-demo /usr/local/bin/pgsluice-demo
ENTRYPOINT ["/usr/local/bin/pgsluice-demo"]

FROM runtime
COPY --from=build /out/pgsluice /usr/local/bin/pgsluice
# The loopback address cannot be reached from outside the container.
ENV PGSLUICE__ADMIN__LISTEN=0.0.0.0:9187
EXPOSE 9187
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/pgsluice", "health"]
ENTRYPOINT ["/usr/local/bin/pgsluice"]
CMD ["run"]
