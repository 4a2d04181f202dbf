# The daemon as an image: docker build -t inflightd .
# It serves on 0.0.0.0:8079, so it wants a token: docker run -e INFLIGHTD_TOKEN=… (openssl rand -hex 32 makes one).

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# Dependencies in a layer of their own: only another Cargo.toml or Cargo.lock makes them anew. Cargo wants each target of
# Cargo.toml to have a file.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src \
    && for file in src/main.rs $(sed -n 's/^path = "\(benches.*\)"$/\1/p' Cargo.toml); do \
         mkdir -p "$(dirname "$file")" && echo 'fn main() {}' > "$file"; \
       done \
    && touch src/lib.rs \
    && cargo build --profile dist --locked \
    && rm -r src

COPY src src
# Cargo goes by times, and those of a checkout may be older than the stand-ins above.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --profile dist --locked \
    && cp target/dist/inflightd /usr/local/bin/

FROM debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="inflightd" \
      org.opencontainers.image.description="One daemon between your AI clients and everything they call" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

# Whom to trust when a provider is asked over TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN groupadd --system --gid 10001 inflightd \
    && useradd --system --uid 10001 --gid inflightd --home-dir /var/lib/inflightd --create-home \
       --shell /usr/sbin/nologin inflightd
COPY --from=build /usr/local/bin/inflightd /usr/local/bin/inflightd

USER inflightd
# Where it looks for .env and inflightd.toml, and keeps what outlives it.
WORKDIR /var/lib/inflightd
VOLUME /var/lib/inflightd
ENV INFLIGHTD_LISTEN=0.0.0.0:8079
EXPOSE 8079
# A real call of the tool `health`; it takes its token from where the daemon has it.
HEALTHCHECK --interval=10s --timeout=10s --start-period=10s --retries=3 CMD ["inflightd", "healthcheck"]
# TERM drains: running calls get DRAIN_TIMEOUT_SECS (30), so give `docker stop` more: --time 40.
STOPSIGNAL SIGTERM
ENTRYPOINT ["inflightd"]
CMD ["serve"]
