# syntax=docker/dockerfile:1
#
# docker build -t o365feed:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" .
#
# The last stage has the program, its libraries and the certificate authorities: no shell, no package manager, not root.
# It must be the same Debian as the first: the program takes that release's glibc, libm and libgcc_s, and nothing else.

FROM rust:1.95.0-bookworm AS build
# The rest of what OpenSSL and librdkafka are built with is in this image.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
# Unoptimised: it runs for a second.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install --locked --debug --root /tools --version 0.5.9 cargo-cyclonedx
WORKDIR /src
COPY . .
# What would differ between two builds of one commit: the time, the paths, the order of the code's units.
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH \
    CARGO_INCREMENTAL=0 \
    CARGO_TARGET_DIR=/target \
    CFLAGS="-ffile-prefix-map=/usr/local/cargo=/cargo -ffile-prefix-map=/target=/build" \
    CXXFLAGS="-ffile-prefix-map=/usr/local/cargo=/cargo -ffile-prefix-map=/target=/build" \
    RUSTFLAGS="--remap-path-prefix=/usr/local/cargo=/cargo --remap-path-prefix=/target=/build --remap-path-prefix=/src=/o365feed"
# What was built is not kept for the next time: cargo goes by the time of the sources, and would take an older commit for built.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --profile dist --locked --bin o365feed && \
    /tools/bin/cargo-cyclonedx cyclonedx --format json --spec-version 1.5 --override-filename sbom && \
    sh deploy/image/lay.sh /target/dist/o365feed sbom.json /image

FROM gcr.io/distroless/cc-debian12:nonroot
ARG REVISION=unknown
LABEL org.opencontainers.image.title="o365feed" \
      org.opencontainers.image.description="Streams the audit records of the Office 365 Management Activity API into Apache Kafka, each exactly once" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
COPY --from=build /image/ /
USER 65532:65532
# Where o365feed.yaml is looked for. Nothing is written there or anywhere else: run it with a read-only root.
WORKDIR /etc/o365feed
EXPOSE 9365 9443
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["/usr/bin/o365feed", "healthcheck"]
ENTRYPOINT ["/usr/bin/o365feed"]
CMD ["run"]
